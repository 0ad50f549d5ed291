"""The mux, end against end, and against frames made by hand."""

import struct

import pytest

from tunstack.mux.session import QUANTUM, Mux
from tunstack.wire.frame import MAX_MESSAGE, Kind, Refusal

TARGET = bytes(10) + b"\xff\xff" + bytes([10, 96, 0, 1])
CREDIT = 1 << 20


def frame(kind: int, flow: int, payload: bytes = b"") -> bytes:
    return struct.pack("!II", kind << 24 | len(payload), flow) + payload


def frames_of(message: bytes | bytearray | None) -> list[tuple[int, int, bytes]]:
    frames, message = [], bytes(message or b"")
    while message:
        length = int.from_bytes(message[1:4], "big")
        frames.append(
            (message[0], int.from_bytes(message[4:8], "big"), message[8 : 8 + length])
        )
        message = message[8 + length :]
    return frames


def carry(source: Mux, target: Mux) -> list:
    """Hand every message that is due over; gives the events, payloads copied."""
    events = []
    while (message := source.next_frames()) is not None:
        for kind, flow, value in target.receive(message):
            copied = bytes(value) if isinstance(value, memoryview) else value
            events.append((kind, flow.id, copied))
        assert target.violation is None, target.violation
    return events


class Pair:
    """A client, a manager, and one TCP flow that is open."""

    def __init__(self) -> None:
        self.client, self.manager = Mux(client=True), Mux(client=False)
        self.flow = self.client.open(6, TARGET, 80, CREDIT)
        carry(self.client, self.manager)
        self.accepted = self.manager.flows[self.flow.id]
        self.manager.opened(self.accepted, CREDIT)
        carry(self.manager, self.client)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def data(flow, octets: bytes) -> tuple[bytes, list[int]]:
    return octets, [Kind.DATA, flow.id, 0, len(octets)]


def test_an_open_says_what_to_dial():
    client, manager = Mux(client=True), Mux(client=False)
    client.open(6, TARGET, 8080, 4096)
    (event,) = manager.receive(client.next_frames())
    kind, flow, _ = event
    assert kind is Kind.OPEN
    assert (flow.protocol, flow.address, flow.port) == (6, TARGET, 8080)
    assert flow.send_credit == 4096
    assert not flow.open


def test_flows_are_opened_in_the_order_of_their_numbers_whatever_their_protocol():
    client, manager = Mux(client=True), Mux(client=False)
    wanted = [client.open(protocol, TARGET, 80, 0) for protocol in (17, 6, 1, 6, 17)]
    client.send(b"x", [Kind.DATAGRAM, wanted[0].id, 0, 1])
    client.reset(wanted[4])  # what was queued for it stays good, too
    opened = [flow for kind, flow, _ in carry(client, manager) if kind is Kind.OPEN]
    assert opened == [flow.id for flow in wanted]


def test_an_answer_to_an_open_that_was_not_sent_is_a_violation():
    client = Mux(client=True)
    flow = client.open(6, TARGET, 80, CREDIT)
    client.receive(frame(Kind.REFUSED, flow.id, bytes([Refusal.REFUSED])))
    assert client.violation is not None
    assert client.take_unsent() == [flow]


def test_what_is_said_of_a_flow_that_is_gone_is_passed_over(pair):
    pair.manager.reset(pair.accepted)
    carry(pair.manager, pair.client)
    for end, flow in ((pair.client, pair.flow), (pair.manager, pair.accepted)):
        end.opened(flow, 1)
        end.refuse(flow, Refusal.REFUSED)
        end.finish(flow)
        end.reset(flow)
        end.unreachable(flow, Refusal.REFUSED)
        end.send(b"x", [Kind.DATA, flow.id, 0, 1])
        assert frames_of(end.next_frames()) == []


def test_echoes_and_what_did_not_arrive_come_through():
    client, manager = Mux(client=True), Mux(client=False)
    flow = client.open(1, TARGET, 7, 0)
    client.send(b"\0\1ping", [Kind.ECHO, flow.id, 0, 6])
    assert carry(client, manager)[1:] == [(Kind.ECHO, flow.id, b"\0\1ping")]
    there = manager.flows[flow.id]
    manager.send(b"\0\1ping", [Kind.ECHO, flow.id, 0, 6])
    manager.unreachable(there, Refusal.HOST_UNREACHABLE)
    assert sorted(carry(manager, client)) == [
        (Kind.ECHO, flow.id, b"\0\1ping"),
        (Kind.UNREACHABLE, flow.id, Refusal.HOST_UNREACHABLE),
    ]


@pytest.mark.parametrize("kind", [Kind.DATAGRAM, Kind.REFUSED])
def test_a_frame_larger_than_any_is_a_violation(pair, kind):
    pair.client.receive(frame(kind, pair.flow.id, bytes(65_537)))
    assert pair.client.violation is not None


def test_the_end_of_a_flow_waits_behind_what_does_not_fit_one_message(pair):
    octets = bytes(65_536)
    for _ in range(6):
        pair.client.send(*data(pair.flow, octets))
    pair.client.finish(pair.flow)
    kinds = [kind for kind, _, _ in carry(pair.client, pair.manager)]
    assert kinds == [Kind.DATA] * 6 + [Kind.FIN]


@pytest.mark.parametrize("kind", [Kind.ECHO, Kind.UNREACHABLE])
@pytest.mark.parametrize(("protocol", "payload"), [(6, b"12345"), (1, b"")])
def test_what_does_not_fit_its_flow_is_a_violation(kind, protocol, payload):
    client, manager = Mux(client=True), Mux(client=False)
    flow = client.open(protocol, TARGET, 80, CREDIT)
    carry(client, manager)
    client.receive(frame(kind, flow.id, payload))
    assert client.violation is not None


def test_the_frames_are_those_of_the_specification():
    client = Mux(client=True)
    client.open(6, TARGET, 80, 0x01020304)
    want = bytes.fromhex("01000018000000010600005001020304") + TARGET
    assert bytes(client.next_frames()) == want


def test_data_arrives_in_order_and_lowers_credit(pair):
    for octets in (b"one", b"two", b""):
        pair.client.send(*data(pair.flow, octets))
    events = carry(pair.client, pair.manager)
    assert [value for _, _, value in events] == [b"one", b"two", b""]
    assert pair.flow.send_credit == CREDIT - 6


def test_used_up_octets_become_credit_in_batches(pair):
    octets = bytes(64 * 1024)
    for _ in range(4):
        pair.client.send(*data(pair.flow, octets))
    carry(pair.client, pair.manager)
    pair.manager.consumed(pair.accepted, CREDIT // 4 - 1)
    assert carry(pair.manager, pair.client) == []
    pair.manager.consumed(pair.accepted, 1)
    assert carry(pair.manager, pair.client) == [(Kind.CREDIT, pair.flow.id, CREDIT // 4)]
    assert pair.flow.send_credit == CREDIT


def test_fin_comes_behind_the_data_and_both_end_the_flow(pair):
    pair.client.send(*data(pair.flow, b"last"))
    pair.client.finish(pair.flow)
    kinds = [kind for kind, _, _ in carry(pair.client, pair.manager)]
    assert kinds == [Kind.DATA, Kind.FIN]
    assert pair.flow.id in pair.client.flows
    pair.manager.finish(pair.accepted)
    carry(pair.manager, pair.client)
    assert not pair.client.flows
    assert not pair.manager.flows


def test_a_reset_comes_behind_the_data(pair):
    pair.manager.send(*data(pair.accepted, b"before"))
    pair.manager.reset(pair.accepted)
    events = carry(pair.manager, pair.client)
    assert [event[0] for event in events] == [Kind.DATA, Kind.RESET]
    assert pair.flow.gone


def test_what_was_on_the_way_when_a_flow_ended_is_ignored(pair):
    pair.manager.send(*data(pair.accepted, b"late"))
    pair.client.reset(pair.flow)
    assert carry(pair.manager, pair.client) == []
    assert pair.client.violation is None


def test_a_connection_given_up_before_its_open_left_costs_nothing():
    client = Mux(client=True)
    client.reset(client.open(6, TARGET, 80, CREDIT))
    assert client.next_frames() is None


def test_a_flow_with_much_to_say_does_not_delay_another(pair):
    other = pair.client.open(6, TARGET, 81, CREDIT)
    carry(pair.client, pair.manager)
    pair.manager.opened(pair.manager.flows[other.id], CREDIT)
    carry(pair.manager, pair.client)
    block = bytes(64 * 1024)
    for _ in range(16):
        pair.client.send(*data(pair.flow, block))
    pair.client.send(*data(other, b"ping"))
    octets_before = 0
    while (message := pair.client.next_frames()) is not None:
        for _, number, payload in frames_of(message):
            if number == other.id:
                assert octets_before <= MAX_MESSAGE + QUANTUM
                return
            octets_before += len(payload)
    pytest.fail("the small frame never left")


def several(*frames) -> tuple[bytes, list[int]]:
    """Frames of one arena, in which their payloads lie one behind the other."""
    source, spans = b"", []
    for kind, flow, payload in frames:
        spans += (kind, flow.id, len(source), len(source) + len(payload))
        source += payload
    return source, spans


def test_frames_of_one_batch_arrive_as_they_are_and_cost_their_flows_credit(pair):
    other = pair.client.open(17, TARGET, 53, 0)
    said = [
        (Kind.DATA, pair.flow, b"one"),
        (Kind.DATAGRAM, other, b""),
        (Kind.DATA, pair.flow, b"three"),
    ]
    pair.client.send(*several(*said))
    events = carry(pair.client, pair.manager)[1:]
    assert events == [(kind, flow.id, octets) for kind, flow, octets in said]
    assert pair.flow.send_credit == CREDIT - 8


def test_a_batch_with_more_data_than_credit_is_refused(pair):
    pair.flow.send_credit = 7
    with pytest.raises(AssertionError):
        pair.client.send(
            *several((Kind.DATA, pair.flow, b"four"), (Kind.DATA, pair.flow, b"more"))
        )


def test_a_batch_that_a_message_does_not_hold_waits_behind_it_in_order(pair):
    blocks = [bytes([number]) * 50_000 for number in range(8)]
    for four in (blocks[:4], blocks[4:]):
        pair.client.send(*several(*((Kind.DATA, pair.flow, block) for block in four)))
    message = pair.client.next_frames()
    assert [octets for _, _, octets in frames_of(message)][:4] == blocks[:4]
    pair.manager.receive(message)
    rest = carry(pair.client, pair.manager)
    said = [octets for _, _, octets in frames_of(message)] + [event[2] for event in rest]
    assert said == blocks


def test_a_batch_of_flows_that_are_gone_says_nothing(pair):
    pair.client.reset(pair.flow)
    carry(pair.client, pair.manager)
    pair.client.send(*several((Kind.DATA, pair.flow, b"a"), (Kind.DATA, pair.flow, b"b")))
    assert pair.client.next_frames() is None


def test_a_message_stays_within_its_size(pair):
    for _ in range(16):
        pair.client.send(*data(pair.flow, bytes(64 * 1024)))
    sizes = []
    while (message := pair.client.next_frames()) is not None:
        sizes.append(len(message))
    assert len(sizes) > 3
    assert max(sizes) <= MAX_MESSAGE + QUANTUM + 64 * 1024


def test_control_goes_before_what_waits(pair):
    for _ in range(16):
        pair.client.send(*data(pair.flow, bytes(64 * 1024)))
    pair.client.next_frames()
    opened = pair.client.open(6, TARGET, 81, CREDIT)
    assert frames_of(pair.client.next_frames())[0][:2] == (Kind.OPEN, opened.id)


def test_datagrams_over_the_bound_are_dropped_and_counted():
    client = Mux(client=True, datagram_queue=100_000)
    flow = client.open(17, TARGET, 53, 0)
    for _ in range(100):
        client.send(bytes(20_000), [Kind.DATAGRAM, flow.id, 0, 20_000])
    sent = 0
    while (message := client.next_frames()) is not None:
        sent += sum(kind == Kind.DATAGRAM for kind, _, _ in frames_of(message))
    assert client.dropped_datagrams == 100 - sent
    assert 100_000 // 20_000 <= sent < 20


def test_an_empty_datagram_is_a_datagram():
    client, manager = Mux(client=True), Mux(client=False)
    flow = client.open(17, TARGET, 53, 0)
    client.send(b"", [Kind.DATAGRAM, flow.id, 0, 0])
    assert carry(client, manager)[1:] == [(Kind.DATAGRAM, flow.id, b"")]


def test_frames_of_flows_that_are_gone_are_not_sent(pair):
    other = pair.client.open(17, TARGET, 53, 0)
    pair.client.reset(pair.flow)
    source = b"abcdef"
    pair.client.send(
        source,
        [Kind.DATA, pair.flow.id, 0, 3, Kind.DATAGRAM, other.id, 3, 6],
    )
    events = carry(pair.client, pair.manager)
    assert (Kind.DATAGRAM, other.id, b"def") in events
    assert not any(kind is Kind.DATA for kind, _, _ in events)


def test_refusal_carries_its_kind_and_text():
    client, manager = Mux(client=True), Mux(client=False)
    flow = client.open(6, TARGET, 80, CREDIT)
    carry(client, manager)
    manager.refuse(manager.flows[flow.id], Refusal.HOST_UNREACHABLE, "no route")
    assert carry(manager, client) == [
        (Kind.REFUSED, flow.id, (Refusal.HOST_UNREACHABLE, "no route"))
    ]
    assert not client.flows
    assert not manager.flows


def test_a_flow_that_never_opened_begins_again_in_another_session():
    old, new, manager = Mux(client=True), Mux(client=True), Mux(client=False)
    flow = old.open(6, TARGET, 80, CREDIT)
    new.open(6, TARGET, 1, CREDIT)
    new.adopt(flow)
    events = carry(new, manager)
    assert [event[:2] for event in events] == [(Kind.OPEN, 1), (Kind.OPEN, 3)]
    assert new.flows[3] is flow


VIOLATIONS = {
    "half a frame": b"\x04\0\0",
    "a length beyond the message": frame(Kind.DATA, 1, b"abc")[:-1],
    "an unknown kind": frame(99, 1),
    "kind zero": frame(0, 0),
    "data for a flow that never existed": frame(Kind.DATA, 77, b"x"),
    "fin for a flow that never existed": frame(Kind.FIN, 77),
    "fin for flow 0, which is none": frame(Kind.FIN, 0),
    "data beyond the credit": frame(Kind.DATA, 1, bytes(60_000)) * 18,
    "a frame that is too large": frame(Kind.DATA, 1, bytes(65_537)),
    "an open of the wrong parity": frame(Kind.OPEN, 2, bytes(24)),
    "an open of an old number": frame(Kind.OPEN, 1, bytes(24)),
    "an open that is too short": frame(Kind.OPEN, 3, bytes(23)),
    "two fins": frame(Kind.FIN, 1) * 2,
    "data behind the fin": frame(Kind.FIN, 1) + frame(Kind.DATA, 1, b"x"),
    "opened by the wrong end": frame(Kind.OPENED, 1, bytes(4)),
    "refused by the wrong end": frame(Kind.REFUSED, 1, b"\1"),
    "credit without a number": frame(Kind.CREDIT, 1, b"\0"),
    "endless credit": frame(Kind.CREDIT, 1, b"\xff" * 4),
    "a reset without a reason": frame(Kind.RESET, 1),
    "a datagram on a connection": frame(Kind.DATAGRAM, 1, b"x"),
    "an echo on a connection": frame(Kind.ECHO, 1, b"\0\1x"),
    "unreachable on a connection": frame(Kind.UNREACHABLE, 1, b"\1"),
    "an ack of what was never sent": frame(Kind.ACK, 0, (9999).to_bytes(8, "big")),
    "an ack of the wrong size": frame(Kind.ACK, 0, b"\0"),
}


@pytest.mark.parametrize("frames", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_is_said_and_ends_it(pair, frames):
    pair.manager.receive(frames)
    assert pair.manager.violation
    assert pair.manager.receive(frame(Kind.FIN, 1)) == []


def test_data_before_opened_is_a_violation():
    client = Mux(client=True)
    client.open(6, TARGET, 80, CREDIT)
    client.next_frames()
    client.receive(frame(Kind.DATA, 1, b"x"))
    assert client.violation


def test_a_reason_of_a_newer_peer_is_unspecified(pair):
    events = pair.client.receive(frame(Kind.RESET, 1, b"\xee"))
    assert events[0][2] is Refusal.UNSPECIFIED


def test_a_resumed_session_loses_nothing_and_doubles_nothing(pair):
    sent = []
    for number in range(10):
        pair.client.send(*data(pair.flow, bytes([number])))
        sent.append(pair.client.next_frames())
    arrived = [
        bytes(value)
        for message in sent[:4]
        for _, _, value in pair.manager.receive(message)
    ]
    assert pair.client.resume(pair.manager.received)
    arrived += [value for _, _, value in carry(pair.client, pair.manager)]
    assert arrived == [bytes([number]) for number in range(10)]


def test_a_count_that_cannot_be_does_not_resume(pair):
    assert not pair.client.resume(10_000)


def test_an_old_ack_that_is_said_again_is_no_violation(pair):
    for _ in range(20):
        pair.client.send(*data(pair.flow, b"x"))
        carry(pair.client, pair.manager)
    pair.client.receive(frame(Kind.ACK, 0, (10).to_bytes(8, "big")))
    pair.client.receive(frame(Kind.ACK, 0, (4).to_bytes(8, "big")))
    assert pair.client.violation is None
    assert pair.client.resume(10)
    assert not pair.client.resume(4)


def test_acknowledged_messages_are_forgotten():
    client = Mux(client=True, unacknowledged=2 * 1024 * 1024)
    manager = Mux(client=False)
    flow = client.open(17, TARGET, 53, 0)
    carried = 0
    for _ in range(100):
        client.send(bytes(60_000), [Kind.DATAGRAM, flow.id, 0, 60_000])
        carried += sum(kind is Kind.DATAGRAM for kind, _, _ in carry(client, manager))
        carry(manager, client)
    assert carried == 100


def test_too_much_unacknowledged_waits_and_an_ack_lets_it_go_on():
    client = Mux(client=True, unacknowledged=300_000)
    flow = client.open(17, TARGET, 53, 0)
    messages = []
    for _ in range(200):
        client.send(bytes(10_000), [Kind.DATAGRAM, flow.id, 0, 10_000])
        if (message := client.next_frames()) is not None:
            messages.append(message)
    assert sum(map(len, messages)) < 700_000
    assert not client.pending
    count = len(messages).to_bytes(8, "big")
    client.receive(frame(Kind.ACK, 0, count))
    assert client.pending
    assert client.next_frames() is not None


def test_an_end_that_is_full_still_acknowledges():
    one = Mux(client=True, unacknowledged=1)
    flow = one.open(17, TARGET, 53, 0)
    one.next_frames()
    assert one.next_frames() is None
    for _ in range(300):
        one.receive(frame(Kind.DATAGRAM, flow.id, b"x"))
    ((kind, number, payload),) = frames_of(one.next_frames())
    assert (kind, number, int.from_bytes(payload, "big")) == (Kind.ACK, 0, 300)
