"""Overriding by nftables: one table that is gone with whoever made it.

``NFT_TABLE_F_OWNER`` (Linux 5.12): nobody else can change the table, and the kernel
removes it with the netlink socket, however its process ends.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tunstack.errors import HostError
from tunstack.host.rewrites import DNS, MARK, Rewrite

_TIMEOUT = 3.0
"""Seconds for the kernel's answer, which it gives before sendmsg(2) returns."""

# linux/netlink.h, linux/netfilter/nfnetlink.h, nf_tables.h, linux/netfilter.h
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_APPEND = 0x01, 0x04, 0x400, 0x800
_NLMSG_ERROR = 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_OWNER = 2
_INET, _IPV4, _IPV6 = 1, 2, 10
_PREROUTING, _OUTPUT = 0, 3
_META_MARK, _META_NFPROTO, _META_L4PROTO = 3, 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_PORT = (_TRANSPORT_HEADER, 2, 2)
_DNAT = 1
_VERDICT, _RETURN = 0, -5

_PRIORITY = -110
"""Just before the destination NAT of everybody else, which is -100."""

_HEADER = struct.Struct("=IHHIIi")
"""``nlmsghdr``: length, type, flags, sequence number, port; and ``nlmsgerr.error``."""

_FAMILY = {4: (_IPV4, (_NETWORK_HEADER, 16, 4)), 6: (_IPV6, (_NETWORK_HEADER, 24, 16))}
"""nfproto of an IP version, and where its destination address is."""

Expression = dict[str, Any]


class Nftables:
    """The table ``inet tunstack-DEVICE``, once it is set.

    Raises:
        HostError: this kernel has no nf_tables.
    """

    NAME = "nftables"

    def __init__(self, device: str) -> None:
        self._table = f"tunstack-{device}"
        self._sequence = 0
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

    def _transact(self, messages: list[Any]) -> None:
        """Have all of it done, or nothing.

        Raises:
            OSError: the kernel's first complaint, or TimeoutError.
        """
        batch = [_edge(_BATCH_BEGIN), *messages, _edge(_BATCH_END)]
        data = b""
        pending = set()
        for message in batch:
            self._sequence += 1
            message["header"]["sequence_number"] = self._sequence
            message.encode()
            data += message.data
            if message["header"]["flags"] & _NLM_F_ACK:
                pending.add(self._sequence)
        self._socket.send(data)
        while pending:
            answers = self._socket.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(answers):
                length, kind, _, sequence, _, error = _HEADER.unpack_from(answers, at)
                if kind == _NLMSG_ERROR and error:
                    raise OSError(-error, os.strerror(-error))
                pending.discard(sequence)
                at += length + 3 & ~3

    def _messages(self, rewrites: Sequence[Rewrite]) -> Iterator[Any]:
        from pyroute2.netlink.nfnetlink import nftsocket as nft

        table = ("NFTA_TABLE_NAME", self._table), ("NFTA_TABLE_FLAGS", _OWNER)
        yield _message(nft.nft_table_msg, nft.NFT_MSG_NEWTABLE, table, _NLM_F_CREATE)
        for name, hook in (("output", _OUTPUT), ("prerouting", _PREROUTING)):
            where = [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", _PRIORITY)]
            chain = (
                ("NFTA_CHAIN_TABLE", self._table),
                ("NFTA_CHAIN_NAME", name),
                ("NFTA_CHAIN_HOOK", {"attrs": where}),
                ("NFTA_CHAIN_TYPE", "nat"),
            )
            yield _message(nft.nft_chain_msg, nft.NFT_MSG_NEWCHAIN, chain, _NLM_F_CREATE)
        every = (("NFTA_RULE_TABLE", self._table),)
        yield _message(nft.nft_rule_msg, nft.NFT_MSG_DELRULE, every, 0)
        elsewhere = [rewrite for rewrite in rewrites if rewrite.server is not None]
        rules = [
            ("output", _spare_marked()),
            *(("output", rule) for rule in _rules(rewrites)),
            *(("prerouting", rule) for rule in _rules(elsewhere)),
        ]
        for name, expressions in rules:
            rule = (
                ("NFTA_RULE_TABLE", self._table),
                ("NFTA_RULE_CHAIN", name),
                ("NFTA_RULE_EXPRESSIONS", expressions),
            )
            yield _message(
                nft.nft_rule_msg, nft.NFT_MSG_NEWRULE, rule, _NLM_F_CREATE | _NLM_F_APPEND
            )


def _edge(kind: int) -> Any:
    from pyroute2.netlink.nfnetlink import nfgen_msg

    message = nfgen_msg()
    message["res_id"] = _SUBSYSTEM
    message["header"].update({"type": kind, "flags": _NLM_F_REQUEST, "pid": 0})
    return message


def _message(cls: Any, kind: int, attributes: Iterable[tuple[str, Any]], flags: int) -> Any:
    message = cls()
    message["attrs"] = list(attributes)
    message["nfgen_family"] = _INET
    flags |= _NLM_F_REQUEST | _NLM_F_ACK
    message["header"].update({"type": _SUBSYSTEM << 8 | kind, "flags": flags, "pid": 0})
    return message


def _rules(rewrites: Iterable[Rewrite]) -> Iterator[list[Expression]]:
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


def _send_to(rewrite: Rewrite, family: int) -> list[Expression]:
    port = _load(2, struct.pack("!H", rewrite.port))
    if rewrite.server is None:
        return [port, _expression("redir", reg_proto_min=2)]
    dnat = _expression("nat", type=_DNAT, family=family, reg_addr_min=1, reg_proto_min=2)
    return [_load(1, rewrite.server.packed), port, dnat]


def _spare_marked() -> list[Expression]:
    verdict = {"attrs": [("NFTA_VERDICT_CODE", _RETURN)]}
    data = {"attrs": [("NFTA_DATA_VERDICT", verdict)]}
    return [
        _meta(_META_MARK),
        _equals(struct.pack("=I", MARK)),
        _expression("immediate", dreg=_VERDICT, data=data),
    ]


def _meta(key: int) -> Expression:
    return _expression("meta", key=key, dreg=1)


def _payload(base: int, offset: int, length: int) -> Expression:
    return _expression("payload", dreg=1, base=base, offset=offset, len=length)


def _equals(value: bytes) -> Expression:
    return _expression("cmp", sreg=1, op=0, data=_value(value))


def _load(register: int, value: bytes) -> Expression:
    return _expression("immediate", dreg=register, data=_value(value))


def _value(value: bytes) -> Expression:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, **attributes: Any) -> Expression:
    from pyroute2.nftables.expressions import genex

    expression: Expression = genex(name, attributes)
    return expression
