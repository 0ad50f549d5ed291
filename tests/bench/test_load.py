"""Both ends of a load on loopback, and servers that do not do what they should."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tunstack.bench import load
from tunstack.bench.probe import WrongAnswer

BRIEF = 0.02


@pytest.fixture(scope="module")
def address() -> load.Address:
    server = load.Server()
    threading.Thread(target=server.serve, daemon=True).start()
    return "127.0.0.1", server.port


@contextmanager
def liar(serve: Callable[[socket.socket], None]) -> Iterator[load.Address]:
    """A server that does as it likes with its one connection."""

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            serve(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()
        thread.join()


def swallow(sock: socket.socket) -> int:
    octets = 0
    while got := len(sock.recv(1 << 20)):
        octets += got
    return octets


@pytest.mark.parametrize("flows", [1, 8])
@pytest.mark.parametrize("transfer", [load.upload, load.download])
def test_a_transfer_takes_its_time_and_is_counted(address, transfer, flows):
    octets, took = transfer(address, flows, BRIEF)
    assert octets > 0
    assert took >= BRIEF


@pytest.mark.parametrize("flows", [1, 64])
def test_questions_are_asked_on_every_connection(address, flows):
    times, took = load.ask(address, flows, BRIEF)
    assert len(times) >= flows
    assert all(0 < time <= took for time in times)


def test_connections_are_made_one_by_one(address):
    count, took = load.connect(address, BRIEF)
    assert count > 0
    assert took >= BRIEF


def test_an_octet_that_got_lost_on_its_way_up_is_no_figure():
    def serve(sock):
        sock.sendall((swallow(sock) - 1).to_bytes(8, "big"))

    with liar(serve) as address, pytest.raises(WrongAnswer):
        load.upload(address, 1, BRIEF)


def test_an_octet_that_got_lost_on_its_way_down_is_no_figure():
    def serve(sock):
        sock.sendall(bytes(1000))
        swallow(sock)
        sock.sendall((1001).to_bytes(8, "big"))

    with liar(serve) as address, pytest.raises(WrongAnswer):
        load.download(address, 1, BRIEF)


def test_an_echo_that_is_none_is_no_figure():
    def serve(sock):
        got = bytearray(sock.recv(load.ASK))
        got[-1] ^= 1
        sock.sendall(got)

    with liar(serve) as address, pytest.raises(WrongAnswer):
        load.ask(address, 1, BRIEF)


@pytest.mark.parametrize("answer", [b"", b"d", b"cc"])
def test_a_connection_without_the_right_answer_is_no_figure(answer):
    def serve(sock):
        sock.recv(10)
        sock.sendall(answer)

    with liar(serve) as address, pytest.raises(WrongAnswer):
        load.connect(address, BRIEF)
