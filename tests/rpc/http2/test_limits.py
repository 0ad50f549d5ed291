"""What a hostile peer meets: the connection ends with a reason, and memory is bounded.

The numbers are those of the classes of attacks that HTTP/2 servers have known.
"""

import itertools
import struct

import pytest
from hpack import Encoder

from tests.support.http2 import (
    REQUEST,
    SETTINGS,
    End,
    begun,
    data,
    frame,
    goaway,
    headers,
    message,
    server,
    window_update,
)
from tunstack.rpc.http2 import grpc
from tunstack.rpc.http2.connection import What
from tunstack.rpc.http2.frame import PREFACE, Code, Flag, Type
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Status

CALM = Code.ENHANCE_YOUR_CALM


def ended(end, octets, most=20_000):
    """Flood an end; gives how it ended the connection."""
    for _ in range(most):
        end.feed(octets)
        if end.machine.over is not None:
            return goaway(end)
        end.output()
    raise AssertionError(f"{most} times, and it is still there")


def test_cve_2019_9512_ping_flood():
    code, reason = ended(server(), frame(Type.PING, 0, 0, bytes(8)))
    assert (code, reason) == (CALM, "more PING and SETTINGS than anybody needs")


def test_cve_2019_9515_settings_flood():
    assert ended(server(), SETTINGS)[0] is CALM


def test_many_settings_in_one_frame():
    many = frame(Type.SETTINGS, 0, 0, struct.pack(">HI", 3, 7) * 1000)
    assert ended(server(), many)[0] is CALM


def test_cve_2019_9514_reset_flood_by_malformed_requests():
    end = server()
    for number in range(1, 2001, 2):
        end.feed(headers(REQUEST[1:], number))
        if end.machine.over is not None:
            break
    assert goaway(end) == (CALM, "too many streams end before their time")


def test_cve_2023_44487_rapid_reset():
    end = server()
    cancel = struct.pack(">I", Code.CANCEL)
    for number in range(1, 2001, 2):
        end.feed(headers(REQUEST, number) + frame(Type.RST_STREAM, 0, number, cancel))
        assert len(end.machine.streams) == 0
        if end.machine.over is not None:
            break
    assert number < 250
    assert goaway(end)[0] is CALM


def test_cve_2025_8671_resets_that_we_are_made_to_send():
    end = server()
    for number in range(1, 2001, 2):
        end.feed(headers(REQUEST, number) + window_update(0, number))
        if end.machine.over is not None:
            break
    assert goaway(end)[0] is CALM


def test_cancelling_now_and_then_is_no_attack():
    end = server()
    cancel = struct.pack(">I", Code.CANCEL)
    for number in range(1, 20_001, 2):
        end.feed(headers(REQUEST, number) + frame(Type.RST_STREAM, 0, number, cancel))
        end.output()
        end.now += 0.1
    assert end.machine.over is None


def test_streams_beyond_the_limit_are_refused():
    end = server(limits=Limits(streams=3))
    for number in (1, 3, 5, 7):
        end.feed(headers(REQUEST, number))
    ((_, _, number, payload),) = end.frames(Type.RST_STREAM)
    assert (number, payload) == (7, struct.pack(">I", Code.REFUSED_STREAM))
    assert set(end.machine.streams) == {1, 3, 5}


def test_cve_2024_27316_continuation_flood():
    end = server()
    end.feed(frame(Type.HEADERS, 0, 1, headers(REQUEST)[9:]))
    code, reason = ended(end, frame(Type.CONTINUATION, 0, 1, b""), 100)
    assert (code, reason) == (CALM, "more than 8 CONTINUATION in one block")


def test_a_header_block_that_is_too_long():
    end = server()
    end.feed(frame(Type.HEADERS, 0, 1, bytes(16_000)))
    assert end.machine.over is None
    end.feed(frame(Type.CONTINUATION, 0, 1, bytes(16_000)))
    assert goaway(end)[0] is CALM


def test_cve_2016_6581_hpack_bomb():
    """A long field in the table, named again and again, one octet each."""
    encoder = Encoder()
    block = encoder.encode([("x", "y" * 4000)])
    end = server()
    end.feed(frame(Type.HEADERS, Flag.END_HEADERS, 1, block + b"\xbe" * 1000))
    code, reason = goaway(end)
    assert (code, reason) == (CALM, "a header list of more than 16384 octets")


def test_too_many_fields():
    end = server()
    end.feed(headers([*REQUEST, *((f"x{n}", "") for n in range(100))]))
    assert goaway(end) == (CALM, "106 fields in one header list")


def test_a_table_larger_than_allowed():
    end = server()
    end.feed(frame(Type.HEADERS, Flag.END_HEADERS, 1, b"\x3f\xe1\xff\x03"))
    assert goaway(end)[0] is Code.COMPRESSION_ERROR


def test_cve_2019_9518_empty_data_flood():
    end, _ = begun()
    assert ended(end, data(b"")) == (CALM, "too many frames that move nothing")


def test_cve_2019_9513_priority_flood():
    end, _ = begun()
    assert ended(end, frame(Type.PRIORITY, 0, 1, bytes(5)))[0] is CALM


def test_a_flood_of_frames_that_nobody_knows():
    assert ended(server(), frame(0x42))[0] is CALM


def test_a_message_in_crumbs():
    end, _ = begun()
    end.feed(data(message(bytes(100_000))[:5]))
    for _ in range(200):
        events = end.feed(data(b"x"))
        if events:
            break
    ((what, _, outcome),) = events
    assert (what, outcome.status) == (What.RESET, Status.INTERNAL)
    assert "frames for" in outcome.message
    assert end.machine.over is None


def test_a_message_in_frames_of_a_proxy_is_none():
    end, stream = begun()
    end.machine.be_eager(stream, end.now)
    octets = message(bytes(3_000_000))
    pieces = [octets[at : at + 1400] for at in range(0, len(octets), 1400)]
    events = end.feed(b"".join(map(data, pieces)))
    assert [len(value) for _, _, value in events] == [3_000_000]


def test_cve_2019_9511_data_dribble():
    """A window that is opened octet by octet: each costs us a frame."""
    end, stream = begun()
    end.feed(frame(Type.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    stream.pull = lambda: bytes(1_000_000)
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    assert ended(end, window_update(1, 1), 30_000)[0] is CALM


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_honest_window_updates_in_any_number_are_no_attack(size):
    """grpcio widens both windows for each message, however short."""
    end, stream = begun()
    waiting = []
    stream.pull = lambda: waiting.pop() if waiting else None
    end.machine.respond(stream, grpc.response())
    for _ in range(30_000):
        waiting.append(bytes(size))
        end.machine.sender.wake(stream)
        assert end.output()
        end.feed(window_update(size + 5, 1) + window_update(size + 5))
    assert end.machine.over is None


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_ping_for_each_message_is_no_attack(size):
    """grpc-go measures the round trip while data comes."""
    end, stream = begun()
    end.machine.be_eager(stream, end.now)
    for _ in range(10_000):
        end.feed(data(message(bytes(size))) + frame(Type.PING, 0, 0, bytes(8)))
        end.output()
    assert end.machine.over is None


def test_cve_2019_9517_a_client_that_does_not_read():
    """Nothing more is asked of the stream, and the connection ends in time."""
    end, stream = begun()
    asked = []
    stream.pull = lambda: asked.append(1) or bytes(1_000_000)
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    end.output()
    assert len(asked) == 1
    assert end.expire(59.0) == []
    events = end.expire(2.0)
    assert [what for what, *_ in events] == [What.RESET, What.OVER]
    assert goaway(end) == (CALM, "a window was closed for 60 s")


def test_a_window_that_opens_in_time_is_waited_for():
    end, stream = begun()
    stream.pull = lambda: bytes(65_530)
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    for _ in range(10):
        end.output()
        end.expire(50.0)
        end.feed(window_update(65_535, 1) + window_update(65_535))
    assert end.machine.over is None


def test_answers_that_are_not_read_do_not_pile_up():
    end = server(limits=Limits(answers=1_000_000))
    ping = frame(Type.PING, 0, 0, bytes(8)) * 100
    for _ in range(10_000):
        end.feed(ping)
        assert len(end.machine.sender.control) < 300 * 1024
        if end.machine.over is not None:
            break
    assert goaway(end) == (CALM, "answers are asked for and not read")


@pytest.mark.parametrize("octets", [b"", PREFACE[:10], PREFACE, PREFACE + SETTINGS[:5]])
def test_a_slow_handshake_is_not_waited_for(octets):
    end = End()
    end.feed(octets)
    end.output()
    assert end.machine.deadline == 10.0
    ((what, _, reason),) = end.expire(10.0)
    assert (what, reason) == (What.OVER, "no HTTP/2 within 10 s")
    assert goaway(end)[0] is Code.SETTINGS_TIMEOUT


def test_half_a_frame_costs_no_more_than_the_frame():
    end, _ = begun()
    end.feed(struct.pack(">BHBBI", 7, 0xFFFF, 0, 0, 1))  # says 524 287 octets
    for _ in range(20):
        room = end.machine.room(-1)
        assert len(room) <= 2 * (512 * 1024 + 9)
        end.machine.receive(min(len(room), 20_000), 0.0)


def test_streams_that_are_not_read_hold_one_connection_window():
    limits = Limits(window=1_000_000, connection_window=2_000_000, streams=16)
    end = server(limits=limits)
    for number in range(1, 33, 2):
        end.feed(headers(REQUEST, number))
    fed = 0
    for number in itertools.cycle(range(1, 33, 2)):
        end.feed(data(message(bytes(49_995)), number))
        if end.machine.over is not None:
            break
        fed += 50_000
        end.output()
    assert fed == 2_000_000
    assert goaway(end)[0] is Code.FLOW_CONTROL_ERROR
