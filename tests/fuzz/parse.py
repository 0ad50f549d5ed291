"""Any octets into the parse kernel: both implementations say the same, and it is sane.

The first octet decides whether there are virtio headers (1) and whether the checksums of
IPv4 headers are put right (2); the second how far apart the slots are. The slots follow,
each behind its length of two octets.
"""

import contextlib
import importlib

from tests.fuzz.octets import Octets
from tunstack._fastpath import reference
from tunstack._fastpath.record import RECORD, Verdict
from tunstack.stack.reassembly import Reassembly
from tunstack.wire import tcp

VNET, MENDED = 1, 2
TCP = 6

try:
    kernels = importlib.import_module("tunstack._fastpath.kernels")
except ImportError:  # not built: the twin is looked at alone
    kernels = None


def check(data: bytes) -> None:
    """Parse a batch."""
    octets = Octets(data)
    mode, gap = octets.octet(), octets.octet()
    vnet = 10 * (mode & VNET)
    slots = []
    while octets:
        slot = octets.text(octets.number(2))
        slots.append(mend(slot, vnet) if mode & MENDED else slot)
    stride = max(map(len, slots), default=0) + gap
    arena = b"".join(slot.ljust(stride, b"\xaa") for slot in slots)
    lengths = list(map(len, slots))
    records = list(reference.parse_batch(arena, stride, lengths, vnet))
    assert len(records) == len(slots)
    for index, (record, length) in enumerate(zip(records, lengths, strict=True)):
        start = index * stride
        check_record(record, start, start + length, vnet)
        use(record, arena)
    if kernels is not None:
        assert list(kernels.parse_batch(arena, stride, lengths, vnet)) == records
        # Memory that ends where the last slot does.
        if slots:
            tail = memoryview(arena)[: len(arena) - stride + lengths[-1]]
            assert list(kernels.parse_batch(tail, stride, lengths, vnet)) == records


def check_record(record: tuple, start: int, end: int, vnet: int) -> None:
    """All offsets lie inside the slot, in order."""
    _, _, ip, options, payload, behind, _, gso, verdict, _, _, key, *_ = record
    RECORD.pack(*record)
    assert ip == start + vnet
    assert len(key) == 37
    if verdict == Verdict.DELIVER:
        assert ip + 20 <= options <= payload <= behind <= end
        assert payload - options <= 40
        assert vnet or not gso
    elif verdict == Verdict.FRAGMENT:
        assert ip + 20 <= payload < behind <= end
    else:
        assert Verdict(verdict) > Verdict.FRAGMENT
        assert payload == 0
        assert behind == 0 or ip < behind <= end


def use(record: tuple, arena: bytes) -> None:
    """Give what was found to who reads it next."""
    ip, options, payload, end, verdict, key = *record[2:6], record[8], record[11]
    if verdict == Verdict.DELIVER and key[0] == TCP:
        parsed = tcp.parse_options(memoryview(arena)[options:payload])
        assert parsed.window_scale is None or parsed.window_scale <= 14
    elif verdict == Verdict.FRAGMENT:
        with contextlib.suppress(ValueError):
            Reassembly().add(memoryview(arena)[ip:end], payload - ip, 0.0)


def mend(slot: bytes, vnet: int) -> bytes:
    """Put the checksum of an IPv4 header right, if there is room for one."""
    packet = bytearray(slot)
    header = packet[vnet : vnet + (packet[vnet] & 15) * 4] if len(slot) > vnet else b""
    if len(header) < 20 or header[0] >> 4 != 4:
        return slot
    header[10:12] = b"\0\0"
    packet[vnet + 10 : vnet + 12] = (0xFFFF - reference.sum16(header, 0)).to_bytes(2)
    return bytes(packet)
