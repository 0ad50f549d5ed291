"""Connections that the manager makes, against sockets of this computer."""

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

PATIENCE = 10
OPENED, REFUSED, DATA, CREDIT, FIN, RESET = 2, 3, 4, 5, 6, 7
TCP = 6


async def receive(sock, size):
    """Read so many octets, or all there are before the end."""
    loop = asyncio.get_running_loop()
    octets = b""
    while len(octets) < size:
        piece = await asyncio.wait_for(loop.sock_recv(sock, size - len(octets)), PATIENCE)
        if not piece:
            break
        octets += piece
    return octets


async def send(sock, octets):
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, octets), PATIENCE)


def free_port(family=socket.AF_INET):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as sock:
        return sock.getsockname()[1]


async def test_octets_go_both_ways(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((DATA, flow, b"there"))
    assert await receive(sock, 5) == b"there"
    await send(sock, b"and back")
    assert await client.data(flow, 8) == b"and back"


async def test_ipv6(client):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        flow = await client.connect(listener.getsockname())
        sock, _ = listener.accept()
        with sock:
            sock.setblocking(False)
            await client.frames((DATA, flow, b"there"))
            assert await receive(sock, 5) == b"there"


async def test_the_connection_does_not_delay_small_writes(client, listener, accept):
    """Each of many small requests is answered before the next is sent."""
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    for number in range(200):
        request = struct.pack("!I", number)
        await client.frames((DATA, flow, request))
        assert await receive(sock, 4) == request
        await send(sock, request)
        assert await client.data(flow, 4) == request


async def test_a_refused_port(client):
    flow = await client.open(("127.0.0.1", free_port()))
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (REFUSED, 1)
    assert payload[1:].decode() == "Connection refused"


@pytest.mark.parametrize(
    ("address", "reasons"),
    [
        (("255.255.255.255", 9), {2, 4}),  # what the kernel says differs by routes
        (("2001:db8::1", 9), {2, 3, 5}),
    ],
)
async def test_an_unreachable_target(start_manager, new_client, address, reasons):
    _, manager = await start_manager(dial=0.5)
    client = await new_client(manager)
    await client.hello()
    flow = await client.open(address)
    kind, payload = await client.frame(flow)
    assert kind == REFUSED
    assert payload[0] in reasons


@pytest.fixture
def full_listener():
    """A port that neither takes nor refuses: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            waiting.append(sock)
        yield listener
        for sock in waiting:
            sock.close()


async def test_a_target_that_does_not_answer_times_out(
    start_manager, new_client, full_listener
):
    _, manager = await start_manager(dial=0.3)
    client = await new_client(manager)
    await client.hello()
    flow = await client.open(full_listener.getsockname())
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (REFUSED, 5)


async def test_a_client_that_gives_up_before_the_dial_ends(client, full_listener):
    flow = await client.open(full_listener.getsockname())
    await client.frames((RESET, flow, b"\x0a"))
    await client.lives()
    assert client.flows[flow].empty()
    await client.frames((DATA, flow, b"late"))  # of a flow that was: ignored
    await client.lives()


async def test_a_protocol_that_is_not_carried(client):
    flow = await client.open(("127.0.0.1", 9), protocol=132)
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (REFUSED, 6)


async def test_a_server_that_resets(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (RESET, 10)


async def test_what_a_server_says_before_its_reset_arrives(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await send(sock, b"last words")
    assert await client.data(flow, 10) == b"last words"
    sock.close()
    kind, _ = await client.frame(flow)
    assert kind == RESET


async def test_a_client_that_resets(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((RESET, flow, b"\x0a"))
    with pytest.raises(ConnectionResetError):
        await receive(sock, 1)


async def test_the_client_ends_first_and_the_server_answers_later(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((DATA, flow, b"question"), (FIN, flow, b""))
    assert await receive(sock, 100) == b"question"
    answer = bytes(range(256)) * 2000
    sending = asyncio.ensure_future(send(sock, answer))
    assert await client.data(flow, len(answer)) == answer
    await sending
    sock.close()
    assert await client.frame(flow) == (FIN, b"")


async def test_the_server_ends_first_and_the_client_answers_later(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await send(sock, b"greeting")
    sock.shutdown(socket.SHUT_WR)
    assert await client.data(flow, 8) == b"greeting"
    assert await client.frame(flow) == (FIN, b"")
    await client.lives()
    await client.frames((DATA, flow, b"answer"), (FIN, flow, b""))
    assert await receive(sock, 100) == b"answer"


async def test_a_reset_behind_the_servers_end_is_noticed(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    sock.shutdown(socket.SHUT_WR)
    assert await client.frame(flow) == (FIN, b"")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    kind, _ = await client.frame(flow)
    assert kind == RESET


async def test_both_ends_may_end_with_octets_still_waiting(
    start_manager, new_client, listener, accept
):
    """More than the kernel holds is under way when both have said their last."""
    window = 16 * 1024 * 1024
    _, manager = await start_manager(flow_buffer=window)
    client = await new_client(manager)
    await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    sock.shutdown(socket.SHUT_WR)
    piece = bytes(range(256)) * 256
    for _ in range(window // len(piece)):
        await client.frames((DATA, flow, piece))
    await client.frames((FIN, flow, b""))
    await client.lives()
    await client.say(goodbye={"code": 1})
    await asyncio.wait_for(client.ended.wait(), PATIENCE)
    assert await receive(sock, window + 1) == piece * (window // len(piece))


async def test_no_more_is_read_than_the_client_has_granted(client, listener, accept):
    flow = await client.connect(listener.getsockname(), credit=10)
    sock = await accept()
    await send(sock, b"x" * 25)
    assert await client.data(flow, 10) == b"x" * 10
    await client.lives()
    assert client.flows[flow].empty()
    await client.frames((CREDIT, flow, struct.pack("!I", 7)))
    assert await client.data(flow, 7) == b"x" * 7
    await client.frames((CREDIT, flow, struct.pack("!I", 100)))
    assert await client.data(flow, 8) == b"x" * 8


async def test_the_servers_end_waits_behind_what_has_no_credit(client, listener, accept):
    flow = await client.connect(listener.getsockname(), credit=1)
    sock = await accept()
    await client.frames((FIN, flow, b""))
    assert await receive(sock, 1) == b""
    await send(sock, b"abc")
    sock.close()
    assert await client.data(flow, 1) == b"a"
    await client.lives()
    await client.frames((CREDIT, flow, struct.pack("!I", 100)))
    assert await client.data(flow, 2) == b"bc"
    assert await client.frame(flow) == (FIN, b"")


async def test_credit_comes_back_as_the_target_takes_octets(client, listener, accept):
    flow = await client.open(listener.getsockname())
    window = await client.opened(flow)
    sock = await accept()
    sent = granted = 0
    piece = bytes(65_536)
    while sent < 3 * window:
        while sent + len(piece) > window + granted:
            kind, payload = await client.frame(flow)
            assert kind == CREDIT
            granted += struct.unpack("!I", payload)[0]
        await client.frames((DATA, flow, piece))
        sent += len(piece)
        assert len(await receive(sock, len(piece))) == len(piece)
    assert granted <= sent


async def test_a_target_that_does_not_read_holds_up_its_own_flow_only(
    client, listener, accept
):
    stalled = await client.open(listener.getsockname())
    window = await client.opened(stalled)
    stalled_sock = await accept()
    await client.frames(*[(DATA, stalled, bytes(65_536))] * (window // 65_536))
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((DATA, flow, b"swift"))
    assert await receive(sock, 5) == b"swift"
    assert len(await receive(stalled_sock, window)) == window


async def test_many_connections_at_once(client, listener, accept):
    flows = [await client.open(listener.getsockname()) for _ in range(300)]
    socks = [await accept() for _ in flows]
    for flow in flows:
        await client.opened(flow)
    for sock in socks:
        await send(sock, struct.pack("!I", sock.getpeername()[1]))
    ports = {await client.data(flow, 4) for flow in flows}
    assert len(ports) == len(flows)


async def test_what_targets_say_at_once_leaves_in_one_message(client, listener, accept):
    flows = [await client.connect(listener.getsockname()) for _ in range(50)]
    socks = [await accept() for _ in flows]
    received = client.received
    for sock in socks:  # all before the loop runs again
        sock.send(struct.pack("!I", sock.getpeername()[1]))
    ports = {await client.data(flow, 4) for flow in flows}
    assert len(ports) == len(flows)
    assert client.received == received + 1


async def test_bulk_of_many_targets_does_not_mix(client, listener, accept):
    flows = [await client.connect(listener.getsockname(), 1 << 24) for _ in range(8)]
    size = 1 << 20
    sending = {}
    for flow in flows:
        octets = struct.pack("!I", flow) * (size // 4)
        sending[flow] = asyncio.ensure_future(send(await accept(), octets))
    for flow in flows:
        assert await client.data(flow, size) == struct.pack("!I", flow) * (size // 4)
        await sending[flow]


async def test_the_ends_of_many_targets_come_right_behind_their_last_words(
    client, listener, accept
):
    flows = [await client.connect(listener.getsockname()) for _ in range(40)]
    socks = [await accept() for _ in flows]
    received = client.received
    for number, sock in enumerate(socks):
        if number % 2:
            sock.send(b"last words")
        sock.close()  # before the loop runs again
    for number, flow in enumerate(flows):
        if number % 2:
            assert await client.frame(flow) == (DATA, b"last words")
        assert await client.frame(flow) == (FIN, b"")
    assert client.received == received + 1


async def test_bulk_stays_with_the_kernel_while_the_client_does_not_read(
    client, listener, accept
):
    credit, most = 1 << 30, 200 << 20
    flow = await client.connect(listener.getsockname(), credit)
    sock = await accept()
    client.reading.clear()
    loop = asyncio.get_running_loop()
    piece = bytes(range(256)) * 4096
    sent = 0
    # It is over when the kernel takes no more for as long as this.
    with suppress(TimeoutError):
        while sent < most:
            await asyncio.wait_for(loop.sock_sendall(sock, piece), 1)
            sent += len(piece)
    assert sent < most
    client.reading.set()
    octets = await client.data(flow, sent)
    assert octets[:sent] == piece * (sent // len(piece))


async def test_a_target_that_breaks_with_octets_waiting_for_it_resets_its_flow_only(
    start_manager, new_client, listener, accept, caplog
):
    _, manager = await start_manager(flow_buffer=16 * 1024 * 1024)
    client = await new_client(manager)
    await client.hello()
    broken = await client.open(listener.getsockname())
    window = await client.opened(broken)
    sock = await accept()
    other = await client.connect(listener.getsockname())
    other_sock = await accept()
    for _ in range(window // 65_536):
        await client.frames((DATA, broken, bytes(65_536)))
    await client.lives()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    while (frame := await client.frame(broken))[0] == CREDIT:
        pass
    assert frame[0] == RESET
    await client.frames((DATA, other, b"still here"))
    assert await receive(other_sock, 10) == b"still here"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def timer_of(local, remote):
    """Which timer the kernel runs for a connection: proc_net_tcp.txt, ``tr``."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(field.split(":")[1], 16) for field in fields[1:3]]
        if ports == [local, remote]:
            return int(fields[5].split(":")[0])
    return None


async def test_a_connection_that_stays_is_asked_after(
    start_manager, new_client, listener, accept
):
    _, manager = await start_manager(dial=0.2)
    client = await new_client(manager)
    await client.hello()
    await client.connect(listener.getsockname())
    sock = await accept()
    ports = sock.getpeername()[1], sock.getsockname()[1]
    keepalive = 2
    async with asyncio.timeout(PATIENCE):
        while timer_of(*ports) != keepalive:
            await asyncio.sleep(0.02)


async def test_a_goodbye_resets_what_is_open(client, listener, accept):
    await client.connect(listener.getsockname())
    sock = await accept()
    await client.say(goodbye={"code": 1, "reason": "done"})
    with pytest.raises(ConnectionResetError):
        await receive(sock, 1)
    await asyncio.wait_for(client.ended.wait(), PATIENCE)
