"""Make the captures of this directory: ``python -m tests.replay.make_captures``.

Two links, two formats, and what matters of TCP on each: text out of order, twice and
overlapping, sequence numbers that wrap, a gap that is filled late.
"""

from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter

HERE = Path(__file__).parent / "captures"

QUESTION = bytes(range(256)) * 5
ANSWER = b"answer " * 300


class Conversation:
    """Packets of both sides of a TCP connection; numbers count from the initial ones."""

    def __init__(self, network: Packet, back: Packet, isn: int, server_isn: int) -> None:
        self._ways = {"client": (network, 40_000, 80), "server": (back, 80, 40_000)}
        self._isn = {"client": isn, "server": server_isn}

    def number(self, side: str, seq: int) -> int:
        return (self._isn[side] + seq) % 2**32

    def segment(
        self,
        side: str,
        seq: int,
        ack: int,
        flags: str,
        text: bytes = b"",
        **options: object,
    ) -> Packet:
        network, sport, dport = self._ways[side]
        other = "server" if side == "client" else "client"
        return (
            network
            / TCP(
                sport=sport,
                dport=dport,
                seq=self.number(side, seq),
                ack=self.number(other, ack) if "A" in flags else 0,
                flags=flags,
                window=65_535,
                **options,
            )
            / Raw(text)
        )


def talk(conversation: Conversation) -> list[Packet]:
    """A question of 1280 octets in pieces, and its answer of 2100."""
    say = conversation.segment
    held = (conversation.number("server", 1461), conversation.number("server", 2101))
    offers = {"options": [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]}
    return [
        say("client", 0, 0, "S", **offers),
        say("server", 0, 1, "SA", **offers),
        say("client", 1, 1, "A"),
        say("client", 1, 1, "A", QUESTION[:400]),
        say("client", 801, 1, "A", QUESTION[800:1200]),
        say("client", 1, 1, "A", QUESTION[:400]),
        say("client", 301, 1, "A", QUESTION[300:900]),
        say("client", 1201, 1, "PA", QUESTION[1200:]),
        say("server", 1, 1281, "A"),
        say("server", 1461, 1281, "PA", ANSWER[1460:]),
        say("client", 1281, 1, "A", options=[("SAck", held)]),
        say("server", 1, 1281, "A", ANSWER[:1460]),
        say("client", 1281, 2101, "FA"),
        say("server", 2101, 1282, "FA"),
        say("client", 1282, 2102, "A"),
    ]


def cooked() -> list[Packet]:
    """Linux cooked v2, IPv4: a TCP connection, a datagram in fragments, an echo."""
    network = IP(src="10.0.0.1", dst="10.96.0.1")
    back = IP(src="10.96.0.1", dst="10.0.0.1")
    link = CookedLinuxV2(proto=0x0800)
    large = network / UDP(sport=5000, dport=53) / Raw(QUESTION)
    packets = talk(Conversation(network, back, 2**32 - 500, 7000))
    packets += fragment(large, fragsize=600)
    packets.append(back / UDP(sport=53, dport=5000) / Raw(b"small"))
    packets.append(network / ICMP(type=8, id=7, seq=1) / Raw(b"ping"))
    packets.append(back / ICMP(type=0, id=7, seq=1) / Raw(b"ping"))
    return [link / packet for packet in packets]


def tagged() -> list[Packet]:
    """Ethernet behind two VLAN tags, IPv6: a TCP connection, and ARP beside it."""
    network = IPv6(src="fd00::1", dst="fd96::1")
    back = IPv6(src="fd96::1", dst="fd00::1")
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    packets = [link / ARP(hwsrc="02:00:00:00:00:01", psrc="10.0.0.1", pdst="10.0.0.2")]
    tags = link / Dot1AD(vlan=3) / Dot1Q(vlan=4)
    conversation = Conversation(network, back, 5000, 2**32 - 900)
    return [*packets, *(tags / packet for packet in talk(conversation))]


def main() -> None:
    """Write them."""
    HERE.mkdir(exist_ok=True)
    for name, writer, packets in (
        ("cooked.pcapng", PcapNgWriter, cooked()),
        ("tagged.pcap", PcapWriter, tagged()),
    ):
        with writer(str(HERE / name)) as out:
            for number, packet in enumerate(packets):
                packet.time = 1_700_000_000 + number / 100
                out.write(packet)


if __name__ == "__main__":
    main()
