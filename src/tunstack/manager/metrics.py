"""What a manager tells Prometheus, for those who ask it to (``--metrics``)."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tunstack.errors import HostError


class Metrics(Collector):
    """Serves ``/metrics`` over HTTP in a thread of its own, which only reads numbers.

    Args:
        host: address to listen on.
        port: 0 picks one; see :attr:`port`.
        sessions: how many there are, those whose client is away included.
        flows: how many targets are open.
        opened: how many have been since the start.

    Raises:
        HostError: the address cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sessions: Callable[[], int],
        flows: Callable[[], int],
        opened: Callable[[], int],
    ) -> None:
        self._sessions = sessions
        self._flows = flows
        self._opened = opened
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as exc:
            raise HostError(
                f"cannot serve metrics on {host}:{port}: {exc.strerror}",
                hint="choose another address with --metrics",
            ) from exc
        self.port: int = self._server.server_port

    def collect(self) -> Iterator[Metric]:
        """Give the numbers of now."""
        yield GaugeMetricFamily(
            "tunstack_sessions", "Sessions with clients.", value=self._sessions()
        )
        yield GaugeMetricFamily(
            "tunstack_flows", "Open connections, associations and echoes.", self._flows()
        )
        yield CounterMetricFamily(
            "tunstack_flows_opened", "Flows that got a socket.", self._opened()
        )

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
