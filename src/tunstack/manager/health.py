"""What others ask over HTTP: probes how the manager is, laptops whose cluster it is in.

On a port of its own, which has no flows:

``/healthz``   200 while the process serves
``/readyz``    200 while it takes sessions, else 503
``/identity``  what tells this cluster from others
"""

from collections.abc import Callable

from aiohttp import web

from tunstack.errors import HostError
from tunstack.rpc.channel import address


class Health:
    """Answers until :meth:`close`.

    Args:
        ready: whether sessions are taken.
        identity: of the cluster; empty when that is not known.
    """

    def __init__(self, ready: Callable[[], bool], identity: Callable[[], str]) -> None:
        self._ready = ready
        self._identity = identity
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._answer_health),
                web.get("/readyz", self._answer_ready),
                web.get("/identity", self._answer_identity),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            HostError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as exc:
            await self._runner.cleanup()
            raise HostError(
                f"cannot tell of health on {address(host, port)}: {exc.strerror}",
                hint="choose another address with --health",
            ) from exc
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _answer_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _answer_ready(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not taking sessions\n")

    async def _answer_identity(self, _: web.Request) -> web.Response:
        return web.Response(text=self._identity())
