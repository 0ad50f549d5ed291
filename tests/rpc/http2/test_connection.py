"""The machine: what RFC 9113 has it say and hear."""

import math
import struct

import pytest

from tests.support.http2 import (
    REQUEST,
    RESPONSE,
    SETTINGS,
    End,
    begun,
    client,
    data,
    frame,
    goaway,
    headers,
    message,
    server,
    split,
    talk,
    window_update,
)
from tunstack.rpc.http2 import grpc
from tunstack.rpc.http2.connection import What
from tunstack.rpc.http2.frame import PREFACE, Code, Flag, Type
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Outcome, Status

FIELDS = grpc.request("/test.Service/Method", "here", scheme="http", user_agent="test")


def queue(stream, *messages):
    """Give a stream messages to send."""
    waiting = list(messages)
    stream.pull = lambda: waiting.pop(0) if waiting else None
    return waiting


def pair(**settings):
    """Both ends of a stream that has begun."""
    near, far = End(client=True, **settings), End(**settings)
    talk(near, far)
    stream = near.machine.request(FIELDS)
    (event,) = (e for e in talk(near, far) if e[0] is What.REQUEST)
    far.machine.respond(event[1], grpc.response())
    talk(near, far)
    return near, stream, far, event[1]


# Beginning (section 3.4)


def test_a_client_begins_with_the_preface_and_its_settings():
    said = End(client=True).output()
    assert said.startswith(PREFACE)
    assert split(said.removeprefix(PREFACE))[0][0] == Type.SETTINGS


def test_settings_are_acknowledged_and_the_first_make_a_connection_ready():
    end = End(client=True)
    end.output()
    assert end.feed(SETTINGS) == [(What.READY, None, None)]
    assert end.frames() == [(Type.SETTINGS, Flag.ACK, 0, b"")]
    assert end.feed(SETTINGS) == []


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_connection_may_come_in_pieces(piece):
    end = End()
    whole = PREFACE + SETTINGS + headers(REQUEST) + data(message(b"x" * 500), end=True)
    what = [event[0] for event in end.feed(whole, piece)]
    assert what == [What.READY, What.REQUEST, What.MESSAGE, What.END]


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_a_client_that_speaks_something_else_is_told_so(octets):
    end = End()
    end.feed(octets)
    assert goaway(end) == (Code.PROTOCOL_ERROR, "not the preface of HTTP/2")


def test_a_server_that_speaks_something_else_is_told_so():
    end = End(client=True)
    end.feed(b"HTTP/1.1 400 Bad Request\r\n")
    assert goaway(end)[1] == "not HTTP/2: no SETTINGS first"


# Messages


def test_messages_of_all_sizes_arrive_both_ways():
    near, stream, far, other = pair()
    sizes = [0, 1, 100, 16_379, 16_380, 70_000, 600_000, 3_000_000]
    queue(stream, *(bytes([n]) * size for n, size in enumerate(sizes)))
    queue(other, *(bytes([n]) * size for n, size in enumerate(sizes)))
    for end, s in ((near, stream), (far, other)):
        end.machine.sender.wake(s)
    arrived = {}
    while True:
        octets = [near.output(), far.output()]
        if octets == [b"", b""]:
            break
        for end, said in ((far, octets[0]), (near, octets[1])):
            for what, s, value in end.feed(said):
                if what is What.MESSAGE:
                    arrived.setdefault(end, []).append(value)
                    end.machine.consumed(s, len(value), end.now)
    expected = [bytes([n]) * size for n, size in enumerate(sizes)]
    assert arrived == {near: expected, far: expected}


def test_a_message_in_a_frame_is_not_copied():
    end, _ = begun()
    octets = data(message(b"abc"))
    room = end.machine.room(-1)
    room[: len(octets)] = octets
    end.machine.receive(len(octets), 0.0)
    ((_, _, view),) = end.machine.take_events()
    room[len(octets) - 1] = ord("d")
    assert view == b"abd"


def test_messages_may_share_frames_and_lie_across_them():
    end, _ = begun()
    octets = b"".join(message(bytes([n]) * n) for n in range(50))
    events = end.feed(b"".join(data(octets[at : at + 33]) for at in range(0, 1475, 33)))
    assert [value for _, _, value in events] == [bytes([n]) * n for n in range(50)]


def test_padding_and_priority_are_tolerated():
    end = server()
    padded = headers(REQUEST)[9:]
    priority = struct.pack(">IB", 0, 15)
    octets = bytes([4]) + priority + padded + bytes(4)
    flags = Flag.END_HEADERS | Flag.PADDED | Flag.PRIORITY
    events = end.feed(
        frame(Type.HEADERS, flags, 1, octets)
        + frame(Type.PRIORITY, 0, 1, priority)
        + frame(Type.DATA, Flag.PADDED, 1, bytes([3]) + message(b"abc") + bytes(3))
    )
    assert [event[0] for event in events] == [What.REQUEST, What.MESSAGE]
    assert events[1][2] == b"abc"


def test_unknown_frames_settings_and_flags_are_ignored():
    end = server()
    unknown = frame(Type.SETTINGS, 0x80, 0, struct.pack(">HI", 0x4242, 7))
    events = end.feed(frame(0x42, 0xFF, 7, b"what?") + unknown + headers(REQUEST))
    assert [event[0] for event in events] == [What.REQUEST]
    assert (Type.SETTINGS, Flag.ACK, 0, b"") in end.frames()


def test_a_header_block_may_be_continued():
    end = server()
    block = headers(REQUEST)[9:]
    events = end.feed(
        frame(Type.HEADERS, Flag.END_STREAM, 1, block[:5])
        + frame(Type.CONTINUATION, 0, 1, block[5:20])
        + frame(Type.CONTINUATION, Flag.END_HEADERS, 1, block[20:])
    )
    assert [event[0] for event in events] == [What.REQUEST, What.END]


def test_a_long_list_of_fields_is_continued():
    near, far = End(client=True), End()
    talk(near, far)
    fields = [*FIELDS, *((b"x-%d" % n, b"a" * 200) for n in range(70))]
    near.machine.request(fields)
    block = near.frames()
    assert [kind for kind, *_ in block] == [Type.HEADERS]  # below 16 384 octets
    near.machine.request([*fields, *((b"y-%d" % n, b"a" * 200) for n in range(70))])
    kinds = [(kind, flags & Flag.END_HEADERS) for kind, flags, *_ in near.frames()]
    assert kinds == [(Type.HEADERS, 0), (Type.CONTINUATION, Flag.END_HEADERS)]


def test_informational_responses_are_passed_over():
    end = client()
    stream = end.machine.request(FIELDS)
    events = end.feed(headers([(":status", "103")]) + headers(RESPONSE))
    assert [(what, s) for what, s, _ in events] == [(What.RESPONSE, stream)]


# Ending


def test_a_call_ends_with_trailers_behind_its_messages():
    near, stream, far, other = pair()
    queue(other, b"last words")
    far.machine.finish(other, Outcome(Status.NOT_FOUND, "nö: 100 %"))
    near.machine.finish(stream)
    events = [e for e in talk(near, far) if e[1] is stream]
    assert [what for what, *_ in events] == [What.MESSAGE, What.END]
    outcome = grpc.outcome_of_trailers(events[1][2])
    assert outcome == Outcome(Status.NOT_FOUND, "nö: 100 %", [])
    assert not near.machine.streams
    assert not far.machine.streams


def test_a_response_without_messages_is_one_frame():
    end, stream = begun()
    end.machine.finish(stream, Outcome(Status.UNIMPLEMENTED, "no"))
    (kind, flags, number, payload), *more = end.frames()
    assert (kind, number, flags & Flag.END_STREAM) == (Type.HEADERS, 1, Flag.END_STREAM)
    assert (b":status", b"200") in end.fields(payload)
    assert [(f[0], f[3]) for f in more] == [(Type.RST_STREAM, bytes(4))]


def test_what_was_on_its_way_to_a_stream_that_we_reset_is_ignored():
    end, stream = begun()
    end.machine.reset(stream, Code.CANCEL)
    assert end.feed(data(message(b"late")) + data(b"", end=True)) == []
    assert end.machine.over is None


def test_data_behind_the_end_of_a_stream_is_a_violation():
    end, stream = begun()
    end.feed(data(b"", end=True))
    end.machine.finish(stream, Outcome(Status.OK))
    end.output()
    end.feed(data(message(b"more")))
    assert goaway(end)[0] is Code.STREAM_CLOSED


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.CANCEL, Status.CANCELLED),
        (Code.REFUSED_STREAM, Status.UNAVAILABLE),
        (Code.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED),
        (Code.INTERNAL_ERROR, Status.INTERNAL),
        (0xBEEF, Status.INTERNAL),
    ],
)
def test_a_reset_has_the_meaning_that_grpc_gives_it(code, status):
    end, stream = begun()
    events = end.feed(frame(Type.RST_STREAM, 0, 1, struct.pack(">I", code)))
    ((what, s, outcome),) = events
    assert (what, s, outcome.status) == (What.RESET, stream, status)


def test_a_message_that_is_cut_short_ends_its_call():
    end, _ = begun()
    events = end.feed(data(message(b"abc")[:-1], end=True))
    assert [(what, o.status) for what, _, o in events] == [(What.RESET, Status.INTERNAL)]
    ((_, _, _, payload),) = end.frames(Type.HEADERS)
    assert (b"grpc-status", b"13") in end.fields(payload)


def test_a_compressed_message_ends_its_call():
    end, _ = begun()
    events = end.feed(data(b"\1" + message(b"abc")[1:]))
    assert events[0][2].status is Status.INTERNAL
    assert "compress" in events[0][2].message


def test_a_message_that_is_too_long_is_refused_by_its_length():
    end, _ = begun(limits=Limits(message=1000))
    events = end.feed(data(struct.pack(">BI", 0, 1001)))
    assert events[0][2].status is Status.RESOURCE_EXHAUSTED


# Flow control (sections 5.2 and 6.9)


def test_a_sender_keeps_to_the_windows():
    end, stream = begun()
    waiting = queue(stream, *[bytes(10_000)] * 20)
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    sent = sum(len(f[3]) for f in end.frames(Type.DATA))
    assert sent == 65_535
    assert len(waiting) == 13  # the next one has begun, and no other was asked for
    end.feed(window_update(100, 1))
    assert end.frames(Type.DATA) == []
    end.feed(window_update(40))
    assert [len(f[3]) for f in end.frames(Type.DATA)] == [40]
    end.feed(window_update(1000))
    assert [len(f[3]) for f in end.frames(Type.DATA)] == [60]


def test_a_window_of_one_octet_is_enough_to_go_on():
    end, stream = begun()
    end.feed(frame(Type.SETTINGS, 0, 0, struct.pack(">HI", 4, 1)))
    queue(stream, b"abc")
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    sent = b""
    for _ in range(8):
        ((_, _, _, octet),) = end.frames(Type.DATA)
        sent += octet
        end.feed(window_update(1, 1))
    assert sent == message(b"abc")


@pytest.mark.parametrize("lead", [0, 1, 4, 40])
@pytest.mark.parametrize("window", [1, 2, 7, 49, 50, 100])
def test_a_message_in_two_pieces_goes_through_any_window(window, lead):
    near, stream, far, _ = pair(limits=Limits(window=window, window_most=window))
    whole = bytes(range(45))
    queue(stream, (whole[:lead], whole[lead:]))
    near.machine.sender.wake(stream)
    heard = [event[2] for event in talk(near, far) if event[0] is What.MESSAGE]
    assert heard == [whole]


def test_a_setting_may_make_a_window_negative():
    end, stream = begun()
    waiting = queue(stream, bytes(60_000))
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    end.output()
    waiting.append(b"more")
    end.feed(frame(Type.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    end.machine.sender.wake(stream)
    assert end.frames(Type.DATA) == []
    end.feed(window_update(60_005, 1))
    assert end.frames(Type.DATA) == []
    end.feed(window_update(9, 1))
    assert [f[3] for f in end.frames(Type.DATA)] == [message(b"more")]


def test_streams_take_turns():
    end = server()
    streams = []
    for number in (1, 3, 5):
        ((_, stream, _),) = end.feed(headers(REQUEST, number))
        queue(stream, *[bytes(1000)] * 3)
        end.machine.sender.wake(stream)
        streams.append(stream)
    order = [f[2] for f in end.frames(Type.DATA)]
    assert order == [1, 3, 5] * 3


def test_what_is_not_read_holds_one_window_and_no_more():
    limits = Limits(window=100_000, window_most=1_000_000)
    near, stream, far, other = pair(limits=limits)
    waiting = queue(stream, *[bytes(9995)] * 1000)
    near.machine.sender.wake(stream)
    events = talk(near, far)
    messages = [e for e in events if e[0] is What.MESSAGE]
    assert len(messages) == 10
    assert len(waiting) == 1000 - 11
    for _ in messages:  # reading lets as much come again
        far.machine.consumed(other, 9995, far.now)
    assert len([e for e in talk(near, far) if e[0] is What.MESSAGE]) == 10


def test_who_does_not_read_one_stream_hears_the_others():
    limits = Limits(window=100_000)
    near, far = End(client=True, limits=limits), End(limits=limits)
    talk(near, far)
    for _ in range(2):
        stream = near.machine.request(FIELDS)
        queue(stream, *[bytes(9995)] * 50)
        near.machine.sender.wake(stream)
    arrived = {1: 0, 3: 0}
    while events := talk(near, far):
        for what, s, value in events:
            if what is What.MESSAGE:
                arrived[s.id] += 1
                if s.id == 3:
                    far.machine.consumed(s, len(value), far.now)
    assert arrived == {1: 10, 3: 50}


def test_a_message_larger_than_the_window_arrives():
    limits = Limits(window=65_536, window_most=65_536)
    near, stream, far, other = pair(limits=limits)
    queue(stream, bytes(1_000_000), b"next")
    near.machine.sender.wake(stream)
    events = talk(near, far)
    assert [len(v) for what, _, v in events if what is What.MESSAGE] == [1_000_000]
    far.machine.consumed(other, 1_000_000, far.now)
    assert [v for what, _, v in talk(near, far) if what is What.MESSAGE] == [b"next"]


def test_a_window_grows_when_it_is_what_limits():
    near, stream, far, other = pair()
    far.machine.be_eager(other, far.now)
    queue(stream, *[bytes(100_000)] * 600)
    near.machine.sender.wake(stream)
    before = other.window.size
    for _ in range(600):  # a link of 20 ms, and as much on it as the window lets
        octets = near.output()
        for end in (near, far):
            end.now += 0.01
        far.feed(octets)
        octets = far.output()
        for end in (near, far):
            end.now += 0.01
        near.feed(octets)
    assert far.machine.rtt == pytest.approx(0.02, abs=0.011)
    assert before < other.window.size <= Limits().window_most


def test_a_window_does_not_grow_when_there_is_time():
    near, stream, far, other = pair()
    far.machine.be_eager(other, far.now)
    waiting = queue(stream, *[bytes(100_000)] * 100)
    near.machine.sender.wake(stream)
    before = other.window.size
    while waiting:
        talk(near, far)
        far.now += 1
    assert other.window.size == before


def test_more_data_than_the_window_is_a_violation():
    end, _ = begun(limits=Limits(window=70_000))
    end.feed(data(message(bytes(65_000))))
    end.feed(data(message(bytes(5_000))))
    ((kind, _, number, payload),) = end.frames(Type.RST_STREAM)
    assert (kind, number) == (Type.RST_STREAM, 1)
    assert payload == struct.pack(">I", Code.FLOW_CONTROL_ERROR)
    assert end.machine.over is None


# Time


def test_silence_is_asked_about_and_then_given_up():
    end = client(keepalive=10.0)
    assert end.machine.deadline == 10.0
    assert end.expire(9.9) == []
    assert end.frames() == []
    end.expire(0.2)
    assert [kind for kind, *_ in end.frames()] == [Type.PING]
    assert end.expire(9.8) == []
    ((what, _, reason),) = end.expire(0.3)
    assert (what, reason) == (What.OVER, "no answer to a PING for 10 s")


def test_who_answers_is_not_given_up():
    end = client(keepalive=10.0)
    for _ in range(5):
        end.expire(10.0)
        (ping,) = end.frames(Type.PING)
        end.now += 1
        end.feed(frame(Type.PING, Flag.ACK, 0, ping[3]))
        assert end.machine.rtt == pytest.approx(1.0)
    assert end.machine.over is None


def test_without_keepalive_silence_is_trusted():
    end = client()
    assert end.expire(100_000) == []
    assert end.machine.deadline == math.inf


def test_pings_are_answered_with_what_they_bring():
    end = server()
    end.feed(frame(Type.PING, 0, 0, b"12345678"))
    assert end.frames() == [(Type.PING, Flag.ACK, 0, b"12345678")]


# Going away (section 6.8)


def test_a_server_that_shuts_down_lets_streams_end():
    near, stream, far, other = pair()
    far.machine.shutdown(far.now)
    events = talk(near, far)
    assert (What.GOAWAY, None, "NO_ERROR") in events
    assert far.machine.over is None
    queue(stream, b"still here")
    near.machine.sender.wake(stream)
    assert (What.MESSAGE, other, b"still here") in talk(near, far)
    near.machine.finish(stream)
    far.machine.finish(other, Outcome(Status.OK))
    events = talk(near, far)
    assert (What.OVER, None, "drained") in events + far.events()


def test_a_stream_that_a_server_did_not_take_is_refused():
    end = client()
    stream, second = end.machine.request(FIELDS), end.machine.request(FIELDS)
    text = struct.pack(">II", stream.id, Code.ENHANCE_YOUR_CALM) + b"too much"
    events = end.feed(frame(Type.GOAWAY, 0, 0, text))
    assert events[0] == (What.GOAWAY, None, "ENHANCE_YOUR_CALM: too much")
    assert [(what, s) for what, s, _ in events[1:]] == [(What.RESET, second)]
    assert events[1][2].status is Status.UNAVAILABLE


def test_a_connection_that_is_lost_ends_its_streams():
    near, stream, *_ = pair()
    near.machine.lost("the cable")
    assert near.events() == [
        (What.RESET, stream, Outcome(Status.UNAVAILABLE, "the cable")),
        (What.OVER, None, "the cable"),
    ]


# What is wrong, beside what h2spec asks (tests/interop)

FATAL = {
    "a frame that is too long": (frame(Type.DATA, 0, 1, bytes(600_000)), 6),
    "push": (frame(Type.PUSH_PROMISE, 4, 1, bytes(4)), 1),
    "a ping of 7 octets": (frame(Type.PING, 0, 0, bytes(7)), 6),
    "a ping on a stream": (frame(Type.PING, 0, 1, bytes(8)), 1),
    "settings on a stream": (frame(Type.SETTINGS, 0, 1), 1),
    "half a setting": (frame(Type.SETTINGS, 0, 0, bytes(5)), 6),
    "an answer with settings": (frame(Type.SETTINGS, Flag.ACK, 0, bytes(6)), 6),
    "data on an idle stream": (data(b"x", 5), 1),
    "data on stream 0": (data(b"x", 0), 1),
    "a reset of an idle stream": (frame(Type.RST_STREAM, 0, 5, bytes(4)), 1),
    "a window of an idle stream": (window_update(1, 5), 1),
    "a window widened by nothing": (window_update(0), 1),
    "a window beyond all": (window_update(2**31 - 1), 3),
    "an even stream": (headers(REQUEST, 2), 1),
    "a continuation of nothing": (frame(Type.CONTINUATION, 4, 1), 1),
    "half a goaway": (frame(Type.GOAWAY, 0, 0, bytes(7)), 6),
    "noise for headers": (frame(Type.HEADERS, 4, 1, b"\xff" * 20), 9),
    "more padding than data": (frame(Type.DATA, Flag.PADDED, 1, b"\5abc"), 1),
    "a frame within a header block": (
        headers(REQUEST, flags=0) + frame(Type.PING, 0, 0, bytes(8)), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FATAL)
def test_a_violation_ends_the_connection_with_a_reason(case):
    octets, code = FATAL[case]
    end = server()
    *_, (what, _, said) = end.feed(octets)
    assert what is What.OVER
    found, reason = goaway(end)
    assert found == code
    assert reason == said != ""
    assert end.feed(headers(REQUEST)) == []
    assert end.output() == b""


@pytest.mark.parametrize(
    "fields",
    [
        REQUEST[1:],
        [*REQUEST, (":path", "/again")],
        [("te", "trailers"), *REQUEST],
        [*REQUEST, ("Upper", "case")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("te", "gzip")],
        [*REQUEST, ("x", "a\nb")],
        [*REQUEST, ("x", " padded")],
        [*REQUEST, ("content-length", "1"), ("content-length", "2")],
        [*REQUEST, (":status", "200")],
    ],
)
def test_a_malformed_request_ends_its_stream_only(fields):
    end = server()
    assert end.feed(headers(fields)) == []
    ((_, _, number, payload),) = end.frames(Type.RST_STREAM)
    assert (number, payload) == (1, struct.pack(">I", Code.PROTOCOL_ERROR))
    assert end.feed(headers(REQUEST, 3))[0][0] is What.REQUEST


def test_the_connection_has_a_window_of_its_own():
    end, stream = begun()
    end.feed(window_update(1_000_000, 1))
    queue(stream, *[bytes(30_000)] * 3)
    end.machine.respond(stream, grpc.response())
    end.machine.sender.wake(stream)
    assert sum(len(f[3]) for f in end.frames(Type.DATA)) == 65_535
    end.feed(window_update(100_000))
    assert sum(len(f[3]) for f in end.frames(Type.DATA)) == 3 * 30_005 - 65_535


def test_what_came_before_somebody_read_eagerly_is_used_up_too():
    limits = Limits(window=65_536, window_most=65_536)
    near, stream, far, other = pair(limits=limits)
    queue(stream, b"early", bytes(1_000_000))
    near.machine.sender.wake(stream)
    far.feed(near.output(100))
    far.machine.be_eager(other, far.now)
    assert [len(v) for what, _, v in talk(near, far) if what is What.MESSAGE] == [1_000_000]


def test_what_a_stream_held_that_is_reset_is_free_again():
    end = server(limits=Limits(window=100_000, connection_window=200_000))
    for number in range(1, 41, 2):
        ((_, stream, _),) = end.feed(headers(REQUEST, number))
        assert len(end.feed(data(message(bytes(90_000)), number))) == 1
        end.machine.reset(stream, Code.CANCEL)
        end.output()
    assert end.machine.over is None
