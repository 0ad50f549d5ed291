"""The host's resolver: who does what is wanted of it.

The engine decides, :class:`Resolver` does, in the helper. A mode that cannot be had is
a HostError, after which nothing of ours is there; the engine then tries the next one.

==========  =======================================  =================================
mode        what asks us                             undone by
==========  =======================================  =================================
resolved    systemd-resolved, for ``domains``        the end of the device
overriding  whatever asks one of ``name_servers``    the end of the helper (nftables),
                                                     or the journal (iptables)
files       whatever reads ``/etc/resolv.conf``; on  the journal
            macOS ``/etc/resolver``, for ``domains``
none        nothing
==========  =======================================  =================================
"""

import logging
import sys

from tunstack.errors import HostError
from tunstack.host import journal, resolver_files
from tunstack.host.overriding import Overriding
from tunstack.host.paths import RESOLV_CONF
from tunstack.host.resolver_state import ResolverState

_log = logging.getLogger(__name__)


class Resolver:
    """What one helper has done to the host's resolver. Needs root.

    Args:
        session: its name, for those who find its traces.
    """

    def __init__(self, session: str) -> None:
        self._journal = journal.Journal(session)
        self._session = session
        self._mode = "none"
        self._device: str | None = None
        self._overriding: Overriding | None = None

    def set(self, state: ResolverState, device: str) -> str | None:
        """Make the host's resolver what is wanted, and undo what was before.

        Args:
            state: all that is wanted. Idempotent.
            device: the name of our device, which must be there.

        Returns who does it: ``systemd-resolved``, ``nftables``, ``iptables`` or
        ``/etc/resolv.conf``, or ``None`` when nobody shall.

        Raises:
            HostError: it cannot be had; nothing of ours is left.
        """
        if state.mode != self._mode:
            self.undo()
        try:
            by = self._set(state, device)
        except BaseException:
            self.undo()
            raise
        self._mode, self._device = state.mode, device
        return by

    def _set(self, state: ResolverState, device: str) -> str | None:
        servers = [str(server) for server in state.servers]
        match state.mode:
            case "resolved":
                # Here, because only this mode needs an event loop.
                from tunstack.host import resolved

                resolved.set_link(device, servers, state.domains, state.search)
                return "systemd-resolved"
            case "overriding":
                if self._overriding is None:
                    self._overriding = Overriding(device, self._journal.record)
                return self._overriding.set(state.servers, state.name_servers, state.port)
            case "files" if sys.platform == "darwin":
                files = resolver_files.macos_files(servers, state.domains, state.search)
                for name in resolver_files.set_macos_files(files, self._journal):
                    _log.warning("somebody else has a file for %s", name)
                return str(resolver_files.MACOS_DIRECTORY)
            case "files":
                resolver_files.set_resolv_conf(
                    servers, state.search, self._session, self._journal
                )
                return str(RESOLV_CONF)
        return None

    def undo(self) -> None:
        """Give the host its resolver back. What cannot be undone is logged."""
        mode, self._mode = self._mode, "none"
        if mode == "resolved" and self._device is not None:
            from tunstack.host import resolved

            try:
                resolved.revert_link(self._device)
            except HostError as error:
                _log.warning("%s", error)
        if self._overriding is not None:
            self._overriding.close()
            self._overriding = None
        for line in self._journal.undo():
            _log.info("%s", line)
