"""Connections as the host sees them: RFC 9293 and its companions."""

import pytest

from tests.support.host import ACK, FIN, MTU, PSH, RST, SYN, Host
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.tcp import State
from tunstack.wire import tcp
from tunstack.wire.frame import Refusal


@pytest.fixture(params=[4, 6])
def host(request) -> Host:
    return Host(family=request.param)


@pytest.fixture
def connected(host) -> Host:
    host.open()
    return host


# Opening


def test_a_syn_is_not_answered_before_the_target_has_answered(host):
    host.send(0, 0, SYN)
    assert host.kinds() == [What.OPEN]
    assert host.packets() == []


def test_a_repeated_syn_opens_once(host):
    host.send(0, 0, SYN)
    host.send(0, 0, SYN)
    assert host.kinds() == [What.OPEN]


def test_the_syn_ack_acknowledges_the_syn_and_offers_what_was_offered(host):
    host.send(0, 0, SYN, options=tcp.syn_options(1400, 7, True))
    host.stack.opened(host.connection, 1 << 20)
    segment = host.segment()
    assert segment.flags == SYN | ACK
    assert segment.ack == 1
    assert segment.options.mss == MTU - (40 if host.key[1:11] == bytes(10) else 60)
    assert segment.options.window_scale is not None
    assert segment.options.sack_permitted
    assert segment.window == 65_535  # never scaled in a SYN


def test_nothing_is_offered_that_the_host_did_not_offer(host):
    host.send(0, 0, SYN, options=b"")
    host.stack.opened(host.connection, 1 << 20)
    options = host.segment().options
    assert options.window_scale is None
    assert not options.sack_permitted


def test_a_refused_target_is_a_reset_of_the_syn(host):
    host.send(0, 0, SYN)
    host.stack.refuse(host.connection, Refusal.REFUSED)
    segment = host.segment()
    assert (segment.flags, segment.ack, segment.window) == (RST | ACK, 1, 0)
    assert not host.stack.connections


def test_a_target_that_timed_out_is_silence(host):
    host.send(0, 0, SYN)
    host.stack.refuse(host.connection, Refusal.TIMED_OUT)
    assert host.packets() == []
    assert not host.stack.connections


@pytest.mark.parametrize(
    ("refusal", "four", "six"),
    [
        (Refusal.NETWORK_UNREACHABLE, (3, 0), (1, 0)),
        (Refusal.HOST_UNREACHABLE, (3, 1), (1, 3)),
        (Refusal.PROHIBITED, (3, 13), (1, 1)),
        (Refusal.LIMIT, (3, 13), (1, 1)),
    ],
)
def test_an_unreachable_target_is_icmp_about_the_syn(host, refusal, four, six):
    host.send(0, 0, SYN)
    host.stack.refuse(host.connection, refusal)
    (packet,) = host.packets()
    version = packet[0] >> 4
    at = 20 if version == 4 else 40
    assert tuple(packet[at : at + 2]) == (four if version == 4 else six)
    quoted = packet[at + 8 :]
    ports_at = 20 if version == 4 else 40
    assert quoted[ports_at : ports_at + 4] == host.key[33:37]
    host.parse(packet)


def test_a_syn_ack_that_was_lost_is_sent_again(host):
    host.send(0, 0, SYN)
    host.stack.opened(host.connection, 1 << 20)
    host.segment()
    host.send(0, 0, SYN)
    assert host.segment().flags == SYN | ACK
    host.wait(1.1)
    assert host.segment().flags == SYN | ACK


def test_an_unanswered_syn_ack_is_given_up(host):
    host.send(0, 0, SYN)
    host.stack.opened(host.connection, 1 << 20)
    host.kinds()
    sent = 0
    for _ in range(200):
        sent += len(host.packets())
        host.wait(1.0)
    host.packets()
    assert sent == 6  # as Linux: five retries
    assert host.kinds() == [What.RESET]
    assert not host.stack.connections


def test_a_wrong_ack_of_the_syn_ack_is_reset_and_changes_nothing(host):
    host.send(0, 0, SYN)
    host.stack.opened(host.connection, 1 << 20)
    host.accept_syn_ack()
    host.send(1, 77, ACK)
    segment = host.segment()
    assert (segment.flags, segment.seq) == (RST, 77)
    assert host.connection.state is State.SYN_RECEIVED
    host.send(1, 1, ACK)
    assert host.connection.state is State.ESTABLISHED


def test_text_on_the_third_segment_is_taken(host):
    host.send(0, 0, SYN)
    host.stack.opened(host.connection, 1 << 20)
    host.accept_syn_ack()
    host.send(1, 1, ACK | PSH, b"GET")
    assert host.received() == b"GET"
    assert host.segment().ack == 4


def test_a_host_that_gave_up_resets_the_dialled_connection(host):
    host.send(0, 0, SYN)
    host.stack.opened(host.connection, 1 << 20)
    host.packets()
    host.send(1, 0, RST)
    assert host.kinds() == [What.OPEN, What.RESET]
    assert not host.packets()
    assert not host.stack.connections


def test_a_new_syn_on_the_same_ports_while_dialling_begins_again(host):
    host.send(0, 0, SYN)
    host.send(5000, 0, SYN)
    assert host.kinds() == [What.OPEN, What.RESET, What.OPEN]


def test_initial_sequence_numbers_differ_by_flow_and_rise_with_time():
    numbers = []
    for now in (100.0, 100.5):
        for iss in (1, 2):
            host = Host(iss=iss)
            host.now = now
            if iss == 2:
                host.key = host.key[:-1] + b"\x51"
            host.open()
            numbers.append(host.irs)
    assert len(set(numbers)) == 4
    assert (numbers[2] - numbers[0]) & 0xFFFFFFFF == 125_000


def test_pending_connections_are_bounded():
    host = Host(config=TcpConfig(max_pending=3))
    for port in range(5):
        host.use_port(1000 + port)
        host.send(0, 0, SYN)
    assert host.kinds() == [What.OPEN] * 3
    assert host.stack.drops["too-many-pending"] == 2
    host.stack.refuse(next(iter(host.stack.connections.values())), Refusal.TIMED_OUT)
    host.send(0, 0, SYN)
    assert host.kinds() == [What.OPEN]


def test_half_open_connections_are_bounded_with_those_still_dialled():
    host = Host(config=TcpConfig(max_pending=3))
    for port in range(5):
        host.use_port(1000 + port)
        host.send(0, 0, SYN)
        if host.key in host.stack.connections:
            host.stack.opened(host.connection, 1 << 20)
            host.accept_syn_ack()
    assert host.stack.drops["too-many-pending"] == 2
    host.use_port(1002)
    host.send(1, 1, ACK)
    host.use_port(1004)
    host.send(0, 0, SYN)
    assert host.stack.drops["too-many-pending"] == 2


def test_time_wait_gives_way_to_new_connections():
    host = Host(config=TcpConfig(max_connections=1, time_wait=100))
    host.open()
    host.close_after_the_cluster()
    assert host.connection.state is State.TIME_WAIT
    host.use_port(1004)
    host.send(0, 0, SYN)
    assert host.connection.state is State.PENDING
    assert host.stack.drops["too-many-connections"] == 0


def test_time_waits_end_one_after_the_other_and_nothing_is_left_of_them():
    host = Host(config=TcpConfig(time_wait=10))
    began = host.now
    for port in range(1000, 1003):
        host.use_port(port)
        host.open()
        host.close_after_the_cluster()
        host.wait(1)
    host.use_port(1000)
    host.irs = host.connection.snd.iss
    host.send(1, 2, FIN | ACK)  # the last ACK was lost: this one begins again
    left = []
    while (at := host.stack.deadline()) is not None and host.stack.connections:
        host.now = at
        host.stack.expire(at)
        host.packets()
        left.append([int.from_bytes(key[35:], "big") for key in host.stack.connections])
    assert left[-3:] == [[1000, 1002], [1000], []]
    assert host.now == began + 13


def test_time_wait_is_bounded(monkeypatch):
    monkeypatch.setattr("tunstack.stack.stack.MAX_TIME_WAIT", 3)
    host = Host(config=TcpConfig(time_wait=100))
    for port in range(5):
        host.use_port(1000 + port)
        host.open()
        host.close_after_the_cluster()
    left = [int.from_bytes(key[35:], "big") for key in host.stack.connections]
    assert left == [1002, 1003, 1004]


def test_text_that_comes_too_early_is_bounded_over_all_connections(monkeypatch):
    monkeypatch.setattr("tunstack.stack.tcp.MAX_OUT_OF_ORDER", 1000)
    host = Host()
    first, second = host.key, host.key[:35] + (1000).to_bytes(2, "big")
    for host.key in (first, second):
        host.open()
        host.send(101, 1, ACK, b"x" * 600)
        host.packets()
    assert host.stack.drops["out-of-order-limit"] == 1
    host.key = first
    host.send(0, 1, RST | ACK)  # out of the window: nothing changes
    host.send(1, 1, RST | ACK)
    host.packets()
    host.key = second
    host.send(101, 1, ACK, b"x" * 600)
    assert host.stack.drops["out-of-order-limit"] == 1


def test_segments_of_single_octets_are_bounded_in_number(connected):
    for octet in range(300):
        connected.send(3 + 2 * octet, 1, ACK, b"x")
    assert connected.stack.drops["out-of-order-limit"] == 300 - 256
    connected.send(1, 1, ACK, b"x" * 600)
    assert connected.received() == b"x" * 600


def test_a_filled_hole_is_handed_on_in_pieces_that_a_frame_takes():
    host = Host(vnet=10, mtu=65_520)
    host.open(credit=1 << 20)
    host.packets()  # says a window that is scaled
    text = bytes(range(256)) * 700
    for at in range(1, len(text), 50_000):
        host.send(1 + at, 1, ACK, text[at : at + 50_000])
    host.send(1, 1, ACK, text[:1])
    sizes = [len(event[2]) for event in host.events]
    assert max(sizes) <= 65_535
    assert host.received() == text


def test_the_window_of_a_segment_that_fills_a_hole_counts(connected):
    connected.send(101, 1, ACK, b"x" * 100, window=500)
    connected.write(b"y" * 20_000)
    connected.packets()
    connected.send(1, 2001, ACK, b"x" * 100, window=10)
    room = connected.connection.snd
    assert room.wnd == 10 << room.shift


@pytest.mark.parametrize("far", [1 << 31, (1 << 31) - 1, (1 << 31) + 1, 1 << 30])
def test_an_ack_from_the_other_end_of_the_numbers_is_no_ack(connected, far):
    connected.send(1, 1 + far, ACK, b"text")
    assert connected.kinds() == []
    assert connected.segment().ack == 1


def test_a_window_that_had_closed_on_text_brings_it_again_when_it_opens(connected):
    connected.write(b"x" * 1000)
    connected.packets()
    connected.send(1, 1, ACK, window=0)
    assert connected.segments() == []
    connected.send(1, 1, ACK, window=500)
    assert [segment.text for segment in connected.segments()] == [b"x" * 1000]


def test_many_small_writes_are_forgotten_as_they_arrive(connected):
    for _ in range(200):
        connected.write(b"x" * 10)
    connected.packets()
    connected.send(1, 1501, ACK)
    connected.send(1, 1, ACK)
    connected.write(b"y" * 10)
    assert connected.segment().text == b"y" * 10
    connected.send(1, 2011, ACK)
    assert connected.connection.queue is None


def test_what_lies_beyond_a_window_that_shrank_waits_for_it(connected):
    for octet in b"abcdef":
        connected.write(bytes([octet]) * 1000)
        connected.packets()
    connected.send(1, 1, ACK, window=15)  # 1920 octets, scaled
    connected.wait(0.3)
    sent = [(segment.seq, len(segment.text)) for segment in connected.segments()]
    connected.wait(3)
    sent += [(segment.seq, len(segment.text)) for segment in connected.segments()]
    assert sent
    assert all(at + length <= 1921 for at, length in sent)
    connected.send(1, 1921, ACK)
    connected.wait(10)
    assert any(segment.seq == 1921 for segment in connected.segments())


def test_the_window_closes_on_a_second_hole_and_opens_again(connected):
    for octet in b"abcdef":
        connected.write(bytes([octet]) * 1000)
        connected.packets()
    sack = connected.sack
    connected.send(1, 1, ACK, options=sack((1001, 3001), (4001, 6001)), window=8)
    sent = [(segment.seq, len(segment.text)) for segment in connected.segments()]
    assert sent == [(1, 1000)]  # the hole at 3001 is beyond the edge at 1025
    connected.send(1, 3001, ACK, options=sack((4001, 6001)), window=800)
    sent = [(segment.seq, len(segment.text)) for segment in connected.segments()]
    assert sent == [(3001, 1000)]


def test_a_reset_of_what_only_waits_is_silent(connected):
    connected.close_after_the_cluster()
    assert connected.connection.state is State.TIME_WAIT
    connected.stack.reset(connected.connection, connected.now)
    assert connected.packets() == []
    assert not connected.stack.connections


def test_a_new_syn_with_the_same_timestamp_is_judged_by_its_number():
    host = Host(config=TcpConfig(time_wait=100))
    options = tcp.syn_options(1460, 7, True, (500, 0))
    host.open(options=options)
    host.close_after_the_cluster()
    host.kinds()
    host.send(1, 0, SYN, options=options)
    assert host.kinds() == []
    host.send(5000, 0, SYN, options=options)
    assert host.kinds() == [What.OPEN]


def test_connections_are_bounded():
    host = Host(config=TcpConfig(max_connections=2))
    for port in range(3):
        host.use_port(1000 + port)
        host.send(0, 0, SYN)
    assert host.kinds() == [What.OPEN] * 2
    assert host.stack.drops["too-many-connections"] == 1


def test_a_syn_ack_that_was_too_big_makes_later_segments_smaller():
    host = Host()
    host.send(0, 0, SYN, options=tcp.syn_options(1460, 7, True))
    host.stack.opened(host.connection, 1 << 20)
    host.accept_syn_ack()
    assert host.connection.shrink(1000, host.irs)
    host.send(1, 1, ACK)
    host.packets()
    host.write(bytes(1460))
    assert [len(segment.text) for segment in host.segments()] == [1000, 460]


def test_text_behind_a_fin_is_forgotten_with_it(connected):
    connected.send(101, 1, ACK, b"beyond the end")
    connected.send(1, 1, FIN | ACK, b"the end")
    assert connected.received() == b"the end"
    (acknowledged,) = {segment.ack for segment in connected.segments()}
    assert acknowledged == 9
    assert connected.stack._common.out_of_order == 0
    connected.write(b"more")
    assert connected.segment().options.sack == ()


def test_what_comes_behind_a_reset_in_one_turn_is_passed_over(connected):
    reset = connected.make(1, 1, RST | ACK)
    connected.feed([reset, reset, connected.make(1, 1, ACK, b"late")])
    assert connected.kinds() == [What.RESET]
    assert connected.packets() == []


def test_a_syn_behind_a_reset_in_one_turn_opens(connected):
    connected.feed([connected.make(1, 1, RST | ACK), connected.make(9, 0, SYN)])
    assert connected.kinds() == [What.RESET, What.OPEN]


def test_a_new_life_begins_beyond_the_numbers_of_the_old_one(connected):
    connected.send(1, 1, ACK, window=0xFFFF)
    for _ in range(40):
        connected.write(bytes(1_000_000))
        sent = sum(len(segment.text) for segment in connected.segments())
        una = connected.connection.snd.nxt - connected.irs & 0xFFFFFFFF
        assert sent
        connected.send(1, una, ACK)
    connected.stack.finish(connected.connection)
    connected.packets()
    last = connected.connection.snd.nxt
    connected.send(1, (last - connected.irs) & 0xFFFFFFFF, FIN | ACK)
    connected.packets()
    assert connected.connection.state is State.TIME_WAIT
    connected.send(1000, 0, SYN)
    connected.stack.opened(connected.connection, 1 << 20)
    connected.accept_syn_ack()
    assert 0 < (connected.irs - last) & 0xFFFFFFFF < 1 << 31


def test_what_the_cluster_says_of_a_connection_that_is_over_is_passed_over(connected):
    connection = connected.connection
    connected.send(1, 1, RST | ACK)
    connected.stack.send(connection, memoryview(b"late"))
    connected.stack.finish(connection)
    connected.stack.reset(connection, connected.now)
    connected.stack.refuse(connection, Refusal.REFUSED)
    assert connected.packets() == []
    assert not connected.stack.connections


# Segments of no connection


def test_a_segment_of_no_connection_is_reset(host):
    host.send(7, 9, ACK, b"x")
    segment = host.segment()
    assert (segment.flags, segment.seq) == (RST, 9)


def test_a_fin_of_no_connection_is_reset_by_its_end(host):
    host.send(7, 0, FIN, b"xyz")
    segment = host.segment()
    assert (segment.flags, segment.ack) == (RST | ACK, 7 + 3 + 1)


def test_a_reset_is_never_answered(host):
    host.send(7, 9, RST | ACK)
    assert host.packets() == []


# Text from the host


def test_text_in_order_is_handed_on_and_acknowledged_once_a_turn(connected):
    connected.packets()
    connected.feed([connected.make(1 + 3 * i, 1, ACK | PSH, b"abc") for i in range(10)])
    assert connected.received() == b"abc" * 10
    segment = connected.segment()
    assert (segment.flags, segment.ack) == (ACK, 31)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
def test_text_out_of_order_arrives_in_order(connected, order):
    pieces = [b"one-", b"two-", b"six!"]
    for index in order:
        connected.send(1 + 4 * index, 1, ACK, pieces[index])
    assert connected.received() == b"one-two-six!"
    assert connected.segments()[-1].ack == 13
    assert connected.connection.out_of_order is None


def test_overlapping_text_arrives_once(connected):
    connected.send(5, 1, ACK, b"EFGH")
    connected.send(3, 1, ACK, b"cdefgh")
    connected.send(1, 1, ACK, b"abcd")
    connected.send(7, 1, ACK, b"ghij")
    assert connected.received() == b"abcdEFGHij"


def test_missing_text_is_reported_by_sack(connected):
    connected.packets()
    connected.send(11, 1, ACK, b"0123456789")
    segment = connected.segment()
    assert segment.ack == 1
    left, right = segment.options.sack[0]
    assert (left - connected.iss, right - connected.iss) == (11, 21)
    connected.send(31, 1, ACK, b"0123456789")
    blocks = connected.segment().options.sack
    assert [left - connected.iss for left, _ in blocks] == [31, 11]


def test_old_text_is_acknowledged_again(connected):
    connected.send(1, 1, ACK, b"abc")
    connected.packets()
    connected.received()
    connected.send(1, 1, ACK, b"abc")
    assert connected.received() == b""
    assert connected.segment().ack == 4


def test_text_beyond_the_window_is_not_taken(host):
    host.open(credit=1000)
    host.packets()
    host.send(1, 1, ACK, bytes(1400))
    assert len(host.received()) <= 1000
    segment = host.segment()
    assert segment.ack <= 1001


def test_the_window_is_the_credit_and_its_edge_never_goes_back(host):
    credit = 300_000
    host.open(credit=credit)
    host.packets()
    shift = host.connection.rcv.shift
    at, edge = 1, 0
    for size in (1, 7, 1400, 3, 999, 1400, 1, 1, 31, 1400) * 20:
        host.send(at, 1, ACK, bytes(size))
        at += size
        segment = host.segment()
        said = segment.ack + (segment.window << shift)
        assert edge <= said <= 1 + credit
        edge = said
    assert edge > credit * 0.9


def test_a_stalled_manager_closes_the_window_and_opens_it_by_an_update(host):
    host.open(credit=65_536)
    at, taken = 1, 0
    for _ in range(100):
        host.send(at, 1, ACK, bytes(1000))
        taken += len(host.received())
        at = 1 + taken
        segments = host.segments()
    assert segments[-1].window == 0
    assert taken <= 65_536
    host.send(at, 1, ACK, b"x")  # a window probe
    assert host.received() == b""
    assert (host.segment().window, host.segments()) == (0, [])
    host.stack.grant(host.connection, 65_536)
    segment = host.segment()
    assert segment.window << host.connection.rcv.shift > 60_000


def test_a_keep_alive_is_answered(connected):
    connected.packets()
    connected.send(0, 1, ACK)
    segment = connected.segment()
    assert (segment.flags, segment.ack) == (ACK, 1)


def test_sequence_numbers_wrap():
    host = Host(iss=0xFFFFFF00)
    host.open()
    text = bytes(range(256)) * 4
    for at in range(0, 1024, 100):
        host.send(1 + at, 1, ACK, text[at : at + 100])
    assert host.received() == text


# Text for the host


def test_text_goes_out_at_once_with_push_on_the_last(connected):
    connected.packets()
    connected.write(b"a" * 2000)
    segments = connected.segments()
    assert b"".join(segment.text for segment in segments) == b"a" * 2000
    assert [bool(segment.flags & PSH) for segment in segments] == [False, True]
    assert all(len(segment.text) <= connected.connection.snd.mss for segment in segments)


def test_with_offload_one_packet_carries_many_segments():
    host = Host(vnet=10)
    host.open()
    host.packets()
    host.write(bytes(60_000))
    (packet,) = host.stack.output(host.now)
    header = packet[0]
    assert header[0] & 1  # NEEDS_CSUM
    assert header[1] == 1  # TSO for IPv4
    assert int.from_bytes(header[4:6], "little") == host.connection.snd.mss
    assert sum(map(len, packet)) == 10 + 40 + 60_000


def test_the_hosts_window_is_never_exceeded(connected):
    connected.send(1, 1, ACK, window=100)  # scaled by 7
    connected.packets()
    connected.write(bytes(50_000))
    sent = sum(len(segment.text) for segment in connected.segments())
    assert 12_800 - 1460 < sent <= 12_800
    connected.send(1, 1 + sent, ACK, window=100)
    more = sum(len(segment.text) for segment in connected.segments())
    assert 12_800 - 1460 < more <= 12_800


def test_what_is_acknowledged_is_said_to_the_cluster(connected):
    connected.write(b"x" * 1000)
    connected.packets()
    connected.send(1, 401, ACK)
    connected.send(1, 1001, ACK)
    octets = [event[2] for event in connected.events if event[0] is What.ACKED]
    assert octets == [400, 600]
    assert connected.connection.queue is None


def test_lost_text_is_sent_again_after_the_time_out(connected):
    connected.write(b"hello")
    connected.packets()
    connected.wait(1.5)
    assert connected.segment().text == b"hello"
    connected.wait(5)
    assert connected.segments()[0].text == b"hello"


def test_a_host_that_stays_silent_is_given_up(connected):
    connected.write(b"hello")
    for _ in range(2000):
        connected.packets()
        connected.wait(1.0)
        if connected.kinds() == [What.RESET]:
            break
    else:
        pytest.fail("never given up")
    connected.packets()
    assert not connected.stack.connections


def test_three_duplicate_acks_bring_the_first_segment_again():
    host = Host()
    host.open(options=tcp.syn_options(1000, 7, False))
    host.write(b"a" * 1000 + b"b" * 1000 + b"c" * 1000 + b"d" * 1000 + b"e" * 1000)
    host.packets()
    host.feed([host.make(1, 1, ACK)] * 2)
    assert host.segments() == []
    host.send(1, 1, ACK)
    segment = host.segment()
    assert (segment.seq, segment.text[:1]) == (1, b"a")


def test_sack_brings_exactly_what_is_missing(connected):
    connected.write(b"".join(bytes([65 + i]) * 1000 for i in range(10)))
    connected.packets()

    sack = connected.sack
    # The octets 1001 to 2000 and 4001 to 5000 are missing.
    for right in (3001, 3501, 4001):
        connected.send(1, 1001, ACK, options=sack((2001, right)))
    connected.send(1, 1001, ACK, options=sack((5001, 10_001), (2001, 4001)))
    again = connected.segments()
    connected.send(1, 4001, ACK, options=sack((5001, 10_001)))
    again += connected.segments()
    sent = {segment.seq: segment.text for segment in again if segment.text}
    assert sent == {1001: b"B" * 1000, 4001: b"E" * 1000}
    connected.send(1, 10_001, ACK)
    assert connected.connection.recovery is None
    assert connected.segments() == []


def test_a_closed_window_is_probed_for_ever_while_the_host_answers(connected):
    connected.send(1, 1, ACK, window=0)
    connected.write(b"waiting")
    connected.packets()
    probes = 0
    for _ in range(3000):
        connected.wait(1.0)
        for segment in connected.segments():
            assert segment.seq == 0
            assert segment.text == b""
            probes += 1
            connected.send(1, 1, ACK, window=0)
    assert probes > 30
    assert What.RESET not in connected.kinds()
    connected.send(1, 1, ACK, window=1000)
    assert connected.segment().text == b"waiting"


def test_a_window_that_shrinks_to_nothing_stops_the_sender(connected):
    connected.write(bytes(3000))
    connected.packets()
    connected.send(1, 1461, ACK, window=0)
    connected.write(bytes(1000))
    assert sum(len(segment.text) for segment in connected.segments()) == 0


def test_a_silly_window_is_not_filled_at_once_but_in_the_end(connected):
    connected.write(bytes(1000))
    connected.packets()
    connected.send(1, 1001, ACK, window=1)  # 128 octets
    connected.write(bytes(1000))
    assert connected.segments() == []
    connected.wait(2)
    assert len(connected.segment().text) == 128


# Closing


def test_the_host_closes_first(connected):
    connected.send(1, 1, ACK | FIN, b"bye")
    assert connected.received() == b"bye"
    assert connected.kinds() == [What.FIN]
    assert connected.segment().ack == 5
    connected.write(b"answer")
    connected.stack.finish(connected.connection)
    segment = connected.segment()
    assert (segment.text, segment.flags & FIN) == (b"answer", FIN)
    connected.send(5, 8, ACK)
    connected.packets()
    assert not connected.stack.connections


def test_the_cluster_closes_first_and_the_host_goes_on_sending(connected):
    connected.packets()
    connected.stack.finish(connected.connection)
    assert connected.segment().flags == FIN | ACK
    connected.send(1, 2, ACK)
    assert connected.connection.state is State.FIN_WAIT_2
    for _ in range(100):
        connected.wait(100)
        for probe in connected.segments():  # its kernel says that the host is there
            assert (probe.seq, probe.text) == (1, b"")
            connected.send(1, 2, ACK)
    connected.send(1, 2, ACK, b"still here")
    assert connected.received() == b"still here"
    connected.send(11, 2, FIN | ACK)
    assert connected.kinds() == [What.FIN]
    assert connected.connection.state is State.TIME_WAIT


def test_both_close_at_once(connected):
    connected.packets()
    connected.stack.finish(connected.connection)
    connected.packets()
    connected.send(1, 1, FIN | ACK)
    assert connected.connection.state is State.CLOSING
    assert connected.segment().ack == 2
    connected.send(2, 2, ACK)
    assert connected.connection.state is State.TIME_WAIT


def test_fin_waits_for_the_last_of_the_text(connected):
    connected.send(1, 1, ACK, window=0)
    connected.packets()
    connected.write(b"tail")
    connected.stack.finish(connected.connection)
    assert connected.segments() == []
    connected.send(1, 1, ACK, window=500)
    segment = connected.segment()
    assert (segment.text, bool(segment.flags & FIN)) == (b"tail", True)


def test_a_lost_fin_is_sent_again(connected):
    connected.packets()
    connected.stack.finish(connected.connection)
    connected.packets()
    connected.wait(1.5)
    assert connected.segment().flags & FIN


def test_a_fin_that_came_too_early_is_held(connected):
    connected.send(4, 1, FIN | ACK, b"def")
    assert connected.kinds() == []
    connected.send(1, 1, ACK, b"abc")
    assert connected.received() == b"abcdef"
    assert connected.kinds() == [What.FIN]
    assert connected.segments()[-1].ack == 8


def test_a_fin_is_taken_though_the_window_is_closed(host):
    host.open(credit=65_536)
    at = 1
    while host.connection.credit:
        host.send(at, 1, ACK, bytes(min(1000, host.connection.credit)))
        at += len(host.received())
        host.packets()
    host.send(at, 1, FIN | ACK)
    assert host.kinds() == [What.FIN]


def test_time_wait_acknowledges_a_repeated_fin_and_ends(connected):
    connected.packets()
    connected.stack.finish(connected.connection)
    connected.packets()
    connected.send(1, 2, FIN | ACK)
    assert connected.segment().ack == 2
    connected.send(1, 2, FIN | ACK)
    assert connected.segment().ack == 2
    connected.wait(2.5)
    connected.packets()
    assert not connected.stack.connections


def test_a_newer_syn_ends_time_wait(connected):
    connected.packets()
    connected.close_after_the_cluster()
    connected.kinds()
    connected.send(100_000, 0, SYN)
    assert connected.kinds() == [What.OPEN]
    assert connected.connection.state is State.PENDING


# ACKs that wait


def converse(host: Host) -> None:
    """The cluster has said something, and the host has it."""
    host.packets()
    host.write(b"hello")
    host.packets()
    host.send(1, 6, ACK)
    host.packets()


def test_an_ack_goes_with_the_answer(connected):
    converse(connected)
    connected.send(1, 6, ACK, b"request")
    assert connected.packets() == []
    connected.write(b"answer")
    segment = connected.segment()
    assert (segment.ack, segment.text) == (8, b"answer")
    connected.wait(1)
    assert all(segment.text for segment in connected.segments())


def test_an_ack_waits_for_an_answer_no_longer_than_4_ms(connected):
    converse(connected)
    connected.send(1, 6, ACK, b"request")
    connected.wait(0.0039)
    assert connected.packets() == []
    connected.wait(0.0001)
    segment = connected.segment()
    assert (segment.ack, segment.text) == (8, b"")


def test_where_the_answers_take_longer_an_ack_waits_for_none(connected):
    converse(connected)
    connected.send(1, 6, ACK, b"request")
    connected.wait(0.02)
    connected.write(b"answer")
    connected.packets()
    connected.send(8, 12, ACK, b"another")
    assert connected.segment().ack == 15


def test_what_comes_second_without_an_answer_is_acknowledged_at_once(connected):
    converse(connected)
    connected.send(1, 6, ACK, b"re")
    connected.send(3, 6, ACK, b"quest")
    assert connected.segment().ack == 8


def test_the_first_text_is_acknowledged_at_once(connected):
    connected.packets()
    connected.send(1, 1, ACK, b"request")
    assert connected.segment().ack == 8


def test_a_full_segment_is_acknowledged_at_once(connected):
    converse(connected)
    connected.send(1, 6, ACK, bytes(1460))
    assert connected.segment().ack == 1461


def test_a_fin_is_acknowledged_at_once_and_with_it_what_waited(connected):
    converse(connected)
    connected.send(1, 6, ACK, b"request")
    connected.send(8, 6, FIN | ACK)
    assert connected.segment().ack == 9


def test_every_ack_that_waits_is_sent():
    host = Host()
    for port in range(1000, 1003):
        host.use_port(port)
        host.open()
        converse(host)
        host.wait(0.001)
        host.send(1, 6, ACK, b"request")
        assert host.packets() == []
    sent = []
    while len(sent) < 3:
        host.now = host.stack.deadline()
        host.stack.expire(host.now)
        sent += host.packets()
    assert len({packet[12:24] for packet in sent}) == 3


# Resets


def test_an_exact_reset_ends_the_connection(connected):
    connected.send(1, 1, RST)
    assert connected.kinds() == [What.RESET]
    connected.packets()
    assert not connected.stack.connections


def test_a_reset_in_the_window_is_challenged(connected):
    connected.packets()
    connected.send(100, 1, RST)
    assert connected.kinds() == []
    segment = connected.segment()
    assert (segment.flags, segment.ack) == (ACK, 1)


def test_a_reset_outside_the_window_is_dropped(connected):
    connected.packets()
    connected.send(0x70000000, 1, RST)
    assert connected.kinds() == []
    assert connected.segments() == []


def test_a_syn_on_a_live_connection_is_challenged(connected):
    connected.packets()
    connected.send(500, 0, SYN)
    segment = connected.segment()
    assert (segment.flags, segment.ack) == (ACK, 1)
    assert connected.connection.state is State.ESTABLISHED


def test_the_clusters_reset_follows_its_text_with_the_exact_number(connected):
    connected.packets()
    connected.write(b"last words")
    connected.stack.reset(connected.connection, connected.now)
    text, reset = connected.segments()
    assert text.text == b"last words"
    assert (reset.flags, reset.seq) == (RST | ACK, 11)
    assert not connected.stack.connections


def test_a_segment_without_ack_is_dropped(connected):
    connected.packets()
    connected.send(1, 0, PSH, b"no ack")
    assert connected.received() == b""


def test_an_ack_of_what_was_not_sent_is_answered_and_dropped(connected):
    connected.packets()
    connected.send(1, 5000, ACK, b"x")
    assert connected.received() == b""
    assert connected.segment().ack == 1
