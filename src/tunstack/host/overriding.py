"""Overriding: questions to the host's own name servers go to our server instead.

What goes where is in ``rewrites.py``, and how in ``nftables.py`` and ``iptables.py``.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tunstack.errors import HostError
from tunstack.host.rewrites import Rewrite, plan
from tunstack.host.routes import Address

if TYPE_CHECKING:
    from tunstack.host.iptables import Chain, Iptables
    from tunstack.host.nftables import Nftables


class Overriding:
    """By nftables, or by iptables where nf_tables cannot be had.

    Args:
        device: the name of our device.
        record: called with a :class:`~tunstack.host.iptables.Chain` before that is made;
            whoever keeps the record removes it.
    """

    def __init__(self, device: str, record: "Callable[[Chain], None]") -> None:
        self._device = device
        self._record = record
        self._filter: Nftables | Iptables | None = None

    def set(
        self, servers: Sequence[Address], name_servers: Sequence[Address], port: int | None
    ) -> str:
        """Override exactly these name servers; arguments as :func:`plan`.

        Returns ``nftables`` or ``iptables``.

        Raises:
            HostError: neither can do it, and why; :meth:`close` and the record undo.
        """
        rewrites = plan(servers, name_servers, port)
        if self._filter is None:
            return self._choose(rewrites)
        self._filter.set(rewrites)
        return self._filter.NAME

    def _choose(self, rewrites: Sequence[Rewrite]) -> str:
        from tunstack.host.iptables import Iptables
        from tunstack.host.nftables import Nftables

        reasons = []
        candidates: tuple[Callable[[], Nftables | Iptables], ...] = (
            lambda: Nftables(self._device),
            lambda: Iptables(self._device, self._record),
        )
        for candidate in candidates:
            try:
                self._filter = candidate()
                self._filter.set(rewrites)
            except HostError as error:
                reasons.append(str(error))
            else:
                return self._filter.NAME
        self._filter = None
        raise HostError("; ".join(reasons))

    def close(self) -> None:
        """End it, as far as it is not recorded."""
        if self._filter is not None:
            self._filter.close()
            self._filter = None
