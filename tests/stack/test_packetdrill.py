"""The scripted peer itself: what a script says wrongly has to fail."""

import pytest

from tests.support.host import make_key
from tests.support.packetdrill import notation, virtual
from tests.support.packetdrill.notation import Icmp, ScriptError, Tcp, Udp
from tests.support.packetdrill.play import Mismatch
from tests.support.packetdrill.wire import Wire
from tunstack._fastpath import reference
from tunstack.wire import key as flow_key

OPENING = """
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1 <mss 1460>
+0 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
"""

ECHO = """
+0 < P. 1:11(10) ack 1 win 65535
+0 > . 1:1(0) ack 11
+0 read(4, ..., 10) = 10
+0 write(4, ..., 1000) = 1000
+0 > P. 1:1001(1000) ack 11
+0.2 > P. 1:1001(1000) ack 11
+0 < . 11:11(0) ack 1001 win 65535
"""


def play(text: str, version: int = 4) -> None:
    virtual.run(notation.parse(text, "script.pkt"), version)


@pytest.mark.parametrize("version", [4, 6])
def test_a_right_script_passes(version: int) -> None:
    play(OPENING + ECHO, version)


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ("> . 1:1(0) ack 11", "> . 1:1(0) ack 12", "its ack differs"),
        ("> . 1:1(0) ack 11", "> P. 1:1(0) ack 11", "its flags differs"),
        ("> . 1:1(0) ack 11", "> . 2:2(0) ack 11", "its seq differs"),
        ("> . 1:1(0) ack 11", "> . 1:1(0) ack 11 win 1", "its window differs"),
        ("> . 1:1(0) ack 11", "> . 1:1(0) ack 11 urg 1", "its urgent differs"),
        ("> . 1:1(0) ack 11", "> . 1:1(0) ack 11 <nop,nop>", "its options differs"),
        ("> . 1:1(0) ack 11", "> udp (0)", "it is of another protocol"),
        ("+0 > P. 1:1001(1000)", "+0 > P. 1:1000(999)", "its length differs"),
        ("ack 1 <mss 1460>\n+0 <", "ack 1 <mss 1461>\n+0 <", "its options differs"),
        ("ack 1 <mss 1460>\n+0 <", "ack 1\n+0 <", "its options differs"),
        ("+0.2 > P", "+0.3 > P", "0.100 s too early came"),
        ("+0.2 > P", "+0.1 > P", "nothing came"),
        ("+0.2 > P", "+0.05~+0.15 > P", "nothing came"),
        ("+0 > . 1:1(0) ack 11\n", "", "before this came"),
        ("+0.2 > P. 1:1001(1000) ack 11\n", "+0.3 `true`\n", "before this came"),
        ("10) = 10", "10) = 9", "the call gave 10"),
        ("10) = 10", "10) = -1 ECONNRESET (Connection reset by peer)", "the call gave 10"),
    ],
)
def test_a_wrong_expectation_fails(right: str, wrong: str, why: str) -> None:
    script = OPENING + ECHO
    assert script.count(right) == 1
    with pytest.raises(Mismatch, match=rf"script\.pkt:\d+: .*{why}"):
        play(script.replace(right, wrong))


def test_a_packet_that_does_not_come_fails() -> None:
    with pytest.raises(Mismatch, match="nothing came"):
        play(OPENING + "+0 > . 1:1(0) ack 1")


def test_a_packet_behind_the_last_event_fails() -> None:
    with pytest.raises(Mismatch, match="the script is over, and then came"):
        play(OPENING + "+0 write(4, ..., 1000) = 1000")


def test_a_failure_shows_line_and_packet_in_one_notation() -> None:
    listening = OPENING[: OPENING.index("+0 < S")]
    with pytest.raises(Mismatch) as caught:
        play(listening + "+0.5 < . 1:1(0) ack 700 win 9\n+0 > R 701:701(0)")
    assert str(caught.value).splitlines() == [
        "script.pkt:6: its seq differs",
        "  script: +0 > R 701:701(0)",
        "  packet: 0.500 > R 700:700(0) win 0",
    ]


KEY = make_key(6, "198.18.0.1", 40_000, "10.96.0.1", 80)
FROM_TARGET = Wire(flow_key.reverse(KEY))


@pytest.mark.parametrize(
    ("octet", "fault"),
    [
        (15, "its addresses are not those of the flow"),
        (19, "its addresses are not those of the flow"),
        (21, "its ports are not those of the flow"),
        (23, "its ports are not those of the flow"),
        (36, "its checksum is wrong"),
        (41, "its text is not that of the stream"),
    ],
)
def test_what_no_script_would_say_is_a_fault(octet: int, fault: str) -> None:
    packet = bytearray(FROM_TARGET.pack(notation.packet("P. 1:11(10) ack 1 win 9")))
    assert Wire(KEY).unpack(bytes(packet), None).faults == ()
    packet[octet] ^= 1
    packet[10:12] = bytes(2)
    packet[10:12] = (0xFFFF - reference.sum16(packet[:20], 0)).to_bytes(2, "big")
    assert fault in Wire(KEY).unpack(bytes(packet), None).faults


def test_a_tolerance_of_its_own_is_a_scripts_to_say() -> None:
    play("--tolerance_usecs=200000\n" + OPENING + ECHO.replace("+0.2 >", "+0.35 >"))


def test_options_may_be_left_open() -> None:
    play(OPENING.replace("ack 1 <mss 1460>\n+0 <", "ack 1 <...>\n+0 <"))


TIMESTAMPS = OPENING.replace("<mss 1460>", "<mss 1460,nop,nop,TS val 5 ecr 0>", 1).replace(
    "ack 1 <mss 1460>", "ack 1 <mss 1460,nop,nop,TS val 70 ecr 5>"
)


@pytest.mark.parametrize("value", [570, 69, 600])
def test_our_timestamps_count_from_the_first(value: int) -> None:
    script = (
        TIMESTAMPS
        + f"""
        +0.5 < P. 1:11(10) ack 1 win 65535 <nop,nop,TS val 505 ecr 70>
        +0 > . 1:1(0) ack 11 <nop,nop,TS val {value} ecr 505>
        """
    )
    if value == 570:
        play(script)
    else:
        with pytest.raises(Mismatch, match="its options differs"):
            play(script)


@pytest.mark.parametrize(
    "text",
    [
        "S 0:0(0) win 65535 <mss 1460,nop,nop,sackOK,nop,wscale 7>",
        "FP. 1:11(10) ack 1 win 0",
        "SEW 0:0(0) win 1 <TS val 1 ecr 2,eol,hex 1e03ff>",
        ".U 1:1(0) ack 1 win 1 urg 5",
        "- 4294967295:9(10)",
        ". 1:1(0) ack 1 <nop,nop,sack 1:2 3:4>",
        ". 1:1(0) ack 1 <...>",
        "udp (100)",
        "icmp unreachable port_unreachable [udp (3)]",
        "icmp packet_too_big mtu 1400 [1:1461(1460)]",
        "icmp unreachable frag_needed mtu 1400 [1:1461(1460)]",
    ],
)
def test_a_packet_is_written_as_it_is_read(text: str) -> None:
    assert str(notation.packet(text)) == text


def test_packets_are_read_by_their_parts() -> None:
    assert notation.packet("P. 1:11(10) ack 5 win 7 <sack 1:2>") == Tcp(
        flags="P.", seq=1, length=10, ack=5, window=7, options=(("sack", ((1, 2),)),)
    )
    assert notation.packet("udp (7)") == Udp(length=7)
    assert notation.packet("icmp unreachable frag_needed mtu 1400") == Icmp(
        type="unreachable", code="frag_needed", mtu=1400
    )


@pytest.mark.parametrize(
    "line",
    [
        "+0 < P. 1:11(11) ack 1 win 1",
        "+0 < P. 1:11(10) win 1",
        "+0 < P 1:11(10) ack 1 win 1",
        "+0 < X 1:1(0)",
        "+0 < . 1:1(0) ack 1 <mss>",
        "+0 connect",
        "soon < . 1:1(0) ack 1",
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(ScriptError, match=r"script\.pkt:2: "):
        notation.parse(f"// a head\n{line}", "script.pkt")
