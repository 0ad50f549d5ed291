"""Link layers: where in a captured frame the IP packet begins.

Numbers and layouts: https://www.tcpdump.org/linktypes.html.
"""

from collections.abc import Callable

_IP = (b"\x08\x00", b"\x86\xdd")
_VLAN = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
"""802.1Q, 802.1ad, and what QinQ was before that."""

_PPPOE = b"\x88\x64"
_PPPOE_HEADER = 6

_MPLS = (b"\x88\x47", b"\x88\x48")
_MPLS_LAST = 1
"""In the third octet of a label: no other follows (RFC 3032, section 2.1)."""

_FAMILIES = {2, 10, 24, 28, 30}
"""AF_INET, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS."""

_PPP_IP = (b"\x00\x21", b"\x00\x57")
_PPP_COMPRESSED = (b"\x21", b"\x57")
_PPP_ADDRESS = b"\xff\x03"

_SLL2_HEADER = 20


def _ethertype(frame: bytes, at: int) -> int | None:
    """Read the type at ``at``, behind any number of VLAN tags."""
    while frame[at : at + 2] in _VLAN:
        at += 4
    ethertype = frame[at : at + 2]
    at += 2
    if ethertype == _PPPOE:
        inner = _ppp(frame[at + _PPPOE_HEADER :])
        return None if inner is None else at + _PPPOE_HEADER + inner
    if ethertype in _MPLS:
        while at + 2 < len(frame) and not frame[at + 2] & _MPLS_LAST:
            at += 4
        return at + 4
    return at if ethertype in _IP else None


def _ethernet(frame: bytes) -> int | None:
    return _ethertype(frame, 12)


def _cooked(frame: bytes) -> int | None:
    return _ethertype(frame, 14)


def _cooked2(frame: bytes) -> int | None:
    return _SLL2_HEADER if frame[:2] in _IP else None


def _loopback(frame: bytes) -> int | None:
    """The family is in the byte order of whoever captured."""
    family = frame[:4]
    known = {int.from_bytes(family, "little"), int.from_bytes(family, "big")} & _FAMILIES
    return 4 if known else None


def _ppp(frame: bytes) -> int | None:
    """RFC 1661, section 2: address and control, and half the protocol, may be left out."""
    at = 2 if frame[:2] == _PPP_ADDRESS else 0
    if frame[at : at + 1] in _PPP_COMPRESSED:
        return at + 1
    return at + 2 if frame[at : at + 2] in _PPP_IP else None


def _raw(_: bytes) -> int:
    return 0


_LINKS: dict[int, tuple[str, Callable[[bytes], int | None]]] = {
    0: ("loopback", _loopback),
    1: ("ethernet", _ethernet),
    9: ("ppp", _ppp),
    12: ("raw", _raw),
    14: ("raw", _raw),
    50: ("ppp", _ppp),
    101: ("raw", _raw),
    108: ("loopback", _loopback),
    113: ("sll", _cooked),
    228: ("raw", _raw),
    229: ("raw", _raw),
    276: ("sll2", _cooked2),
}

NAMES = {number: name for number, (name, _) in _LINKS.items()}
"""Every link type whose frames can be read."""


def ip_packet(link: int, frame: bytes) -> bytes | None:
    """Give what is in a frame from its IP header on, padding included.

    Args:
        link: one of :data:`NAMES`.
        frame: as it was captured.

    Returns ``None`` when the frame says that it carries something else.
    """
    at = _LINKS[link][1](frame)
    return None if at is None else frame[at:]
