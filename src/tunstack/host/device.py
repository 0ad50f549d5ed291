"""The TUN device: packets in and out in batches.

Opening one takes CAP_NET_ADMIN and happens in the helper; carrying packets takes only
the descriptor, and happens in the engine. Device, addresses and routes live as long as
the last descriptor (``drivers/net/tun.c``).
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence

from pytun_pmd3 import TunTapDevice

from tunstack.errors import HostError, PrivilegeError

_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8

_CSUM, _TSO4, _TSO6, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_OFFLOADS = (
    # Each USO bit is refused without the other; kernels before 6.2 know neither.
    _CSUM | _TSO4 | _TSO6 | _USO4 | _USO6,
    _CSUM | _TSO4 | _TSO6,
    _CSUM,
)
"""What to ask for, the best first (``linux/if_tun.h``)."""

VNET = 10
"""Octets of ``struct virtio_net_hdr``."""

SLOTS = 64
"""Packets read at most in one batch."""

STRIDE = 65_664
"""Octets from one slot to the next: a virtio header and the largest IPv6 packet."""


class _Tun(TunTapDevice):  # type: ignore[misc]
    """Without a finalizer.

    When the kernel refuses a device, pytun-pmd3 3.0 closes the descriptor and then, when
    the object goes, whatever has got its number since.
    """

    def __del__(self) -> None:
        pass


def open_tun(name: str, *, offload: bool) -> tuple[int, int]:
    """Open a new TUN device.

    Args:
        name: of the device, which must not exist.
        offload: whether packets may come and go without checksum and uncut.

    Returns the descriptor, non-blocking, and the octets of virtio header before each
    packet: 10, or 0 without offload.

    Raises:
        PrivilegeError: it takes CAP_NET_ADMIN.
        HostError: the name is taken, or this kernel has no TUN.
    """
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if offload else 0)
    try:
        tun = _Tun(name, flags)
    except OSError as exc:
        raise _refused(name, exc) from exc
    try:
        # A descriptor of our own: the object closes its one when it goes.
        fd = os.dup(tun.fileno())
    finally:
        tun.close()
    os.set_blocking(fd, False)
    if offload:
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET))
        for wanted in _OFFLOADS:
            try:
                fcntl.ioctl(fd, _TUNSETOFFLOAD, wanted)
                break
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    os.close(fd)
                    raise HostError(f"{name}: no offload: {exc.strerror}") from exc
    return fd, VNET if offload else 0


def _refused(name: str, exc: OSError) -> HostError | PrivilegeError:
    if exc.errno in (errno.EPERM, errno.EACCES):
        return PrivilegeError(f"the device {name} cannot be opened: {exc.strerror}")
    if exc.errno in (errno.EBUSY, errno.EEXIST):
        return HostError(
            f"there is a device {name} already; nothing was changed",
            hint="choose another name with --device, or end whoever has it",
        )
    if exc.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return HostError(
            "this kernel has no TUN devices", hint="load the module: modprobe tun"
        )
    return HostError(f"the device {name} cannot be opened: {exc.strerror}")


class Device:
    """An open TUN device, or anything else whose descriptor gives and takes packets.

    A socket of type SOCK_SEQPACKET, for one: then ``vnet`` is 0.

    Args:
        fd: non-blocking; belongs to the device from here on.
        name: of the device.
        mtu: octets in one packet.
        vnet: octets of virtio header before each packet: 10 or 0.
    """

    def __init__(self, fd: int, *, name: str, mtu: int, vnet: int) -> None:
        self.name = name
        self.mtu = mtu
        self.vnet = vnet
        self.written_packets = 0
        self.written_octets = 0
        """Of packets, without virtio headers."""
        self.write_drops = 0
        """Packets that the kernel did not take."""
        self.closed = False
        self._fd = fd
        self._arena = bytearray(SLOTS * STRIDE)
        view = memoryview(self._arena)
        self._slots = [[view[at * STRIDE : (at + 1) * STRIDE]] for at in range(SLOTS)]

    def fileno(self) -> int:
        """Give the descriptor, to wait on; -1 once closed."""
        return self._fd

    def read_batch(self) -> tuple[bytearray, list[int]]:
        """Read what there is, at most :data:`SLOTS` packets.

        Returns the arena, whose slots are :data:`STRIDE` octets apart, and the octets
        read into each slot; it is overwritten by the next call. An empty list means
        that nothing was there, or that the device is gone: then :attr:`closed` is true.
        """
        lengths: list[int] = []
        fd = self._fd
        readv = os.readv
        try:
            for slot in self._slots:
                lengths.append(readv(fd, slot))  # noqa: PERF401 - what was read counts
        except BlockingIOError:
            pass
        except OSError:
            if not lengths:
                self.close()
        return self._arena, lengths

    def write_batch(
        self, packets: Iterable[Sequence[bytes | bytearray | memoryview]]
    ) -> None:
        """Write packets, each as pieces of memory with the virtio header first."""
        fd, octets, written = self._fd, 0, 0
        for pieces in packets:
            try:
                octets += os.writev(fd, pieces)
                written += 1
            except OSError:
                # EIO while the device is down, ENOMEM, or a size that it refuses:
                # the network loses a packet, and TCP sends it again.
                self.write_drops += 1
        self.written_packets += written
        self.written_octets += octets - written * self.vnet

    def close(self) -> None:
        """Close the descriptor: with the last one the device is gone."""
        if not self.closed:
            self.closed = True
            fd, self._fd = self._fd, -1  # the number may soon be somebody else's
            os.close(fd)
