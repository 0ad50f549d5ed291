"""Changes that outlive processes: written down before they are made.

A helper undoes its own when it ends. One that was killed leaves its record behind, and
so does a loss of power; :func:`replay` then undoes what it tells of. One file a helper,
``SESSION-PID.json``; it is there, durably, before a change is made, and goes when all of
it is undone, so whatever is interrupted can be done again.

A file gets its former content, mode and owner back, or becomes the link that it was, or
goes; but only while it still has what we wrote. Otherwise somebody else has changed it
since: then it is theirs.
"""

import fcntl
import json
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from tunstack.errors import HostError
from tunstack.host.iptables import Chain, network_namespace
from tunstack.host.paths import JOURNAL

DIRECTORY = JOURNAL


class _NotHere(Exception):
    """What a record tells of is not to be seen from the namespaces of this process."""


@dataclass(frozen=True, slots=True)
class _State:
    """What is at a path: a link, a file, or nothing, where both are ``None``."""

    link: str | None = None
    """What it leads to."""

    text: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @classmethod
    def of(cls, path: str) -> Self:
        """Look.

        Raises:
            OSError: it is neither a link nor a file, or cannot be read.
        """
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return cls()
        if stat.S_ISLNK(found.st_mode):
            return cls(link=os.readlink(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no file")
        text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
        return cls(None, text, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def is_like(self, other: Self) -> bool:
        """Whether both are the same link, the same text, or nothing."""
        return (self.link, self.text) == (other.link, other.text)


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that has, or is about to get, a text of ours."""

    path: str
    before: _State

    ours: tuple[str, ...]
    """Any of these it may have."""

    mount: tuple[int, int] | None
    """Device and inode where the path is a mount point, which cannot be replaced."""

    def make(self) -> None:
        """Write the last of :attr:`ours`.

        Raises:
            OSError: it was refused. The path is what it was, or :meth:`undo` knows it.
        """
        self._put(replace(self.before, link=None, text=self.ours[-1]))

    def undo(self) -> str | None:
        """Make it what it was; say so, or why not, where there is something to say.

        Raises:
            OSError: it was refused.
            _NotHere: another file lies there in this mount namespace.
        """
        _unlink(self._draft)
        now = _State.of(self.path)
        if now.is_like(self.before):
            return None
        if not self.has_ours(now):
            if self.mount and now.text is not None and self.mount != _identity(self.path):
                raise _NotHere
            return f"{self.path} was changed by somebody else since: left as it is"
        if self.before.is_like(_State()):
            os.unlink(self.path)
            _sync(os.path.dirname(self.path))
            return f"{self.path} removed"
        self._put(self.before)
        return f"{self.path} restored"

    def has_ours(self, now: _State) -> bool:
        """Whether it has a text of ours, be it that writing in place was interrupted."""
        if now.text is None:
            return False
        if self.mount is None:
            return now.text in self.ours
        texts = (*self.ours, self.before.text or "")
        return any(_is_between(now.text, new, old) for new in texts for old in texts)

    @property
    def _draft(self) -> str:
        directory, name = os.path.split(self.path)
        return os.path.join(directory, f".{name}.tunstack")

    def _put(self, state: _State) -> None:
        if self.mount is not None:
            _write_in_place(self.path, _octets(state))
            return
        _unlink(self._draft)
        try:
            if state.link is not None:
                os.symlink(state.link, self._draft)
            else:
                _write_new(self._draft, state, like=self.path)
            os.rename(self._draft, self.path)
        except BaseException:
            _unlink(self._draft)
            raise
        _sync(os.path.dirname(self.path))


def _is_between(text: str, new: str, old: str) -> bool:
    """Whether ``text`` is ``old``, in part overwritten from its beginning by ``new``."""
    same = 0
    while text[same : same + 1] == new[same : same + 1] != "":
        same += 1
    return text[same:] == old[same:]


def _write_in_place(path: str, data: bytes) -> None:
    """Overwrite a file, and cut it afterwards, so that it is never empty."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], written)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_new(path: str, state: _State, *, like: str) -> None:
    """Write a new file, durably, with the label that SELinux has for another."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(_octets(state))
        with suppress(OSError, AttributeError):  # macOS has none
            label = os.getxattr(like, "security.selinux", follow_symlinks=False)
            os.setxattr(file.fileno(), "security.selinux", label)
        os.fchown(file.fileno(), state.uid, state.gid)
        os.fchmod(file.fileno(), state.mode)
        file.flush()
        os.fsync(file.fileno())


def _octets(state: _State) -> bytes:
    return (state.text or "").encode("utf-8", "surrogateescape")


Entry = FileChange | Chain


class Journal:
    """What one helper has changed and must undo.

    Args:
        session: its name.
        directory: where the records of all helpers are.
    """

    def __init__(self, session: str, directory: Path = DIRECTORY) -> None:
        self.path = directory / f"{session}-{os.getpid()}.json"
        self._entries: list[Entry] = []

    def record(self, chain: Chain) -> None:
        """Write down, durably, what is about to be made.

        Raises:
            HostError: it cannot be written; then it must not be made.
        """
        with _locked(self.path.parent):
            self._keep([*self._entries, chain])

    def write(self, path: Path, text: str) -> None:
        """Write a file, and down before what it was.

        A second text replaces the first, and undoing gives what was before both. Where
        somebody else has changed the file in between, theirs is what comes back.

        Raises:
            HostError: it cannot be written, or another helper has it; it is what it was
                without us.
        """
        try:
            with _locked(self.path.parent):
                self._check_free(path)
                change = self._change(str(path), text)
                others = [entry for entry in self._entries if not _is_of(entry, path)]
                self._keep([*others, change])
            try:
                change.make()
            except BaseException:
                self.undo([path])
                raise
        except OSError as exc:
            raise HostError(f"{path} cannot be written: {exc.strerror or exc}") from exc

    def before(self, path: Path) -> str:
        """Read what a file would have without us; nothing where there is none."""
        state = _State.of(str(path))
        for entry in self._entries:
            if isinstance(entry, FileChange) and entry.path == str(path):
                state = entry.before if entry.has_ours(state) else state
        if state.link is None:
            return state.text or ""
        try:
            return (path.parent / state.link).read_text(errors="surrogateescape")
        except OSError:
            return ""

    @property
    def files(self) -> list[Path]:
        """The files that are, as far as we know, ours."""
        return [Path(one.path) for one in self._entries if isinstance(one, FileChange)]

    def undo(self, files: Collection[Path] | None = None) -> list[str]:
        """Undo all of it, or what was done to some files, the last first.

        Returns what was done, and what could not be, a line each.
        """
        wanted = [
            entry
            for entry in self._entries
            if files is None or any(_is_of(entry, path) for path in files)
        ]
        if not wanted:
            return []
        try:
            with _locked(self.path.parent):
                lines, left = _undo(wanted, same_boot=True)
                gone = [entry for entry in wanted if entry not in left]
                self._keep([entry for entry in self._entries if entry not in gone])
        except (OSError, HostError) as exc:
            return [f"not undone: {exc}"]
        return lines

    def _change(self, path: str, text: str) -> FileChange:
        now = _State.of(path)
        for entry in self._entries:
            if isinstance(entry, FileChange) and entry.path == path and entry.has_ours(now):
                return replace(entry, ours=(entry.ours[-1], text))
        mount = _identity(path) if _is_mount_point(path) else None
        return FileChange(path, now, (text,), mount)

    def _check_free(self, path: Path) -> None:
        for record in _records(self.path.parent):
            if (
                record.file != self.path
                and record.alive
                and any(_is_of(entry, path) for entry in record.entries)
            ):
                raise HostError(
                    f"{path} belongs to another session of tunstack ({record.file.stem}); "
                    "nothing was changed"
                )

    def _keep(self, entries: list[Entry]) -> None:
        try:
            head = {"pid": os.getpid(), "started": started(os.getpid()), "boot": _boot()}
            _save(self.path, head, entries)
        except OSError as exc:
            raise HostError(f"{self.path} cannot be written: {exc.strerror}") from exc
        self._entries = entries


def replay(directory: Path = DIRECTORY) -> list[str]:
    """Undo what helpers have left that are no more.

    Returns what was done, and what could not be, a line each. Nothing makes it raise: a
    record that cannot be read is reported and stays.
    """
    lines: list[str] = []
    try:
        if not directory.is_dir():
            return []
        with _locked(directory):
            for draft in directory.glob("*.new"):  # whoever writes one has the lock
                draft.unlink()
            for record in _records(directory):
                if record.complaint:
                    lines.append(record.complaint)
                elif not record.alive:
                    done, left = _undo(record.entries, same_boot=record.same_boot)
                    lines += done
                    if left != record.entries or not left:
                        _save(record.file, record.head, left)
    except (OSError, HostError) as exc:
        lines.append(f"{directory}: {exc}")
    return lines


@dataclass(frozen=True, slots=True)
class Left:
    """A change that a helper has left behind."""

    text: str
    """What it is, for people."""

    undoable: bool
    """Whether :func:`replay` can undo it."""


def left_behind(directory: Path = DIRECTORY) -> list[Left]:
    """Say what helpers have left here that are no more, and change nothing.

    Raises:
        PermissionError: only root may look.
        HostError: it cannot be looked at.
    """
    if not directory.is_dir():
        return []
    os.listdir(directory)  # glob would take a refusal for an empty directory
    found = []
    with _locked(directory):
        for record in _records(directory):
            if record.complaint:
                found.append(Left(record.complaint, undoable=False))
            elif not record.alive:
                found += [
                    Left(f"{what} is still as session {record.file.stem} has left it", True)
                    for entry in record.entries
                    if (what := _remains(entry, same_boot=record.same_boot))
                ]
    return found


def _remains(entry: Entry, *, same_boot: bool) -> str | None:
    """Name what there is of an entry that can be undone here."""
    if isinstance(entry, Chain):
        here = same_boot and entry.namespace == network_namespace()
        return f"the chain {entry.name} of {entry.program}" if here else None
    try:
        now = _State.of(entry.path)
    except OSError:
        return None
    ours = entry.has_ours(now) and not now.is_like(entry.before)
    return entry.path if ours else None


def _undo(entries: list[Entry], *, same_boot: bool) -> tuple[list[str], list[Entry]]:
    """Undo entries; give what to say, and those that remain to be undone."""
    lines: list[str] = []
    left: list[Entry] = []
    for entry in reversed(entries):
        try:
            if isinstance(entry, FileChange):
                line = entry.undo()
            else:
                line = _remove(entry, same_boot=same_boot)
        except _NotHere:
            left.insert(0, entry)
        except (OSError, HostError, TypeError, ValueError) as exc:
            left.insert(0, entry)
            lines.append(f"not undone: {exc}")
        else:
            lines += [line] if line else []
    return lines, left


def _remove(chain: Chain, *, same_boot: bool) -> str | None:
    if not same_boot:
        return None
    if chain.namespace != network_namespace():
        raise _NotHere
    return f"{chain.program}: {chain.name} removed" if chain.remove() else None


@dataclass(frozen=True, slots=True)
class _Record:
    """What one helper has written down."""

    file: Path
    head: dict[str, Any]
    entries: list[Entry]
    same_boot: bool = False
    alive: bool = False
    """Whether whoever wrote it is still there: its pid may be another's by now."""

    complaint: str | None = None


def _records(directory: Path) -> Iterator[_Record]:
    for file in sorted(directory.glob("*.json")):
        try:
            yield _read(file)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            complaint = f"{file} cannot be understood: {exc!r}"
            yield _Record(file, {}, [], complaint=complaint)


def _read(file: Path) -> _Record:
    head = json.loads(file.read_bytes())
    entries = [_entry(**entry) for entry in head.pop("entries")]
    same_boot = head["boot"] == _boot()
    alive = head["started"] == started(int(head["pid"])) and same_boot
    return _Record(file, head, entries, same_boot, alive)


def _entry(*, kind: str, **fields: Any) -> Entry:
    if kind == "chain":
        return Chain(**fields)
    if kind != "file":
        raise ValueError(kind)
    fields["before"] = _State(**fields["before"])
    fields["ours"] = tuple(fields["ours"])
    fields["mount"] = fields["mount"] and tuple(fields["mount"])
    return FileChange(**fields)


def _save(path: Path, head: dict[str, Any], entries: list[Entry]) -> None:
    """Write a record, durably, in place of the one before; without entries it goes."""
    if not entries:
        _unlink(path)
        return
    written = [
        {"kind": "file" if isinstance(entry, FileChange) else "chain", **asdict(entry)}
        for entry in entries
    ]
    draft = path.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(draft, flags, 0o600), "w") as file:
        json.dump({**head, "entries": written}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync(path.parent)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other processes off a directory, which is made where it is missing.

    Raises:
        HostError: it cannot be made or opened.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise HostError(f"{directory} cannot be opened: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_of(entry: Entry, path: Path) -> bool:
    return isinstance(entry, FileChange) and entry.path == str(path)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_mount_point(path: str) -> bool:
    """Whether something is mounted just here (proc_pid_mountinfo(5)): a file, for one."""
    directory, name = os.path.split(path)
    real = os.path.join(os.path.realpath(directory), name)
    escaped = real.replace("\\", r"\134").replace(" ", r"\040")
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    return os.fsencode(escaped) in (line.split()[4] for line in lines)


def started(pid: int) -> int | None:
    """Give when a process began, in ticks since the boot.

    ``None`` when it is no more, be it that nobody has waited for it yet.
    """
    fields = stat_of(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def stat_of(pid: int) -> list[bytes] | None:
    """Read a process's fields from the third on, its state (proc_pid_stat(5)).

    ``None`` when it is no more.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return line.rpartition(b")")[2].split()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _unlink(path: str | Path) -> None:
    if os.path.lexists(path):  # else a read-only file system would complain
        os.unlink(path)


def _sync(directory: str | Path) -> None:
    """Make what was renamed or removed there durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
