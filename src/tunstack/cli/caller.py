"""Who calls: under sudo it is not root whose kubeconfig counts, and who may read it."""

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The user who called the command, through sudo or not."""

    uid: int
    gid: int
    environment: Mapping[str, str]
    """As that user's programs would have it."""

    @contextmanager
    def rights(self) -> Iterator[None]:
        """Have the rights of the caller and no more, for a while."""
        if os.geteuid() == self.uid:
            yield
            return
        groups = os.getgroups()
        own = os.getegid()
        os.setgroups(os.getgrouplist(self.environment["USER"], self.gid))
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(own)
            os.setgroups(groups)


def find() -> Caller:
    """Say who calls."""
    uid = int(os.environ.get("SUDO_UID", 0)) if os.geteuid() == 0 else os.geteuid()
    environment = dict(os.environ)
    if "KUBECONFIG" in environment:
        # The engine, which may have to read it again, is elsewhere.
        files = environment["KUBECONFIG"].split(os.pathsep)
        absolute = (os.path.abspath(file) for file in files if file)
        environment["KUBECONFIG"] = os.pathsep.join(absolute)
    if uid == os.geteuid():
        return Caller(uid, os.getegid(), environment)
    user = pwd.getpwuid(uid)
    environment |= dict.fromkeys(("USER", "LOGNAME"), user.pw_name)
    environment["HOME"] = user.pw_dir
    return Caller(uid, user.pw_gid, environment)
