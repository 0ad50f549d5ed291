"""Resolver mode ``private``: a resolv.conf that only a mount namespace has.

For a process, and those it starts, that has a mount namespace of its own; root of a
user namespace will do. Nothing that another process sees changes.
"""

import ctypes
import os
from pathlib import Path

from tunstack.errors import HostError
from tunstack.host.paths import RESOLV_CONF

_AROUND = ("/run/systemd/resolve", "/run/nscd")
"""Where those listen whom the C library may ask before it reads resolv.conf."""

# linux/mount.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


def enter(text: str, directory: Path) -> None:
    """Make ``text`` this mount namespace's resolv.conf.

    Where /etc/resolv.conf is a link, what it leads to is covered, too. Where it leads
    nowhere, or is not there, all of /etc is covered by an overlay with the file in it;
    what is mounted on a file below /etc is then not to be seen.

    Args:
        text: what it shall have.
        directory: an empty one, for what is mounted; to be kept as long as the namespace.

    Raises:
        HostError: the kernel refused; the namespace may be half done.
    """
    # For what is mounted here must not show elsewhere (mount_namespaces(7)).
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    covered = [place for place in map(os.path.realpath, _AROUND) if os.path.isdir(place)]
    for place in covered:
        _mount_tmpfs(place)
    ours = directory / "resolv.conf"
    ours.write_text(text)
    ours.chmod(0o644)
    target = os.path.realpath(RESOLV_CONF)
    if not os.path.exists(target) and os.path.dirname(target) in covered:
        Path(target).touch()
    if os.path.exists(target):
        _mount(str(ours), target, None, _MS_BIND)
    else:
        _overlay(str(RESOLV_CONF.parent), directory)
        RESOLV_CONF.unlink(missing_ok=True)
        RESOLV_CONF.write_text(text)
        RESOLV_CONF.chmod(0o644)


def _overlay(place: str, directory: Path) -> None:
    """Cover a directory with one that has the same in it and can be changed."""
    layer = directory / "layer"
    layer.mkdir()
    _mount_tmpfs(str(layer))
    for name in ("upper", "work"):
        (layer / name).mkdir()
    (layer / "upper").chmod(0o755)
    options = f"lowerdir={place},upperdir={layer}/upper,workdir={layer}/work"
    _mount("overlay", place, "overlay", _MS_NOSUID | _MS_NODEV, options)


def _mount_tmpfs(place: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("tmpfs", place, "tmpfs", flags, "mode=755")


def _mount(
    source: str, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    """Call mount(2).

    Raises:
        HostError: it was refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [
        None if text is None else os.fsencode(text) for text in (source, target, kind)
    ]
    data = None if options is None else os.fsencode(options)
    if libc.mount(*arguments, ctypes.c_ulong(flags), data):
        why = os.strerror(ctypes.get_errno())
        raise HostError(f"{source} cannot be mounted on {target}: {why}")
