"""Formats: octets to values and back, without state."""
