"""What is written down and undone, with processes that are really killed."""

import json
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.host.namespaces import forked, inside, mount, unshared, with_mounts_of_its_own
from tunstack.errors import HostError
from tunstack.host.iptables import Chain, Iptables, network_namespace
from tunstack.host.journal import Journal, replay
from tunstack.host.rewrites import plan

BEFORE = "nameserver 192.0.2.1\n# a comment of theirs, \udce9, longer than what we write\n"
OURS = "nameserver 198.18.0.2\n"
MORE = "nameserver 198.18.0.2\nsearch default.svc.cluster.local\n"


@pytest.fixture
def records(tmp_path) -> Path:
    return tmp_path / "var/journal"


@pytest.fixture
def etc(tmp_path) -> Path:
    """A directory with a file, a link to one, and a link to nowhere."""
    made = tmp_path / "etc"
    made.mkdir()
    (made / "file").write_text(BEFORE, errors="surrogateescape")
    (made / "file").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(made / "file", 4242, 4243)
    (made / "link").symlink_to("../etc/file")
    (made / "dangling").symlink_to("/nowhere/resolv.conf")
    return made


def look(directory: Path) -> dict[str, object]:
    """Tell all that undoing has to bring back."""
    found: dict[str, object] = {}
    for path in directory.iterdir():
        if path.is_symlink():
            found[path.name] = os.readlink(path)
        else:
            status = path.stat()
            mode = stat.S_IMODE(status.st_mode)
            found[path.name] = (path.read_bytes(), mode, status.st_uid, status.st_gid)
    return found


def killed(function: Callable[[], None]) -> None:
    """Run a function in a process that is killed right after it."""

    def child() -> None:
        function()
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(child, killed=True)


NAMES = ["file", "link", "dangling", "absent"]


@pytest.mark.parametrize("name", NAMES)
def test_undoing_brings_back_just_what_was(etc, records, name):
    before = look(etc)
    journal = Journal("test", records)
    journal.write(etc / name, OURS)
    assert not (etc / name).is_symlink()
    assert (etc / name).read_text() == OURS
    assert len(journal.undo()) == 1
    assert look(etc) == before
    assert list(records.iterdir()) == []
    assert journal.undo() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_second_text_is_undone_to_what_was_before_both(etc, records, name):
    before = look(etc)
    journal = Journal("test", records)
    for text in (OURS, MORE, OURS):
        journal.write(etc / name, text)
        assert (etc / name).read_text() == text
    journal.undo()
    assert look(etc) == before


@pytest.mark.parametrize("name", NAMES)
def test_what_a_killed_helper_left_is_undone_by_the_next(etc, records, name):
    before = look(etc)
    killed(lambda: Journal("test", records).write(etc / name, OURS))
    assert (etc / name).read_text() == OURS
    wanted = "removed" if name == "absent" else "restored"
    assert replay(records) == [f"{etc / name} {wanted}"]
    assert look(etc) == before
    assert list(records.iterdir()) == []


def test_a_new_file_can_be_read_by_all_and_the_records_by_root_only(etc, records):
    journal = Journal("test", records)
    journal.write(etc / "link", OURS)
    assert stat.S_IMODE((etc / "link").stat().st_mode) == 0o644
    assert stat.S_IMODE(records.stat().st_mode) == 0o700
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    journal.undo()


def test_what_a_living_helper_has_done_stays(etc, records):
    journal = Journal("test", records)
    journal.write(etc / "file", OURS)
    forked(lambda: _none(replay(records)))
    assert (etc / "file").read_text() == OURS
    journal.undo()


def test_a_pid_that_is_another_process_by_now_counts_as_gone(etc, records):
    before = look(etc)
    killed(lambda: Journal("test", records).write(etc / "file", OURS))
    rewrite(records, pid=os.getpid())
    replay(records)
    assert look(etc) == before


def test_after_another_boot_no_helper_is_alive(etc, records):
    before = look(etc)
    Journal("test", records).write(etc / "file", OURS)
    rewrite(records, boot="another")
    replay(records)
    assert look(etc) == before


def rewrite(records: Path, **changes: object) -> None:
    (record,) = records.iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


def _none(lines: list[str]) -> None:
    assert lines == []


@pytest.mark.parametrize("change", ["content", "link", "gone"])
def test_what_somebody_else_has_changed_since_is_left_alone(etc, records, change):
    killed(lambda: Journal("test", records).write(etc / "file", OURS))
    if change == "content":
        (etc / "file").write_text("nameserver 192.0.2.7\n")
    else:
        (etc / "file").unlink()
        if change == "link":
            (etc / "file").symlink_to("elsewhere")
    before = look(etc)
    (line,) = replay(records)
    assert "was changed by somebody else" in line
    assert look(etc) == before
    assert list(records.iterdir()) == []


def test_what_somebody_else_has_changed_in_between_comes_back(etc, records):
    journal = Journal("test", records)
    journal.write(etc / "file", OURS)
    theirs = "nameserver 192.0.2.7\n"
    (etc / "file").write_text(theirs)
    journal.write(etc / "file", MORE)
    journal.undo()
    assert (etc / "file").read_text() == theirs


def test_a_file_that_another_session_has_is_refused(etc, records):
    journal = Journal("first", records)
    journal.write(etc / "file", OURS)

    def second() -> None:
        with pytest.raises(HostError, match="belongs to another session"):
            Journal("second", records).write(etc / "file", MORE)

    forked(second)
    assert (etc / "file").read_text() == OURS
    journal.undo()


def test_one_of_several_files_is_undone_by_itself(etc, records):
    before = look(etc)
    journal = Journal("test", records)
    for name in NAMES:
        journal.write(etc / name, OURS)
    assert set(journal.files) == {etc / name for name in NAMES}
    journal.undo([etc / "link"])
    assert look(etc)["link"] == before["link"]
    assert (etc / "file").read_text() == OURS
    journal.undo()
    assert look(etc) == before


def test_what_cannot_be_written_down_is_not_done(etc, records):
    records.parent.mkdir()
    records.write_text("a file where the directory shall be")
    before = look(etc)
    with pytest.raises(HostError, match="cannot be opened"):
        Journal("test", records).write(etc / "file", OURS)
    assert look(etc) == before


def test_a_directory_in_the_place_of_a_file_is_refused(etc, records):
    (etc / "directory").mkdir()
    with pytest.raises(HostError, match="is no file"):
        Journal("test", records).write(etc / "directory", OURS)
    assert replay(records) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"entries": []}',
        '{"pid": "x", "started": 1, "boot": "", "entries": []}',
        '{"pid": 1, "started": 1, "boot": "", "entries": [{"kind": "rocket"}]}',
        '{"pid": 1, "started": 1, "boot": "", "entries": [{"kind": "file", "path": 7}]}',
        '{"pid": 1, "started": 1, "boot": "", "entries": 7}',
        '{"pid": 1, "started": 1, "boot": "", "entries": [{"kind": "file", "path": 7, '
        '"before": {}, "ours": [""], "mount": null}]}',
        "\x00\xff",
    ],
)
def test_a_record_that_cannot_be_understood_is_reported_and_harms_nothing(
    etc, records, text
):
    before = look(etc)
    killed(lambda: Journal("z", records).write(etc / "file", OURS))
    (records / "bad-1.json").write_text(text)
    lines = replay(records)
    assert len(lines) == 2
    assert f"{etc / 'file'} restored" in lines
    assert look(etc) == before
    Journal("test", records).write(etc / "absent", OURS)


def test_where_there_is_no_journal_there_is_nothing_to_do(records):
    assert replay(records) == []
    assert not records.exists()


@pytest.mark.system
def test_somebody_who_may_not_look_is_told_so(etc, records):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    killed(lambda: Journal("test", records).write(etc / "file", OURS))

    def as_nobody() -> None:
        os.setuid(65_534)
        (line,) = replay(records)
        assert "Permission denied" in line

    forked(as_nobody)
    assert (etc / "file").read_text() == OURS


STEPS = (
    "open", "pwrite", "ftruncate", "fsync", "rename", "symlink", "unlink", "fchmod",
    "fchown",
)  # fmt: skip
"""Functions of ``os`` that everything is done by, but for writing in a buffer."""


def dying(function: Callable[[], None], at: int) -> bool:
    """Run a function in a process that is killed at one of its steps.

    Returns whether it came to that step.
    """

    def child() -> None:
        left = at

        def step(original: Callable[..., object]) -> Callable[..., object]:
            def stepping(*arguments: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)

            return stepping

        for name in STEPS:
            setattr(os, name, step(getattr(os, name)))
        function()

    return forked(child, killed=True)


def check_every_step(path: Path, records: Path) -> None:
    """Kill a helper at each step of two writes and of undoing them; all is undone."""
    before = look(path.parent)

    def whole() -> None:
        journal = Journal("test", records)
        journal.write(path, OURS)
        journal.write(path, MORE)
        journal.undo()

    at = 1
    while dying(whole, at):
        lines = replay(records)
        assert not any("somebody else" in line or "not undone" in line for line in lines)
        assert look(path.parent) == before, f"killed at step {at}"
        assert list(records.iterdir()) == []
        at += 1
    assert at > 20
    assert look(path.parent) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_helper_killed_at_any_step_leaves_nothing_that_cannot_be_undone(
    etc, records, name
):
    check_every_step(etc / name, records)


@pytest.mark.parametrize("name", NAMES)
def test_undoing_can_be_killed_at_any_step_as_well(etc, records, name):
    before = look(etc)
    at, left = 1, True
    while left:
        killed(lambda: Journal("test", records).write(etc / name, OURS))
        left = dying(lambda: replay(records), at)
        replay(records)
        assert look(etc) == before, f"killed at step {at}"
        at += 1
    assert at > 5


def needs_mounts() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.mark.system
def test_a_file_that_is_mounted_is_written_in_place(etc, records):
    """As a container's /etc/resolv.conf: it cannot be replaced, and keeps its inode."""
    needs_mounts()
    (etc / "mounted").touch()
    before, inode = look(etc), (etc / "file").stat().st_ino

    def mounted() -> None:
        mount(etc / "file", etc / "mounted", "--bind")
        journal = Journal("test", records)
        for text in (MORE, OURS):
            journal.write(etc / "mounted", text)
            assert (etc / "mounted").read_text() == text
        journal.undo()

    with_mounts_of_its_own(mounted)
    assert look(etc) == before
    assert (etc / "file").stat().st_ino == inode


@pytest.mark.system
def test_a_mounted_file_can_be_left_at_any_step(etc, records):
    needs_mounts()
    (etc / "mounted").touch()

    def mounted() -> None:
        mount(etc / "file", etc / "mounted", "--bind")
        check_every_step(etc / "mounted", records)

    with_mounts_of_its_own(mounted)


@pytest.mark.system
def test_a_mounted_file_waits_for_who_can_see_it(etc, records):
    """``ip netns exec`` mounts a resolv.conf anew each time, for those below it only."""
    needs_mounts()
    (etc / "mounted").write_text("this is the host's\n")
    before = look(etc)

    def left() -> None:
        mount(etc / "file", etc / "mounted", "--bind")
        killed(lambda: Journal("test", records).write(etc / "mounted", OURS))

    def again() -> None:
        mount(etc / "file", etc / "mounted", "--bind")
        assert replay(records) == [f"{etc / 'mounted'} restored"]

    with_mounts_of_its_own(left)
    assert replay(records) == []
    assert (etc / "file").read_text() == OURS
    with_mounts_of_its_own(again)
    assert look(etc) == before
    assert list(records.iterdir()) == []


@pytest.mark.system
def test_a_file_system_that_is_read_only_is_an_error_and_leaves_no_record(etc, records):
    needs_mounts()
    before = look(etc)

    def mounted() -> None:
        mount(etc, etc, "--bind")
        mount("none", etc, "-o", "remount,bind,ro")
        with pytest.raises(HostError, match="Read-only file system"):
            Journal("test", records).write(etc / "file", OURS)

    with_mounts_of_its_own(mounted)
    assert look(etc) == before
    assert list(records.iterdir()) == []


@pytest.mark.system
def test_what_cannot_be_undone_is_said_and_kept(etc, records):
    needs_mounts()
    before = look(etc)
    killed(lambda: Journal("test", records).write(etc / "file", OURS))

    def mounted() -> None:
        mount(etc, etc, "--bind")
        mount("none", etc, "-o", "remount,bind,ro")
        (line,) = replay(records)
        assert line.startswith("not undone")

    with_mounts_of_its_own(mounted)
    assert replay(records) == [f"{etc / 'file'} restored"]
    assert look(etc) == before


def test_two_who_undo_at_once_do_it_once(etc, records):
    before = look(etc)
    killed(lambda: Journal("test", records).write(etc / "file", OURS))
    lines: list[str] = []
    both = [
        threading.Thread(target=lambda: lines.extend(replay(records))) for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert lines == [f"{etc / 'file'} restored"]
    assert look(etc) == before


@pytest.mark.system
def test_a_chain_is_removed_where_it_is_and_only_there(namespace, records):
    def chains() -> str:
        return subprocess.check_output(["iptables", "-t", "nat", "-S"], text=True)

    def override() -> None:
        rewrites = plan([ip_address("198.18.0.2")], [ip_address("192.0.2.1")], None)
        Iptables("ts0", Journal("test", records).record).set(rewrites)

    killed(override)
    with inside(unshared()):
        assert replay(records) == []
    assert "TUNSTACK-ts0" in chains()
    assert replay(records) == ["iptables: TUNSTACK-ts0 removed"]
    assert "TUNSTACK-ts0" not in chains()
    assert list(records.iterdir()) == []


@pytest.mark.system
def test_a_chain_that_was_recorded_and_not_made_is_nothing(namespace, records):
    chain = Chain("iptables", "TUNSTACK-ts0", network_namespace())
    killed(lambda: Journal("test", records).record(chain))
    assert replay(records) == []
    assert list(records.iterdir()) == []


def test_a_chain_of_another_boot_is_gone_with_it(records):
    chain = Chain("iptables", "TUNSTACK-ts0", 1)
    Journal("test", records).record(chain)
    rewrite(records, boot="another")
    assert replay(records) == []
    assert list(records.iterdir()) == []
