"""Nobody reads this process's memory: no core dump, and no look from another process of the same user.

`RLIMIT_CORE` stops core files; where the system pipes cores into a program the limit does not count, and only the
process's own mark (`PR_SET_DUMPABLE`, Linux) does. The same mark closes `/proc/PID/environ`, `mem` and ptrace.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def close() -> str | None:
    """Close it; returns what could not be done here, or None. To be called before any secret is read."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform != "linux":
        return f"only core files are off: {sys.platform} has no mark against other readers that we know"
    return (
        None if _set_dumpable(0) else "prctl(PR_SET_DUMPABLE) failed: other processes of this user can read our memory"
    )


def open_again() -> None:
    """As it was before: for debugging."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    if sys.platform == "linux":
        _set_dumpable(1)


def _set_dumpable(value: int) -> bool:
    try:
        code: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return code == 0
