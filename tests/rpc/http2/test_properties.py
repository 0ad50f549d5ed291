"""Whatever arrives: an event or a complaint, never an exception, never without bound."""

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http2 import (
    REQUEST,
    RESPONSE,
    SETTINGS,
    End,
    frame,
    headers,
    message,
    talk,
)
from tunstack.rpc.http2 import grpc
from tunstack.rpc.http2.connection import What
from tunstack.rpc.http2.frame import PREFACE
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Outcome, Status

FIELDS = grpc.request("/test.Service/Method", "here", scheme="http", user_agent="test")
LIMITS = Limits(frame=16_384, window=70_000, message=100_000, connection_window=200_000)

sizes = st.one_of(st.integers(0, 40), st.integers(0, 70_000))
messages = st.lists(sizes.map(lambda size: bytes([size % 251]) * size), max_size=8)
pieces = st.sampled_from([1 << 30, 1000, 100, 13])


def assert_sound(end):
    """What must be true of a machine at all times."""
    machine = end.machine
    held = [stream.window.held for stream in machine.streams.values()]
    assert all(0 <= octets <= 170_000 for octets in held)
    assert machine._window.held >= sum(held)
    assert len(machine._inbox.view) <= 2 * (LIMITS.frame + 9)
    assert len(machine.sender.control) <= LIMITS.unread + 20_000
    assert len(machine.streams) <= LIMITS.streams


@st.composite
def frames(draw):
    """Frames that look right, with any content."""
    kind = draw(st.integers(0, 10))
    payload = draw(
        st.one_of(
            st.binary(max_size=30),
            st.just(bytes(4)),
            st.just(bytes(8)),
            st.binary(max_size=40).map(message),
            st.just(headers(FIELDS)[9:]),
        )
    )
    flags = draw(st.sampled_from([0, 1, 4, 5, 8, 0x20, 0xFF]))
    return frame(kind, flags, draw(st.integers(0, 9)), payload)


@given(st.binary(max_size=500), st.booleans(), pieces)
def test_any_octets(octets, client, piece):
    end = End(client=client, limits=LIMITS)
    end.feed(octets if client else PREFACE + octets, piece)
    end.output()
    assert_sound(end)


@settings(max_examples=300, deadline=None)
@given(st.lists(frames(), max_size=40), st.booleans(), pieces)
def test_any_frames(sequence, client, piece):
    end = End(client=client, limits=LIMITS)
    end.feed(SETTINGS if client else PREFACE + SETTINGS)
    if client:
        for _ in range(3):
            end.machine.request(FIELDS)
    for octets in sequence:
        events = end.feed(octets, piece)
        for what, stream, value in events:
            if what is What.REQUEST:
                end.machine.respond(stream, grpc.response())
            elif what is What.MESSAGE and len(value) % 2:
                end.machine.consumed(stream, len(value), end.now)
            elif what is What.END and not client:
                end.machine.finish(stream, Outcome(Status.OK))
        assert_sound(end)
        end.output()
        end.expire(0.01)
    if end.machine.over is not None:
        assert end.feed(octets if sequence else b"") == []
        assert not end.machine.streams


@settings(max_examples=60, deadline=None)
@given(messages, messages, pieces, st.integers(1, 80_000))
def test_what_is_said_arrives_however_it_is_cut(there, back, piece, room):
    near, far = End(client=True, limits=LIMITS), End(limits=LIMITS)
    talk(near, far)
    stream = near.machine.request(FIELDS)
    ((_, other, _),) = (e for e in talk(near, far) if e[0] is What.REQUEST)
    far.machine.respond(other, grpc.response())
    sending = {near: list(there), far: list(back)}
    arrived = {near: [], far: []}
    for end, s in ((near, stream), (far, other)):
        s.pull = lambda queue=sending[end]: queue.pop(0) if queue else None
        end.machine.sender.wake(s)
    near.machine.finish(stream)
    ended = set()
    for _ in range(100_000):
        said = near.output(room), far.output(room)
        if said == (b"", b""):
            break
        for end, octets in ((far, said[0]), (near, said[1])):
            for what, s, value in end.feed(octets, piece):
                if what is What.MESSAGE:
                    arrived[end].append(value)
                    end.machine.consumed(s, len(value), end.now)
                elif what is What.END:
                    ended.add(end)
                    if end is far:
                        far.machine.finish(other, Outcome(Status.OK))
    assert arrived == {near: back, far: there}
    assert ended == {near, far}
    assert near.machine._window.held == far.machine._window.held == 0


# The same against the h2 library


def h2_end(client, window, size):
    end = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client))
    codes = h2.settings.SettingCodes
    values = {codes.INITIAL_WINDOW_SIZE: window, codes.MAX_FRAME_SIZE: size}
    end.local_settings = h2.settings.Settings(client=client, initial_values=values)
    end.max_inbound_frame_size = size
    end.initiate_connection()
    return end


def h2_send(end, number, waiting):
    """Have h2 send as much as it may of octets; gives the rest."""
    while waiting:
        room = min(end.local_flow_control_window(number), end.max_outbound_frame_size)
        if room == 0:
            break
        end.send_data(number, waiting[:room])
        waiting = waiting[room:]
    return waiting


def exchange(ours, theirs, number, waiting, piece):
    """Let both talk until neither has anything to say; gives what each has heard."""
    heard, octets, ended = [], b"", []
    for _ in range(10_000):
        waiting = h2_send(theirs, number, waiting)
        said, answer = ours.output(), theirs.data_to_send()
        if not said and not answer:
            return heard, octets, ended
        for what, stream, value in ours.feed(answer, piece):
            if what is What.MESSAGE:
                heard.append(value)
                ours.machine.consumed(stream, len(value), ours.now)
            elif what in (What.RESET, What.OVER):
                raise AssertionError(value)
        for event in theirs.receive_data(said) if said else ():
            if isinstance(event, h2.events.DataReceived):
                octets += event.data
                theirs.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif isinstance(event, h2.events.StreamEnded | h2.events.TrailersReceived):
                ended.append(event)
            assert not isinstance(
                event, h2.events.StreamReset | h2.events.ConnectionTerminated
            )
    raise AssertionError("no end")


windows = st.integers(1_000, 200_000)
frame_sizes = st.integers(16_384, 100_000)


@settings(max_examples=60, deadline=None)
@given(messages, messages, pieces, windows, frame_sizes)
def test_our_server_and_an_h2_client(there, back, piece, window, size):
    ours = End(limits=LIMITS)
    theirs = h2_end(True, window, size)
    theirs.send_headers(1, REQUEST)
    events = ours.feed(theirs.data_to_send(), piece)
    ((_, stream, _),) = (e for e in events if e[0] is What.REQUEST)
    queue = list(back)
    stream.pull = lambda: queue.pop(0) if queue else None
    ours.machine.respond(stream, grpc.response())
    ours.machine.sender.wake(stream)
    waiting = b"".join(map(message, there))
    heard, octets, _ = exchange(ours, theirs, 1, waiting, piece)
    assert heard == there
    assert octets == b"".join(map(message, back))


@settings(max_examples=60, deadline=None)
@given(messages, messages, pieces, windows, frame_sizes)
def test_our_client_and_an_h2_server(there, back, piece, window, size):
    ours = End(client=True, limits=LIMITS)
    theirs = h2_end(False, window, size)
    stream = ours.machine.request(FIELDS)
    queue = list(there)
    stream.pull = lambda: queue.pop(0) if queue else None
    theirs.receive_data(ours.output())
    ours.feed(theirs.data_to_send())
    theirs.send_headers(1, RESPONSE)
    ours.machine.sender.wake(stream)
    ours.machine.finish(stream)
    waiting = b"".join(map(message, back))
    heard, octets, ended = exchange(ours, theirs, 1, waiting, piece)
    assert heard == back
    assert octets == b"".join(map(message, there))
    assert len(ended) == 1
    theirs.send_headers(1, [("grpc-status", "0")], end_stream=True)
    assert [what for what, *_ in ours.feed(theirs.data_to_send())] == [What.END]
