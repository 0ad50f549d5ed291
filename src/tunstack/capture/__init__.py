"""Captures: files of recorded packets, and what the stack makes of them."""
