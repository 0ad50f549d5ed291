"""Whatever the network does to segments, the octets arrive as they were sent."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import stack as script
from tests.support.exchange import Exchange, Luck, Plan
from tests.support.host import ACK, FIN, MTU, PSH, RST, SYN, Host
from tests.support.peer import Offer
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.receive import OutOfOrder
from tunstack.stack.send import SendQueue
from tunstack.wire import tcp

FEW = settings(max_examples=settings.default.max_examples * 2 // 5)
"""For examples that take some milliseconds; relative, so that ``make fuzz`` has more."""


@st.composite
def plans(draw, **fixed):
    """Conversations of all kinds; short where every octet takes a round trip."""
    scale = draw(st.sampled_from([None, 0, 7, 14]))
    buffer = draw(st.sampled_from([1, 500, 4000, 65_535, 200_000]))
    sizes = st.sampled_from([0, 1, 5000, 30_000])
    values = {
        "up": draw(sizes),
        "down": min(draw(sizes), 60 * buffer),
        "buffer": buffer if scale else min(buffer, 65_535),
        "credit": draw(st.sampled_from([100, 4000, 65_535, 200_000])),
        "lazy": draw(st.sampled_from([0.0, 0.5, 0.9])),
        "closing": draw(
            st.sampled_from(["host", "cluster", "together", "host only", "cluster only"])
        ),
        "family": draw(st.sampled_from([4, 6])),
        "vnet": draw(st.sampled_from([0, 10])),
        "iss": draw(st.sampled_from([1000, 0xFFFFFF00])),
        "offer": Offer(
            mss=draw(st.sampled_from([88, 536, 1460])),
            scale=scale,
            sack=draw(st.booleans()),
            timestamps=draw(st.booleans()),
        ),
        "luck": Luck(
            loss=draw(st.sampled_from([0.0, 0.1, 0.3])),
            duplicate=draw(st.sampled_from([0.0, 0.2])),
            jitter=draw(st.sampled_from([0.0, 0.005, 0.1])),
        ),
    }
    return Plan(**values | {name: draw(each) for name, each in fixed.items()})


@given(plan=plans(), seed=st.integers(0, 1 << 30))
@settings(FEW, deadline=None)
def test_both_ways_at_once_everything_arrives_and_what_is_closed_is_gone(plan, seed):
    exchange = Exchange(plan, seed)
    exchange.run()
    exchange.assert_intact()


@given(plan=plans(abort=st.sampled_from(["host", "cluster"])), seed=st.integers(0, 1 << 30))
@settings(FEW, deadline=None)
def test_what_arrives_before_a_reset_is_what_was_sent(plan, seed):
    exchange = Exchange(plan, seed)
    exchange.run()
    exchange.assert_prefix()


@given(st.binary(max_size=2000))
@settings(deadline=None)
def test_whatever_is_sent_and_said_in_any_order_the_stack_stays_sound(octets):
    script.check(octets)


@given(
    seed=st.integers(0, 1 << 30),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    iss=st.sampled_from([1000, 0xFFFFF000]),
)
@settings(FEW, deadline=None)
def test_an_upload_survives_loss_reordering_and_repetition(seed, loss, iss):
    chance = random.Random(seed)
    text = chance.randbytes(30_000)
    host = Host(iss=iss)
    host.open(credit=12_000)
    acked, arrived = 0, b""
    for _ in range(2000):
        window = host.connection.credit
        segments = []
        at = acked
        while at < min(len(text), acked + window):
            size = min(chance.randint(1, 1460), acked + window - at, len(text) - at)
            segments.append(host.make(1 + at, 1, ACK | PSH, text[at : at + size]))
            at += size
        chance.shuffle(segments)
        segments = [s for s in segments for _ in range(chance.choice([1, 1, 2]))]
        segments = [s for s in segments if chance.random() >= loss]
        if segments:
            host.feed(segments)
        got = host.received()
        arrived += got
        host.stack.grant(host.connection, len(got))
        for segment in host.segments():
            if chance.random() >= loss:
                acked = max(acked, segment.ack - 1)
        host.now += 0.2
        if acked == len(text):
            break
    assert arrived == text
    assert acked == len(text)


@given(seed=st.integers(0, 1 << 30), loss=st.sampled_from([0.0, 0.1, 0.3]))
@settings(FEW, deadline=None)
def test_a_download_survives_loss_reordering_and_repetition(seed, loss):
    chance = random.Random(seed)
    text = chance.randbytes(60_000)
    host = Host()
    host.open()
    at = 0
    while at < len(text):
        size = chance.randint(1, 5000)
        host.write(text[at : at + size])
        at += size
    host.stack.finish(host.connection)
    arrived: dict[int, bytes] = {}
    have, finished = 0, False
    for _ in range(3000):
        segments = [s for s in host.segments() if chance.random() >= loss]
        chance.shuffle(segments)
        answers = 0
        for segment in segments:
            arrived[segment.seq - 1] = max(
                arrived.get(segment.seq - 1, b""), segment.text, key=len
            )
            answers += 1
            finished |= bool(segment.flags & 1) and segment.seq - 1 <= len(text)
        while True:
            for start, piece in arrived.items():
                if start <= have < start + len(piece):
                    have = start + len(piece)
                    break
            else:
                break
        for _ in range(answers):
            if chance.random() >= loss:
                host.send(1, 1 + have + (finished and have == len(text)), ACK)
        if finished and have == len(text) and host.key not in host.stack.connections:
            break
        if host.connection.state.name == "FIN_WAIT_2":
            break
        host.wait(0.3)
    joined = bytearray(len(text))
    for start, piece in sorted(arrived.items()):
        joined[start : start + len(piece)] = piece
    assert bytes(joined) == text
    acked = sum(event[2] for event in host.events if event[0] is What.ACKED)
    assert acked == len(text)


@given(
    pieces=st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=40
    )
)
def test_pieces_out_of_order_are_kept_once_each(pieces):
    nxt = 0xFFFFFFF0
    text = bytes(index & 0xFF for index in range(300))
    queue = OutOfOrder()
    known = set()
    for start, size in pieces:
        queue.insert(
            nxt, (nxt + start) & 0xFFFFFFFF, memoryview(text)[start : start + size]
        )
        known |= set(range(start, start + size))
    blocks = queue.sack_blocks(1000)
    said = [
        octet
        for left, right in blocks
        for octet in range((left - nxt) & 0xFFFFFFFF, (right - nxt) & 0xFFFFFFFF)
    ]
    assert sorted(said) == sorted(known)
    latest = pieces[-1][0]
    assert (blocks[0][0] - nxt) & 0xFFFFFFFF <= latest < (blocks[0][1] - nxt) & 0xFFFFFFFF
    for left, right in blocks[:]:
        at, collected = left, b""
        while (piece := queue.pop(at)) is not None:
            collected += piece
            at = (at + len(piece)) & 0xFFFFFFFF
        if collected:
            start = (left - nxt) & 0xFFFFFFFF
            assert collected == text[start : start + len(collected)]
            assert (right - left) & 0xFFFFFFFF == len(collected)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=60),
    steps=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 200))),
)
def test_a_send_queue_gives_every_octet_in_order(chunks, steps):
    whole = b"".join(chunks)
    queue = SendQueue()
    for chunk in chunks:
        queue.append(memoryview(chunk))
    una = nxt = 0
    for take, acknowledge in steps:
        views = queue.take(take)
        got = b"".join(views)
        assert got == whole[nxt : nxt + len(got)]
        nxt += len(got)
        assert len(got) == min(take, len(whole) - (nxt - len(got)))
        for offset in (0, (nxt - una) // 2):
            again = b"".join(queue.peek(offset, 30))
            assert again == whole[una + offset : min(una + offset + 30, nxt)]
        acknowledge = min(acknowledge, nxt - una)
        queue.acknowledge(acknowledge)
        una += acknowledge
        assert (queue.size, queue.sent) == (len(whole) - una, nxt - una)


# Found by the properties and by fuzzing


def test_a_stream_may_pass_its_initial_sequence_number_again():
    """After 4 GiB SND.UNA is ISS once more, and that is no SYN to be acknowledged."""
    host = Host()
    host.open()
    snd = host.connection.snd
    host.write(b"x" * 100)
    assert len(host.segments()) == 1
    host.send(1, 101, ACK)
    # As if 4 GiB less 101 octets had been sent in between.
    snd.una = snd.nxt = snd.wl2 = (snd.iss - 100) & 0xFFFFFFFF
    host.write(b"a" * 100 + b"b" * 100)
    sent = host.segments()
    assert b"".join(s.text for s in sent) == b"a" * 100 + b"b" * 100
    host.events.clear()
    host.send(1, 0, ACK)
    host.send(1, 100, ACK)
    assert [event[2] for event in host.events if event[0] is What.ACKED] == [100, 100]
    assert host.connection.queue is None


def test_a_segment_with_sack_blocks_fits_the_mtu():
    host = Host()
    host.open()
    for hole in range(1, 5):
        host.send(1 + 10 * hole, 1, ACK, b"x")
    host.packets()
    host.write(bytes(4000))
    packets = host.packets()
    assert len(packets) > 2
    assert max(map(len, packets)) == MTU


def test_a_window_that_opens_does_not_keep_time_wait_from_ending():
    host = Host()
    host.open()
    host.stack.finish(host.connection)
    host.segments()
    host.send(1, 2, FIN | ACK, window=0)
    host.segments()
    host.send(2, 2, ACK, window=500)
    host.segments()
    host.wait(60)
    assert host.packets() == []
    assert host.key not in host.stack.connections


def test_a_syn_ack_that_is_sent_again_takes_no_window_back():
    host = Host()
    host.send(0, 0, SYN, options=tcp.syn_options(1460, 7, True))
    host.stack.opened(host.connection, 1 << 20)
    host.accept_syn_ack()
    host.send(200_000, 1, ACK)  # beyond the window: the answer says it, scaled
    (answer,) = host.segments()
    said = answer.window << host.connection.rcv.shift
    assert said > 65_535
    host.wait(1.5)
    host.accept_syn_ack()
    host.send(1, 1, ACK)
    host.send(1 + 65_535 + 1000, 1, ACK, b"x")  # inside of what was said
    assert host.segments()[-1].options.sack


def test_syns_that_are_taken_back_leave_room_for_others():
    host = Host(config=TcpConfig(max_pending=3))
    for _ in range(5):
        host.send(0, 0, SYN)
        host.send(1, 0, RST)
        host.packets()
    assert host.kinds() == [What.OPEN, What.RESET] * 5
