"""A real TUN: what the kernel routes into it is read, what is written arrives."""

import gc
import os
import select
import socket
import struct
import subprocess

import pytest

from tunstack.errors import HostError
from tunstack.host import routes_linux
from tunstack.host.device import SLOTS, STRIDE, Device, open_tun

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("namespace")]

UDP_SEGMENT = 103  # linux/udp.h
GSO_UDP_L4 = 5  # VIRTIO_NET_HDR_GSO_UDP_L4, linux/virtio_net.h


def opened(*, offload: bool, mtu: int = 1500) -> Device:
    fd, vnet = open_tun("ts0", offload=offload)
    routes_linux.configure("ts0", mtu=mtu, txqueuelen=500, addresses=["10.9.0.1/24"])
    return Device(fd, name="ts0", mtu=mtu, vnet=vnet)


def received(device: Device) -> list[bytes]:
    """Wait for packets and take one batch, without virtio headers."""
    assert select.select([device], [], [], 5)[0]
    arena, lengths = device.read_batch()
    return [
        bytes(arena[slot * STRIDE + device.vnet : slot * STRIDE + length])
        for slot, length in enumerate(lengths)
    ]


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def datagram(port: int, payload: bytes) -> bytes:
    """Give a UDP packet from 10.9.0.2 to 10.9.0.1, without a UDP checksum."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, socket.IPPROTO_UDP, 0,
        socket.inet_aton("10.9.0.2"), socket.inet_aton("10.9.0.1"),
    )  # fmt: skip
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + struct.pack("!HHHH", 53, port, 8 + len(payload), 0) + payload


@pytest.mark.parametrize("offload", [True, False])
def test_what_is_sent_to_the_network_of_the_device_is_read(offload):
    device = opened(offload=offload)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for text in (b"one", b"two"):
            sender.sendto(text, ("10.9.0.2", 9))
        packets = received(device)
    assert [packet[28:] for packet in packets] == [b"one", b"two"]
    device.close()


def test_nothing_to_read_is_an_empty_batch():
    device = opened(offload=True)
    assert device.read_batch()[1] == []
    assert not device.closed
    device.close()


def test_a_batch_ends_at_its_last_slot_and_the_next_goes_on():
    device = opened(offload=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(SLOTS + 3):
            sender.sendto(bytes([number]), ("10.9.0.2", 9))
    first, second = received(device), received(device)
    assert [packet[28] for packet in first + second] == list(range(SLOTS + 3))
    assert len(first) == SLOTS
    device.close()


@pytest.mark.parametrize("offload", [True, False])
def test_what_is_written_arrives(offload):
    device = opened(offload=offload)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        receiver.bind(("10.9.0.1", 0))
        packet = datagram(receiver.getsockname()[1], b"hello")
        device.write_batch([[bytes(device.vnet), packet[:28], memoryview(packet)[28:]]])
        assert receiver.recv(100) == b"hello"
    assert (device.written_packets, device.written_octets) == (1, len(packet))
    device.close()


def test_without_offload_packets_are_at_most_the_mtu():
    device = opened(offload=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.sendto(bytes(3000), ("10.9.0.2", 9))
    assert [len(packet) for packet in received(device)] == [1028] * 3
    device.close()


def test_with_offload_the_kernel_leaves_the_cutting_to_us():
    device = opened(offload=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.sendto(bytes(3000), ("10.9.0.2", 9))
    assert select.select([device], [], [], 5)[0]
    arena, lengths = device.read_batch()
    if len(lengths) == 3:
        pytest.skip("this kernel has no USO")
    assert lengths == [device.vnet + 28 + 3000]
    _, kind, _, size = struct.unpack_from("=BBHH", arena)
    assert (kind, size) == (GSO_UDP_L4, 1000)
    device.close()


def test_a_packet_that_the_kernel_refuses_is_counted_and_the_rest_is_written():
    device = opened(offload=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        receiver.bind(("10.9.0.1", 0))
        port = receiver.getsockname()[1]
        device.write_batch([[b"\xff" * 40], [datagram(port, b"good")]])
        assert receiver.recv(100) == b"good"
    assert device.write_drops == 1
    device.close()


def test_a_device_that_is_gone_is_closed_by_reading():
    device = opened(offload=True)
    subprocess.run(["ip", "link", "delete", "ts0"], check=True)
    assert device.read_batch()[1] == []
    assert device.closed


def test_a_closed_device_does_not_touch_who_has_its_number_now(tmp_path):
    device = opened(offload=False)
    number = device.fileno()
    device.close()
    with (tmp_path / "other").open("w+b") as other:
        os.dup2(other.fileno(), number)
        device.write_batch([[b"packet"]])
        assert device.read_batch()[1] == []
        assert os.fstat(number).st_size == 0
        os.close(number)
    assert device.write_drops == 1


def test_a_refused_device_does_not_touch_who_has_its_number_later():
    device = opened(offload=True)
    for _ in range(10):
        with pytest.raises(HostError):
            open_tun("ts0", offload=True)
        with socket.socket() as other:
            gc.collect()
            assert other.getsockname()
    device.close()


def test_closing_removes_device_and_routes():
    device = opened(offload=True)
    device.close()
    assert "ts0" not in [name for _, name in socket.if_nameindex()]
    assert routes_linux.read_routes() == []


def test_a_second_device_of_the_same_name_is_refused_and_the_first_stays():
    device = opened(offload=True)
    with pytest.raises(HostError, match="there is a device ts0 already") as caught:
        open_tun("ts0", offload=True)
    assert "--device" in caught.value.hint
    assert "ts0" in [name for _, name in socket.if_nameindex()]
    device.close()
