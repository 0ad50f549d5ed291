"""The hot message of the tunnel, wrapped and unwrapped without protobuf.

Nearly every message is ``frames = 1`` of ``tunnel.proto`` and nothing else. Encoded
that is a tag, a length and the frames, so one concatenation makes it and a slice reads
it. Everything else goes through the generated classes.
"""

_TAG = 0x0A  # field 1, length-delimited


def frames(body: bytes | bytearray) -> bytes:
    """Encode a ``FromClient`` or ``FromManager`` that carries ``body`` as its frames.

    Source: the protocol buffers wire format (tag, base-128 length, octets).
    """
    length = len(body)
    header = bytearray((_TAG,))
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return b"".join((header, body))


def unwrap(message: bytes | memoryview) -> memoryview | None:
    """Give the frames of a message that carries nothing else, without a copy.

    Returns ``None`` for every other message, malformed ones included: the generated
    classes decide about those.
    """
    if len(message) < 2 or message[0] != _TAG:
        return None
    length = shift = 0
    # Four octets of length hold every message that a transport lets through.
    for at in range(1, min(len(message), 5)):
        length |= (message[at] & 0x7F) << shift
        if message[at] < 0x80:
            body = memoryview(message)[at + 1 :]
            return body if len(body) == length else None
        shift += 7
    return None
