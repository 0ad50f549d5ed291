"""Machines (sans-IO): what the host talks TCP/IP to."""
