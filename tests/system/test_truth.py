"""Whatever becomes of a connection at the far end becomes of it at the near end."""

import errno
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support import lab as labs
from tests.support.lab import Lab, Site, wait_until

CLOSED_PORT = 7999
ABORT = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends RST."""


def pair(lab: Lab, site: Site) -> tuple[socket.socket, socket.socket]:
    """Connect the client to the server; give both ends."""
    with lab.server.listen(site) as listener:
        near = lab.client.connect(site, site.server, listener.getsockname()[1])
        far, _ = listener.accept()
    far.settimeout(10)
    return near, far


def received(sock: socket.socket) -> bytes:
    """Read up to the end of file."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def retransmitted(sock: socket.socket) -> int:
    """How many segments a socket has sent again: tcpi_total_retrans."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    total: int = struct.unpack_from("I", info, 100)[0]
    return total


def test_a_closed_port_refuses_the_first_syn(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site)
    with pytest.raises(ConnectionRefusedError):
        near.connect((site.server, CLOSED_PORT))
    assert retransmitted(near) == 0


@pytest.mark.parametrize("where", ["unreachable", "routeless"])
def test_a_host_is_as_unreachable_as_the_managers_kernel_says(
    lab: Lab, site: Site, where: str
) -> None:
    target = getattr(site, where), 80
    said = lab.gateway.new_socket(site).connect_ex(target)
    heard = lab.client.new_socket(site).connect_ex(target)
    # ICMPv6 has one code for both: no kernel tells a client which.
    told_apart = not (labs.DIRECT and site.family == socket.AF_INET6)
    assert heard in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    assert heard == said or not told_apart


def test_a_host_that_nobody_has_is_unreachable(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site)
    assert near.connect_ex((site.dead, 80)) == errno.EHOSTUNREACH


def test_a_silent_host_is_left_to_the_applications_patience(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site, timeout=3)
    with pytest.raises(TimeoutError):
        near.connect((site.silent, 80))


def test_a_reset_by_the_server_is_a_reset(lab: Lab, site: Site) -> None:
    near, far = pair(lab, site)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    far.close()
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_a_reset_by_the_application_is_a_reset(lab: Lab, site: Site) -> None:
    near, far = pair(lab, site)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    near.close()
    with pytest.raises(ConnectionResetError):
        far.recv(1)


def test_what_was_sent_before_the_end_arrives_before_it(lab: Lab, site: Site) -> None:
    sent = random.Random(1).randbytes(100_000)
    near, far = pair(lab, site)
    with near:
        near.sendall(sent)
    assert received(far) == sent

    near, far = pair(lab, site)
    with far:
        far.sendall(sent)
    assert received(near) == sent


def test_a_dial_that_the_application_gave_up_is_closed_at_the_far_end(
    tunnel: Lab, site: Site
) -> None:
    with tunnel.server.listen(site) as listener:
        port = listener.getsockname()[1]
        # A retransmitted SYN of the manager gets through, when nobody waits any more.
        rule = f"tcp dport {port} tcp flags syn counter drop"
        with tunnel.server.firewall(rule) as syns:
            near = tunnel.client.new_socket(site)
            near.setblocking(False)
            assert near.connect_ex((site.server, port)) == errno.EINPROGRESS
            wait_until(lambda: tunnel.server.counted(syns)[0], 5, "the dial began")
            near.close()
        far, _ = listener.accept()
    far.settimeout(10)
    with suppress(ConnectionResetError):  # just as closed
        assert far.recv(1) == b""


def test_either_end_may_answer_long_after_the_other_finished(lab: Lab, site: Site) -> None:
    answer = random.Random(2).randbytes(1_000_000)
    ends = pair(lab, site), pair(lab, site)[::-1]
    for asker, answerer in ends:
        asker.sendall(b"question")
        asker.shutdown(socket.SHUT_WR)
        assert received(answerer) == b"question"
    time.sleep(5)  # no limit shorter than this may end a half-closed connection

    def reply(answerer: socket.socket) -> None:
        with answerer:
            answerer.sendall(answer)

    for asker, answerer in ends:
        thread = threading.Thread(target=reply, args=[answerer])
        thread.start()
        assert received(asker) == answer
        thread.join()


def test_both_ends_may_send_and_finish_at_once(lab: Lab, site: Site) -> None:
    near, far = pair(lab, site)
    data = random.Random(3).randbytes(3_000_000)

    def send(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(received, sock) for sock in (near, far)]
        for sock in (near, far):
            pool.submit(send, sock)
        assert [end.result() for end in ends] == [data, data]
