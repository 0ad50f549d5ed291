"""Version of the product, and of the protocol it speaks with a manager."""

PRODUCT = "0.1.0"

PROTOCOL = 2
"""Highest protocol version (``docs/protocol.md``)."""

PROTOCOL_MINIMUM = 1
"""Lowest. From version 2 on the one before the highest stays supported."""

HELPER_PROTOCOL = 3
"""Version of the conversation between engine and helper."""
