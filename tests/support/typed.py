"""What a user types, carried out in this process: the whole command line without the price of a new interpreter."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from subprocess import CompletedProcess
from unittest.mock import patch

import structlog

from initiator.cli import main
from tests.support.environment import environment


def initiator(*words: str, variables: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """`initiator` with these words; not for what runs until a signal comes.

    Args:
        variables: more of the environment.
    """
    out, error, code = io.StringIO(), io.StringIO(), 0
    known = structlog.get_config()
    with (
        patch.object(sys, "argv", ["initiator", *words]),
        patch.dict(os.environ, environment() | dict(variables or {}), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            structlog.configure(**known)
    return CompletedProcess(["initiator", *words], code, out.getvalue(), error.getvalue())
