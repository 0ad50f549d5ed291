"""Machines (sans-IO): many flows over one stream of messages."""
