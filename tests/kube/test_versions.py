"""Clients of two versions of the protocol on one manager, which nobody changes."""

import subprocess
import sys

from tunstack._version import PROTOCOL

OLDER = """
import asyncio, sys
from tunstack import _version
_version.PROTOCOL -= 1
import tunstack
async def main():
    async with tunstack.connect() as session:
        print("protocol", session.status().manager.protocol, flush=True)
        for _ in sys.stdin:
            reader, writer = await session.open_connection(sys.argv[1], 7007)
            writer.write(b"older")
            print((await reader.readexactly(5)).decode(), flush=True)
            writer.close()
asyncio.run(main())
"""


def test_two_users_of_different_versions_at_the_same_time(installed):
    (pod,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    host = installed.pods("testserver", "app=testserver")[0]["status"]["podIP"]
    older = subprocess.Popen(
        installed.laptop.inside(sys.executable, "-c", OLDER, host),
        env=installed.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert older.stdout.readline() == f"protocol {PROTOCOL - 1}\n"
        assert installed.connect()["manager"]["protocol"] == PROTOCOL
        for _ in range(3):
            older.stdin.write("again\n")
            older.stdin.flush()
            assert older.stdout.readline() == "older\n"
            with installed.tcp(host, 7007) as sock:
                sock.sendall(b"newer")
                assert sock.recv(5) == b"newer"
    finally:
        older.stdin.close()
        assert older.wait(20) == 0
    (after,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
