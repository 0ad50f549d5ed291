"""Whatever the network does to segments, the octets arrive as they were sent."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.host import ACK, PSH, Host
from tunstack.stack.events import What
from tunstack.stack.receive import OutOfOrder
from tunstack.stack.send import SendQueue


@given(
    seed=st.integers(0, 1 << 30),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    iss=st.sampled_from([1000, 0xFFFFF000]),
)
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=40, deadline=None)
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
