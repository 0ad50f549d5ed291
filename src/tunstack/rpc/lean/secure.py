"""TLS between an asyncio transport and a protocol: the ``ssl`` module's own, in bulk.

The event loops bring TLS, too, but hand a protocol one record at a time. This gives it
all that has arrived at once, in one call, and makes of all that it writes one write.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from tunstack.rpc.http2.message import Octets
from tunstack.rpc.lean.tls import ALPN

_READ = 128 * 1024
"""Octets read at once, encrypted: sixteen records."""


_RECORD = 16 * 1024
"""Octets in one record at most (RFC 8446, section 5.1)."""


class Secure(asyncio.BufferedProtocol):
    """A protocol to the transport below it, and a transport to the protocol above.

    The protocol above may write at once; it leaves when the handshake is over. If that
    fails the protocol hears of it as of a connection that is lost.

    Args:
        protocol: served.
        context: says whom to trust, or who we are.
        server_name: that the other end's certificate must bear; ``None`` for servers.
    """

    def __init__(
        self,
        protocol: asyncio.BufferedProtocol,
        context: ssl.SSLContext,
        server_name: str | None = None,
    ) -> None:
        self._protocol = protocol
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._memory = memoryview(bytearray(_READ))
        self._transport: Any = None
        self._established = False
        self._early: list[Octets] = []
        self._said_goodbye = False
        self._error: Exception | None = None

    # To the transport below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._transport = transport
        self._protocol.connection_made(self)  # type: ignore[arg-type]
        self._shake_hands()
        if self._outgoing.pending:
            self._send()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Give memory to receive into."""
        return self._memory

    def buffer_updated(self, count: int) -> None:
        """Take what has arrived, encrypted."""
        self._incoming.write(self._memory[:count])
        try:
            if self._established or self._shake_hands():
                self._read()
        except ssl.SSLError as exc:
            self._fail(exc)
        if self._outgoing.pending:
            self._send()

    def eof_received(self) -> bool:
        """Tell the protocol that nothing more comes."""
        self._protocol.eof_received()
        return False

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, with what TLS knows better than the socket."""
        self._protocol.connection_lost(self._error or exc)

    # To the protocol above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give what the transport below knows."""
        return self._transport.get_extra_info(name, default)

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set them where what was written waits."""
        self._transport.set_write_buffer_limits(high, low)

    def write(self, data: Octets) -> None:
        """Send octets."""
        if not self._established:
            self._early.append(data)
            return
        self._tls.write(data)
        self._send()

    def writelines(self, data: Iterable[Octets]) -> None:
        """Send octets; what is short shares records."""
        if not self._established:
            self._early += data
            return
        short: list[Octets] = []
        for octets in data:
            if len(octets) < _RECORD:
                short.append(octets)
                continue
            if short:
                self._tls.write(b"".join(short))
                short.clear()
            self._tls.write(octets)
        if short:
            self._tls.write(b"".join(short))
        self._send()

    def can_write_eof(self) -> bool:
        """Whether one half can be closed."""
        return bool(self._transport.can_write_eof())

    def write_eof(self) -> None:
        """Close our half behind what was written."""
        self._say_goodbye()
        self._transport.write_eof()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return bool(self._transport.is_closing())

    def close(self) -> None:
        """Close behind what was written."""
        self._say_goodbye()
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    # Between them

    def _shake_hands(self) -> bool:
        """Go on with the handshake; returns whether it is over."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self._tls.selected_alpn_protocol() != ALPN:
            # RFC 9113, section 3.3: without, it may be anything.
            self._fail(ConnectionError("it does not speak HTTP/2: ALPN without h2"))
            return False
        self._established = True
        early, self._early = self._early, []
        if early:
            self.writelines(early)
        return True

    def _fail(self, error: Exception) -> None:
        """End the connection; TLS may have something to say about it."""
        self._error = error
        self._send()
        self._transport.close()

    def _read(self) -> None:
        """Give the protocol as much as it has room for, at once.

        Raises:
            SSLError: that is not from the other end.
        """
        tls, incoming = self._tls, self._incoming
        while incoming.pending or tls.pending():
            room: Any = self._protocol.get_buffer(-1)
            size = len(room)
            filled = count = 0
            try:
                filled = count = _into(tls, size, room)
                while count and incoming.pending and filled < size:
                    count = _into(tls, size - filled, room[filled:])
                    filled += count
            except ssl.SSLWantReadError:  # the last record is not whole
                count = filled
                if not filled:
                    return
            except ssl.SSLZeroReturnError:
                count = 0
            if filled:
                self._protocol.buffer_updated(filled)
            if not count:  # the other end has closed its half
                self._protocol.eof_received()
                self.close()
                return

    def _send(self) -> None:
        octets = self._outgoing.read()
        if not self._said_goodbye:
            self._transport.write(octets)

    def _say_goodbye(self) -> None:
        """RFC 8446, section 6.1: close_notify, without waiting for the other end's."""
        if self._established and self._error is None and not self._said_goodbye:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send()
        self._said_goodbye = True


_into: Callable[[ssl.SSLObject, int, memoryview], int] = ssl.SSLObject.read  # type: ignore[assignment]
"""With memory to read into, ``read`` returns how much it has read."""
