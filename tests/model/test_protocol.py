"""The Spin model of the protocol holds, and each guard that is taken out yields what it prevents."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "docs" / "model" / "check.py"


@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("spin") is None or shutil.which("cc") is None, reason="no spin or no C compiler here")
def test_the_model_holds_and_needs_each_of_its_guards() -> None:
    done = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert sum("holds" in line for line in lines) == 2
