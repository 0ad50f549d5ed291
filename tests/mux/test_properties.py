"""Whatever arrives, a mux gives values or a violation; and no octet is lost or doubled."""

import struct
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import mux as script
from tunstack.mux.replay import Replay
from tunstack.mux.session import Mux
from tunstack.wire.frame import MAX_PAYLOAD, Kind

TARGET = bytes(10) + b"\xff\xff" + bytes([10, 96, 0, 1])

FEW = settings(max_examples=settings.default.max_examples * 2 // 5)

numbers = st.one_of(st.integers(0, 9), st.integers(0, 0xFFFFFFFF))
payloads = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([bytes(4), bytes(8), b"\xff" * 4, b"\xff" * 8, bytes(MAX_PAYLOAD + 1)]),
    st.integers(0, 2000).map(bytes),
    st.builds(
        struct.Struct("!BBHI16s").pack,
        st.sampled_from([6, 17, 1, 58, 0, 255]),
        st.just(0),
        st.integers(0, 65_535),
        st.integers(0, 3000),
        st.just(TARGET),
    ),
)


def frame(kind: int, number: int, payload: bytes) -> bytes:
    return struct.pack("!II", kind << 24 | len(payload), number) + payload


frames = st.builds(frame, st.integers(0, 13), numbers, payloads)
messages = st.lists(frames, max_size=8).map(b"".join)


@given(st.lists(st.one_of(st.binary(max_size=60), messages), max_size=8), st.booleans())
@settings(FEW)
def test_any_message_is_values_or_a_violation(heard, client):
    mux = Mux(client=client)
    flows = [mux.open(protocol, TARGET, 80, 1000) for protocol in (6, 17)]
    mux.next_frames()
    owed = dict.fromkeys(flows, 1000)
    for message in heard:
        was_violated = mux.violation is not None
        events = mux.receive(message)
        assert not (was_violated and events)
        for kind, flow, value in events:
            assert isinstance(value, script.VALUES[kind])
            if kind is Kind.DATA:
                owed[flow] -= len(value)
                assert owed[flow] >= 0
            elif kind is Kind.OPEN:
                owed[flow] = 0
        assert all(flow.send_credit <= 0xFFFFFFFF for flow in mux.flows.values())


@given(
    credit=st.integers(0, 3000),
    sizes=st.lists(st.integers(0, 1200), min_size=1, max_size=6),
    over=st.integers(-1, 1),
)
def test_credit_is_counted_to_the_octet(credit, sizes, over):
    mux = Mux(client=True)
    flow = mux.open(6, TARGET, 80, credit)
    mux.next_frames()
    mux.receive(frame(Kind.OPENED, flow.id, bytes(4)))
    sizes.append(max(0, credit + over - sum(sizes)))
    left = credit
    for size in sizes:
        events = mux.receive(frame(Kind.DATA, flow.id, bytes(size)))
        assert bool(events) == (size <= left)
        assert (mux.violation is None) == (size <= left)
        if size > left:
            break
        left -= size


@given(st.binary(max_size=1500))
def test_whatever_is_heard_and_said_in_any_order_credit_is_kept(octets):
    script.check(octets)


class Ends:
    """Two ends, and streams between them that break with messages on the way."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.muxes = Mux(client=True), Mux(client=False)
        self.way: tuple[list, list] = ([], [])
        """Messages on their way to the client, and to the manager."""
        self.arrived: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self.sent: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self.finished = [False, False]
        flow = self.muxes[0].open(6, TARGET, 80, 5000)
        self.flows = [flow, None]

    def speak(self, end: int) -> None:
        """Send some octets, as many as there is credit for."""
        flow = self.flows[end]
        if flow is None or not flow.open or flow.finished:
            return
        size = min(self.chance.randint(0, 3000), flow.send_credit)
        text = self.chance.randbytes(size)
        self.sent[end].extend(text)
        self.muxes[end].send(text, [Kind.DATA, flow.id, 0, size])

    def write(self, end: int) -> None:
        """Give a message to the stream."""
        message = self.muxes[end].next_frames()
        if message is not None:
            self.way[1 - end].append(bytes(message))

    def read(self, end: int) -> None:
        """Take a message from the stream."""
        if not self.way[end]:
            return
        mux = self.muxes[end]
        for kind, flow, value in mux.receive(self.way[end].pop(0)):
            if kind is Kind.OPEN:
                self.flows[end] = flow
                mux.opened(flow, 4000)
            elif kind is Kind.DATA:
                assert not self.finished[end]
                self.arrived[end].extend(value)
                mux.consumed(flow, len(value))
            elif kind is Kind.FIN:
                assert not self.finished[end]
                self.finished[end] = True
        assert mux.violation is None

    def cut(self) -> None:
        """The stream breaks; what was on the way is lost; a new one goes on."""
        counts = [mux.received for mux in self.muxes]
        for end, mux in enumerate(self.muxes):
            self.way[end].clear()
            assert mux.resume(counts[1 - end])

    def settle(self) -> None:
        """Let everything arrive."""
        while any(mux.pending for mux in self.muxes) or any(self.way):
            for end in (0, 1):
                self.write(end)
                self.read(end)


@given(steps=st.lists(st.integers(0, 12), max_size=150), seed=st.integers(0, 1 << 30))
def test_streams_may_break_anywhere_and_no_octet_is_lost_or_doubled(steps, seed):
    ends = Ends(Random(seed))
    doings = [
        *(lambda end=end, do=do: do(ends, end) for end in (0, 1)
          for do in (Ends.speak, Ends.write, Ends.read) for _ in (0, 1)),
        ends.cut,
    ]  # fmt: skip
    for step in steps:
        doings[step]()
    ends.settle()
    for end, mux in enumerate(ends.muxes):
        assert ends.arrived[1 - end] == ends.sent[end]
        mux.finish(ends.flows[end])
    ends.settle()
    assert ends.finished == [True, True]
    assert not any(mux.flows for mux in ends.muxes)


@given(
    steps=st.lists(
        st.one_of(
            st.just("send"), st.just("arrive"), st.just("ack"), st.just("cut"),
            st.integers(0, 1 << 64 - 1),
        ),
        max_size=80,
    )
)  # fmt: skip
@settings(FEW)
def test_a_replay_keeps_exactly_what_the_other_end_lacks(steps):
    replay = Replay(limit=1 << 20)
    sent: list[bytes] = []
    arrived = 0
    for step in steps:
        if step == "send":
            sent.append(b"%d" % len(sent))
            replay.sent(sent[-1])
        elif step == "arrive":
            arrived = min(arrived + 1, len(sent))
        elif step == "ack":
            assert replay.acknowledge(arrived)
        elif step == "cut":
            assert replay.resume(arrived)
            again = []
            while (message := replay.next_again()) is not None:
                again.append(message)
            assert again == sent[arrived:]
        elif step > len(sent):
            assert not replay.acknowledge(step)
            assert not replay.resume(step)


def test_an_answer_to_an_open_that_is_not_sent_yet_is_a_violation():
    """Found by the fuzzer: the flow was forgotten, and later begun again all the same."""
    for kind in (Kind.REFUSED, Kind.RESET, Kind.OPENED):
        mux = Mux(client=True)
        flow = mux.open(6, TARGET, 80, 1000)
        payload = bytes(4 if kind is Kind.OPENED else 1)
        mux.receive(frame(kind, flow.id, payload))
        assert mux.violation
        assert mux.take_unsent() == [flow]
