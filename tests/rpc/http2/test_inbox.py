"""Where octets arrive."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.http2 import data
from tunstack.rpc.http2.inbox import Inbox


def arrive(inbox, octets):
    """Let octets arrive, as many at a time as there is room for."""
    while octets:
        room = inbox.room()
        size = min(len(room), len(octets))
        room[:size] = octets[:size]
        inbox.end += size
        octets = octets[size:]
        yield


def test_reads_that_fill_it_make_it_grow_to_two_frames():
    inbox = Inbox(512 * 1024)
    sizes = []
    for _ in range(8):
        room = inbox.room()
        sizes.append(len(room))
        inbox.start = inbox.end = len(room)  # it was filled, and all of it was used
    assert sizes[:4] == [65_536, 131_072, 262_144, 524_288]
    assert sizes[-1] == 2 * (512 * 1024 + 9)


def test_reads_that_do_not_fill_it_leave_it_small():
    inbox = Inbox(512 * 1024)
    for _ in range(100):
        inbox.start = inbox.end = len(inbox.room()) - 1
    assert len(inbox.room()) == 65_536


@given(st.lists(st.integers(0, 300), max_size=50), st.integers(1, 40))
def test_frames_are_whole_where_they_lie(sizes, piece):
    inbox = Inbox(300)
    frames = [data(bytes([n % 256]) * size) for n, size in enumerate(sizes)]
    octets = b"".join(frames)
    for at in range(0, len(octets), piece):
        for _ in arrive(inbox, octets[at : at + piece]):
            while frames and inbox.end - inbox.start >= len(frames[0]):
                stop = inbox.start + len(frames[0])
                assert inbox.view[inbox.start : stop] == frames.pop(0)
                inbox.start = stop
    assert frames == []
    assert len(inbox.view) <= 2 * 309
