"""The event loop of a program: uvloop where there is one, asyncio otherwise."""

import asyncio
import ctypes
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_TRIM = 32 * 1024 * 1024
_GROW = 1024 * 1024
_MAP = 8 * 1024 * 1024


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's coroutine to its end and give what it returns."""
    _keep_memory()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def _keep_memory() -> None:
    """Have malloc keep what messages need, 64 to 512 KiB each, for those to come.

    Else glibc gives such pieces back to the kernel at once, by munmap or by trimming
    its heap, and gets them again page by page, each cleared: a quarter of all CPU time
    of a bulk transfer. See mallopt(3); other C libraries have nothing of the kind.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAP)
        mallopt(_M_TRIM_THRESHOLD, _TRIM)
        mallopt(_M_TOP_PAD, _GROW)
