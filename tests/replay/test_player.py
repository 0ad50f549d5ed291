"""Conversations made by hand, played to the stack."""

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tests.replay.make_captures import ANSWER, QUESTION, Conversation, talk
from tunstack.capture.reader import Frame
from tunstack.capture.replay import Player
from tunstack.capture.report import Report
from tunstack.capture.stream import Digest

RAW = 101

HOST, TARGET = "10.0.0.1", "10.96.0.1"
OUT, BACK = IP(src=HOST, dst=TARGET), IP(src=TARGET, dst=HOST)


def digest(octets: bytes) -> dict:
    made = Digest()
    made.add(octets)
    return made.document()


def play(packets, *, times=None, ignore_checksums=False) -> dict:
    """Give the report on packets, which are a hundredth of a second apart."""
    player = Player(Report(Path("made")), ignore_checksums=ignore_checksums)
    for number, packet in enumerate(packets):
        time = number / 100 if times is None else times[number]
        player.play(Frame(time, RAW, bytes(packet)))
    return player.report.document()


def play_stream(packets, **options) -> dict:
    (stream,) = play(packets, **options)["streams"]
    return stream


@pytest.fixture
def conversation():
    return Conversation(OUT, BACK, 1000, 2**32 - 3)


WHOLE = {
    "end": "finished",
    "complete": True,
    "to_cluster": digest(QUESTION),
    "to_host": digest(ANSWER),
}


def test_text_out_of_order_twice_and_overlapping_arrives_once(conversation):
    stream = play_stream(talk(conversation))
    assert stream["client"] == f"{HOST}:40000"
    assert stream["server"] == f"{TARGET}:80"
    assert stream["retransmissions"] == 2
    assert stream.items() >= WHOLE.items()


def test_a_stream_that_lacks_a_segment_is_not_complete(conversation):
    packets = talk(conversation)
    del packets[4]  # 800 to 1200; another has 300 to 900
    stream = play_stream(packets)
    assert not stream["complete"]
    assert stream["to_cluster"] == digest(QUESTION[:900])


def test_a_gap_in_the_answer_stops_the_answer_and_nothing_else(conversation):
    packets = talk(conversation)
    del packets[11]  # the first part of the answer
    stream = play_stream(packets)
    assert stream["to_host"] == digest(b"")
    assert (stream["complete"], stream["to_cluster"]) == (True, digest(QUESTION))


def test_a_syn_may_be_captured_after_its_answer(conversation):
    packets = talk(conversation)
    packets[:2] = packets[1::-1]
    assert play_stream(packets).items() >= WHOLE.items()


@pytest.mark.parametrize(("source", "target"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_a_capture_of_the_loopback_device_can_be_played(source, target):
    network = IPv6 if ":" in source else IP
    back = network(src=target, dst=source)
    packets = talk(Conversation(network(src=source, dst=target), back, 1, 2))
    report = play(packets)
    assert report["verdicts"] == {"bad-address": len(packets)}
    (stream,) = report["streams"]
    assert source in stream["client"]
    assert target in stream["server"]
    assert stream.items() >= WHOLE.items()


def test_checksums_that_were_never_filled_in_stop_no_stream(conversation):
    packets = talk(conversation)
    for packet in packets:
        packet[TCP].chksum = packet[IP].chksum = 0xBAD
    report = play(packets)
    assert report["verdicts"] == {"bad-checksum": len(packets)}
    assert report["streams"][0].items() >= WHOLE.items()
    report = play(packets, ignore_checksums=True)
    assert report["verdicts"] == {"deliver": len(packets)}


def test_forged_time_stamps_stop_no_stream_and_cost_nothing(conversation):
    packets = talk(conversation)
    times = [number % 2 * 2.0**32 for number in range(len(packets))]
    assert play_stream(packets, times=times).items() >= WHOLE.items()


def test_the_text_of_a_syn_is_sent_again_as_the_double_did_not_take_it(conversation):
    say = conversation.segment
    stream = play_stream(
        [
            say("client", 0, 0, "S", b"early "),
            say("server", 0, 7, "SA", b""),
            say("client", 7, 1, "A", b"late"),
            say("client", 11, 1, "FA"),
        ]
    )
    assert stream["to_cluster"] == digest(b"early late")
    assert stream["complete"]


def test_a_refused_syn_is_refused(conversation):
    say = conversation.segment
    stream = play_stream([say("client", 0, 0, "S"), say("server", 0, 1, "RA")])
    assert (stream["end"], stream["complete"]) == ("refused", False)


@pytest.mark.parametrize(
    ("side", "seq", "end"),
    [
        ("client", 5, "reset by host"),
        ("server", 1, "reset by cluster"),
        ("client", 6, "open"),
        ("server", 9, "open"),
    ],
)
def test_a_reset_counts_if_it_is_exact(conversation, side, seq, end):
    say = conversation.segment
    stream = play_stream(
        [
            say("client", 0, 0, "S"),
            say("server", 0, 1, "SA"),
            say("client", 1, 1, "A", b"text"),
            say(side, seq, 1, "R"),
        ]
    )
    assert stream["end"] == end
    assert stream["complete"] == (end != "open")


def test_ports_used_again_are_another_stream(conversation):
    again = Conversation(OUT, BACK, 2_000_000, 77)
    packets = [*talk(conversation), *talk(again)]
    # Behind TIME-WAIT.
    times = [number / 100 + 10 * (number >= 15) for number in range(len(packets))]
    streams = play(packets, times=times)["streams"]
    assert len(streams) == 2
    for stream in streams:
        assert stream.items() >= WHOLE.items()


def test_segments_of_a_connection_that_had_begun_before_are_counted(conversation):
    report = play(talk(conversation)[2:])
    assert report["streams"] == []
    assert report["segments_outside_streams"] == 13


def test_datagrams_arrive_whole_and_are_answered():
    large = fragment(OUT / UDP(sport=5000, dport=53) / Raw(QUESTION), fragsize=600)
    report = play([large[2], *large[:2], BACK / UDP(sport=53, dport=5000) / Raw(b"yes")])
    assert report["verdicts"] == {"deliver": 1, "fragment": 3}
    assert report["datagrams"] == {"delivered": 1, "answered": 1, **digest(QUESTION)}


def test_fragments_of_an_answer_are_not_the_hosts():
    question = OUT / UDP(sport=5000, dport=53) / Raw(b"?")
    answer = fragment(BACK / UDP(sport=53, dport=5000) / Raw(ANSWER), fragsize=600)
    report = play([question, *answer])
    assert report["datagrams"] == {"delivered": 1, "answered": 0, **digest(b"?")}


def test_echo_requests_arrive_and_are_answered():
    asked = OUT / ICMP(type=8, id=7, seq=1) / Raw(b"ping")
    answered = BACK / ICMP(type=0, id=7, seq=1) / Raw(b"ping")
    other = BACK / ICMP(type=0, id=8, seq=1) / Raw(b"ping")
    report = play([asked, answered, other])
    assert report["echoes"] == {"delivered": 1, "answered": 1}
