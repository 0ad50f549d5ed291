"""What engine and helper agree on beside ``helper.py``'s table of verbs."""

MAX_MESSAGE = 128 * 1024
"""Octets in one request or answer: some thousand networks."""

MAX_SOCKETS = 64
"""Descriptors in one answer; the kernel passes 253 (unix(7), SCM_RIGHTS)."""
