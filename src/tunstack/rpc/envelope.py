"""The hot message of the tunnel, wrapped and unwrapped without protobuf.

Nearly every message is ``frames = 1`` of ``tunnel.proto`` and nothing else. Encoded
that is a tag, a length and the frames, so two pieces make it and a slice reads it.
Everything else goes through the generated classes.
"""

_TAG = 0x0A  # field 1, length-delimited

_SHORT = [bytes((_TAG, length)) for length in range(0x80)]
"""What leads a body whose length takes one octet."""


def frames(body: bytes | bytearray) -> tuple[bytes, bytes | bytearray]:
    """Encode a ``FromClient`` or ``FromManager`` that carries ``body`` as its frames.

    Returns what leads, and the body as it is.
    """
    return _lead(len(body)), body


def unwrap(message: bytes | memoryview) -> memoryview | None:
    """Give the frames of a message that carries nothing else, without a copy.

    Returns ``None`` for every other message, malformed ones included, and for lengths in
    more octets than they need: the generated classes decide about those.
    """
    size = len(message)
    if size < 2 or message[0] != _TAG:
        return None
    if size < 0x82:
        return memoryview(message)[2:] if message[1] == size - 2 else None
    # As many octets lead as the length of what is behind them makes it.
    at = 3 if size < 0x4003 else 4 if size < 0x20_0004 else 5
    return memoryview(message)[at:] if message[:at] == _lead(size - at) else None


def _lead(length: int) -> bytes:
    """Encode the tag, and a length of less than 2^28 octets.

    Source: the protocol buffers wire format (tag, base-128 length, octets).
    """
    if length < 0x80:
        return _SHORT[length]
    if length < 0x4000:
        return bytes((_TAG, length & 0x7F | 0x80, length >> 7))
    lead = bytearray((_TAG,))
    while length > 0x7F:
        lead.append(length & 0x7F | 0x80)
        length >>= 7
    lead.append(length)
    return bytes(lead)
