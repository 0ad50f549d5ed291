"""Overriding by nftables: one table that is gone with whoever made it.

``NFT_TABLE_F_OWNER`` (Linux 5.12): nobody else can change the table, and the kernel
removes it with the netlink socket, however its process ends.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from tunstack.errors import HostError
from tunstack.host import netlink
from tunstack.host.netlink import NESTED
from tunstack.host.rewrites import DNS, MARK, Rewrite

_TIMEOUT = 3.0
"""Seconds for the kernel's answer, which it gives before sendmsg(2) returns."""

# linux/netfilter/nfnetlink.h, nf_tables.h, linux/netfilter.h
_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _DELETE_RULE = 0, 3, 6, 8
_TABLE_NAME, _TABLE_FLAGS, _OWNER = 1, 2, 2
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_META_TO, _META_KEY = 1, 2
_PAYLOAD_TO, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 1, 2, 3, 4
_COMPARE_FROM, _COMPARE_HOW, _COMPARE_DATA = 1, 2, 3
_IMMEDIATE_TO, _IMMEDIATE_DATA = 1, 2
_NAT_TYPE, _NAT_FAMILY, _NAT_ADDRESS_FROM, _NAT_PORT_FROM = 1, 2, 3, 5
_REDIRECT_PORT_FROM = 1
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 2, 1
_UNSPECIFIED, _INET, _IPV4, _IPV6 = 0, 1, 2, 10
_PREROUTING, _OUTPUT = 0, 3
_META_MARK, _META_NFPROTO, _META_L4PROTO = 3, 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_PORT = (_TRANSPORT_HEADER, 2, 2)
_EQUAL = 0
_DNAT = 1
_VERDICT, _RETURN = 0, -5

_PRIORITY = -110
"""Just before the destination NAT of everybody else, which is -100."""

_HEAD = struct.Struct("!BBH")
"""``nfgenmsg``: family, version, resource."""

_FAMILY = {4: (_IPV4, (_NETWORK_HEADER, 16, 4)), 6: (_IPV6, (_NETWORK_HEADER, 24, 16))}
"""nfproto of an IP version, and where its destination address is."""

Request = tuple[int, int, bytes]
"""Type, flags and body of a message."""

Attribute = tuple[int, bytes]


class Nftables:
    """The table ``inet tunstack-DEVICE``, once it is set.

    Raises:
        HostError: this kernel has no nf_tables.
    """

    NAME = "nftables"

    def __init__(self, device: str) -> None:
        self._table = f"tunstack-{device}"
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER
            )
        except OSError as exc:
            raise HostError(f"nftables cannot be had: {exc.strerror}") from exc
        self._socket.settimeout(_TIMEOUT)

    def set(self, rewrites: Sequence[Rewrite]) -> None:
        """Rewrite exactly so, in place of what is there, in one step.

        Raises:
            HostError: the kernel refused; the table is gone.
        """
        try:
            self._transact(list(self._messages(rewrites)))
        except OSError as exc:
            self.close()
            why = {
                errno.EPERM: "not permitted, or somebody else's table is there",
                errno.EOPNOTSUPP: "this kernel's nf_tables knows no owner",
            }
            number = exc.errno or 0
            raise HostError(
                f"nftables refused the table inet {self._table}: "
                f"{why.get(number, exc.strerror or 'no answer')}"
            ) from exc

    def close(self) -> None:
        """Let the kernel remove the table."""
        self._socket.close()

    def _transact(self, requests: list[Request]) -> None:
        """Have all of it done, or nothing.

        Raises:
            OSError: the kernel's first complaint, or TimeoutError.
        """
        batch = enumerate([_edge(_BATCH_BEGIN), *requests, _edge(_BATCH_END)])
        data = b""
        pending = set()
        for number, (kind, flags, body) in batch:
            data += netlink.message(kind, flags, body, number)
            if flags & netlink.ACK:
                pending.add(number)
        self._socket.send(data)
        while pending:
            for answer in netlink.messages(self._socket.recv(1 << 16)):
                if answer.kind == netlink.ERROR:
                    answer.check()
                pending.discard(answer.number)

    def _messages(self, rewrites: Sequence[Rewrite]) -> Iterator[Request]:
        name = _text(_TABLE_NAME, self._table)
        owner = _number(_TABLE_FLAGS, _OWNER)
        yield _request(_NEW_TABLE, netlink.CREATE, name, owner)
        for chain, hook in (("output", _OUTPUT), ("prerouting", _PREROUTING)):
            where = _number(_HOOK_NUMBER, hook), _number(_HOOK_PRIORITY, _PRIORITY)
            yield _request(
                _NEW_CHAIN,
                netlink.CREATE,
                _text(_CHAIN_TABLE, self._table),
                _text(_CHAIN_NAME, chain),
                _nest(_CHAIN_HOOK, *where),
                _text(_CHAIN_TYPE, "nat"),
            )
        yield _request(_DELETE_RULE, 0, _text(_RULE_TABLE, self._table))
        elsewhere = [rewrite for rewrite in rewrites if rewrite.server is not None]
        rules = [
            ("output", _spare_marked()),
            *(("output", rule) for rule in _rules(rewrites)),
            *(("prerouting", rule) for rule in _rules(elsewhere)),
        ]
        for chain, expressions in rules:
            yield _request(
                _NEW_RULE,
                netlink.CREATE | netlink.APPEND,
                _text(_RULE_TABLE, self._table),
                _text(_RULE_CHAIN, chain),
                _nest(_RULE_EXPRESSIONS, *expressions),
            )


def _edge(kind: int) -> Request:
    return kind, 0, _HEAD.pack(_UNSPECIFIED, 0, _SUBSYSTEM)


def _request(kind: int, flags: int, *attributes: Attribute) -> Request:
    body = _HEAD.pack(_INET, 0, 0) + netlink.pack(attributes)
    return _SUBSYSTEM << 8 | kind, flags | netlink.ACK, body


def _nest(kind: int, *attributes: Attribute) -> Attribute:
    return kind | NESTED, netlink.pack(attributes)


def _text(kind: int, text: str) -> Attribute:
    return kind, text.encode() + b"\0"


def _number(kind: int, number: int) -> Attribute:
    return kind, struct.pack("!i", number)


def _rules(rewrites: Iterable[Rewrite]) -> Iterator[list[Attribute]]:
    for rewrite in rewrites:
        family, destination = _FAMILY[rewrite.name_server.version]
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            yield [
                _meta(_META_NFPROTO),
                _equals(bytes([family])),
                _payload(*destination),
                _equals(rewrite.name_server.packed),
                _meta(_META_L4PROTO),
                _equals(bytes([protocol])),
                _payload(*_DESTINATION_PORT),
                _equals(struct.pack("!H", DNS)),
                *_send_to(rewrite, family),
            ]


def _send_to(rewrite: Rewrite, family: int) -> list[Attribute]:
    port = _load(2, struct.pack("!H", rewrite.port))
    if rewrite.server is None:
        return [port, _expression("redir", _number(_REDIRECT_PORT_FROM, 2))]
    dnat = _expression(
        "nat",
        _number(_NAT_TYPE, _DNAT),
        _number(_NAT_FAMILY, family),
        _number(_NAT_ADDRESS_FROM, 1),
        _number(_NAT_PORT_FROM, 2),
    )
    return [_load(1, rewrite.server.packed), port, dnat]


def _spare_marked() -> list[Attribute]:
    verdict = _nest(_DATA_VERDICT, _number(_VERDICT_CODE, _RETURN))
    return [
        _meta(_META_MARK),
        _equals(struct.pack("=I", MARK)),
        _immediate(_VERDICT, verdict),
    ]


def _meta(key: int) -> Attribute:
    return _expression("meta", _number(_META_TO, 1), _number(_META_KEY, key))


def _payload(base: int, offset: int, length: int) -> Attribute:
    return _expression(
        "payload",
        _number(_PAYLOAD_TO, 1),
        _number(_PAYLOAD_BASE, base),
        _number(_PAYLOAD_OFFSET, offset),
        _number(_PAYLOAD_LENGTH, length),
    )


def _equals(value: bytes) -> Attribute:
    return _expression(
        "cmp",
        _number(_COMPARE_FROM, 1),
        _number(_COMPARE_HOW, _EQUAL),
        _nest(_COMPARE_DATA, (_DATA_VALUE, value)),
    )


def _load(register: int, value: bytes) -> Attribute:
    return _immediate(register, (_DATA_VALUE, value))


def _immediate(register: int, data: Attribute) -> Attribute:
    return _expression(
        "immediate", _number(_IMMEDIATE_TO, register), _nest(_IMMEDIATE_DATA, data)
    )


def _expression(name: str, *attributes: Attribute) -> Attribute:
    data = _nest(_EXPRESSION_DATA, *attributes)
    return _nest(_ELEMENT, _text(_EXPRESSION_NAME, name), data)
