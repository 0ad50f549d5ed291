"""A resolv.conf of a mount namespace's own, seen by real programs of the C library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

INSIDE = """
import os, socket, subprocess, sys, threading
from pathlib import Path
import dns.flags, dns.message, dns.rrset
from tunstack.host import private

where, directory = sys.argv[1:]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"

def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)

def etc(link):
    # An /etc whose resolv.conf is a link, or nothing, by a directory of our own.
    made = Path(directory, "etc")
    made.mkdir()
    for name in ("nsswitch.conf", "passwd", "host.conf"):
        if os.path.exists(f"/etc/{name}"):
            (made / name).write_bytes(Path("/etc", name).read_bytes())
    if link:
        (made / "resolv.conf").symlink_to(link)
    mount("--bind", made, "/etc")

if where == "link":
    target = Path(directory, "target")
    target.write_text("nameserver 192.0.2.9\\n")
    etc(target)
elif where == "resolved":
    mount("-t", "tmpfs", "tmpfs", "/run")
    for name in ("systemd/resolve", "nscd", "other"):
        Path("/run", name).mkdir(parents=True)
        Path("/run", name, "socket").touch()
    Path("/run/systemd/resolve/stub-resolv.conf").write_text("nameserver 192.0.2.9\\n")
    etc("../run/systemd/resolve/stub-resolv.conf")
elif where == "dangling":
    etc("../run/nowhere/resolv.conf")
elif where == "absent":
    etc(None)

kept = sorted(os.listdir("/etc"))
own = Path(directory, "own")
own.mkdir()
private.enter("nameserver 127.0.0.7\\nsearch ours.example\\n", own)

def answer():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.7", 53))
    while True:
        query, asker = server.recvfrom(512)
        query = dns.message.from_wire(query)
        answer = dns.message.make_response(query)
        (question,) = query.question
        if str(question.name) == "web.ours.example." and question.rdtype == 1:
            found = dns.rrset.from_text(question.name, 1, "IN", "A", "10.9.8.7")
            answer.answer.append(found)
        server.sendto(answer.to_wire(), asker)

threading.Thread(target=answer, daemon=True).start()
print(Path("/etc/resolv.conf").read_text().split()[1])
print(subprocess.check_output(["getent", "hosts", "web"], text=True).split()[0])
assert set(kept) | {"resolv.conf"} == set(os.listdir("/etc")), os.listdir("/etc")
if where == "resolved":
    assert os.listdir("/run/systemd/resolve") == ["stub-resolv.conf"]
    assert os.listdir("/run/nscd") == []
    assert os.listdir("/run/other") == ["socket"]
"""

PLACES = ["file", "link", "resolved", "dangling", "absent"]


def mounted(directory: Path) -> list[str]:
    """Tell what is mounted outside, as far as it may be our doing."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    ours = ("/etc", "/run/systemd", "/run/nscd", str(directory))
    return [point for point in points if point.startswith(ours)]


@pytest.mark.parametrize("flags", ["-mn", "-Umrn"], ids=["root", "rootless"])
@pytest.mark.parametrize("where", PLACES)
def test_who_is_inside_asks_ours_and_who_is_outside_does_not(tmp_path, flags, where):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    before = Path("/etc/resolv.conf").read_bytes()
    mounts = mounted(tmp_path)
    done = subprocess.run(
        ["unshare", flags, sys.executable, "-P", "-c", INSIDE, where, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["127.0.0.7", "10.9.8.7"]
    assert Path("/etc/resolv.conf").read_bytes() == before
    assert mounted(tmp_path) == mounts
    if where == "link":
        assert (tmp_path / "target").read_text() == "nameserver 192.0.2.9\n"
    elif where == "dangling":
        assert os.readlink(tmp_path / "etc/resolv.conf") == "../run/nowhere/resolv.conf"
    elif where == "absent":
        assert "resolv.conf" not in os.listdir(tmp_path / "etc")


def enter(*under: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from pathlib import Path\n"
        "from tunstack.errors import HostError; from tunstack.host import private\n"
        "try: private.enter('nameserver 127.0.0.7', Path(sys.argv[1]))\n"
        "except HostError as error: print(error)"
    )
    return subprocess.run(
        [*under, sys.executable, "-P", "-c", program, str(directory)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_mounts_do_not_leave_a_namespace_that_shares_them(tmp_path):
    """A mount namespace is a copy at first, and in it what is shared stays shared."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    shared = (
        "mount --make-rshared / && unshare -m --propagation unchanged"
        ' "$@" && cat /etc/resolv.conf'
    )
    done = enter("unshare", "-m", "sh", "-c", shared, "sh", directory=tmp_path)
    assert done.stderr == ""
    assert done.stdout == Path("/etc/resolv.conf").read_text()


def test_without_the_right_to_mount_it_is_a_clear_error(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    without = ("setpriv", "--bounding-set", "-sys_admin")
    done = enter("unshare", "-m", *without, directory=tmp_path)
    assert done.stdout == "none cannot be mounted on /: Operation not permitted\n"
