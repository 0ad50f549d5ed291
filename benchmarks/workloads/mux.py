"""The mux alone: both ends of a session, and messages handed from one to the other."""

from functools import partial

from benchmarks.workloads.workload import Step, Workload
from tunstack.mux.session import TCP, Mux
from tunstack.wire.frame import Kind

CREDIT = 4 << 20
DATA = int(Kind.DATA)


def deliver(sender: Mux, receiver: Mux) -> int:
    """Hand over all that one end says; gives the octets of DATA, used up at once."""
    octets = 0
    while (message := sender.next_frames()) is not None:
        for kind, flow, value in receiver.receive(message):
            if kind is Kind.OPEN:
                receiver.opened(flow, CREDIT)
            elif kind is Kind.DATA:
                octets += len(value)
                receiver.consumed(flow, len(value))
        assert receiver.violation is None
    return octets


def carry(flows: int, size: int, count: int) -> Step:
    """``count`` frames of ``size`` octets in one turn, by turns of all flows."""
    client, manager = Mux(client=True), Mux(client=False)
    numbers = [client.open(TCP, bytes(16), 80, CREDIT).id for _ in range(flows)]
    assert deliver(client, manager) == deliver(manager, client) == 0
    source = bytes(size * count)
    spans = [
        word
        for at in range(count)
        for word in (DATA, numbers[at % flows], at * size, (at + 1) * size)
    ]

    def step() -> None:
        client.send(source, spans)
        assert deliver(client, manager) == size * count
        deliver(manager, client)

    return step


def open_and_close() -> Step:
    """A flow from OPEN to the second FIN."""
    client, manager = Mux(client=True), Mux(client=False)

    def step() -> None:
        flow = client.open(TCP, bytes(16), 80, CREDIT)
        deliver(client, manager)
        deliver(manager, client)
        other = manager.flows[flow.id]
        client.finish(flow)
        deliver(client, manager)
        manager.finish(other)
        deliver(manager, client)
        assert not client.flows

    return step


WORKLOADS = (
    Workload(
        name="mux, 64 KiB frames",
        unit="frame",
        units=4,
        warm_up=300,
        make=partial(carry, 1, 65_536, 4),
    ),
    Workload(
        name="mux, 64 octets, alone",
        unit="message",
        units=1,
        warm_up=300,
        make=partial(carry, 1, 64, 1),
    ),
    Workload(
        name="mux, 64 octets, 64 flows",
        unit="frame",
        units=64,
        warm_up=300,
        make=partial(carry, 64, 64, 64),
    ),
    Workload(
        name="mux, open and close",
        unit="flow",
        units=1,
        warm_up=300,
        make=open_and_close,
    ),
)
