"""What the operating system lets a manager hold."""

import resource

RESERVED_FILES = 256
"""Open files that are not flows: listeners, streams, DNS, logs."""


def raise_open_files() -> int:
    """Allow this process as many open files as it may have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def flow_limit(wanted: int, open_files: int) -> int:
    """Give the flows that so many open files carry, at most ``wanted``."""
    return max(1, min(wanted, open_files - RESERVED_FILES))
