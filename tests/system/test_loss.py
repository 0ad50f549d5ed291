"""Packets get lost, come twice and late between the kernel and the stack; octets do not."""

import statistics
from collections.abc import Callable, Iterator

import pytest

from tests.support.curl import download, upload
from tests.support.lab import TRANSPORT, Lab, Site
from tests.support.lossy import Weather

pytestmark = pytest.mark.skipif(
    TRANSPORT != "lean", reason="what loses packets is the device, not gRPC"
)

MB = 1_000_000

TRANSFERS: dict[str, Callable[[Lab, Site, int], float]] = {
    "up": upload,
    "down": lambda lab, site, length: download(lab.client, site, length),
}

OPTIONS: dict[str, tuple[str, ...]] = {
    "offload": (),
    "no offload": ("--no-offload", "--mtu", "1500"),
}

SLOWER = 4
"""Times that one packet lost in a hundred may slow a transfer down."""


@pytest.fixture(scope="module")
def place(bare: Lab) -> Lab:
    """A lab whose manager runs, and whose client is not connected."""
    bare.manage()
    return bare


@pytest.fixture(scope="module", params=OPTIONS)
def outside(place: Lab, request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Weather]]:
    """The same lab, with a session over a lossy device."""
    weather = Weather(place.directory)
    place.connect(*OPTIONS[request.param], **weather.environment)
    yield place, weather
    place.quit()


@pytest.fixture
def length(request: pytest.FixtureRequest) -> int:
    """Octets to transfer: without offload packets are forty times as many."""
    return 10 * MB if "no offload" in request.node.name else 100 * MB


@pytest.mark.parametrize("way", TRANSFERS)
@pytest.mark.parametrize("loss", [0.001, 0.01, 0.05])
def test_a_transfer_that_loses_packets_is_intact(
    outside: tuple[Lab, Weather],
    site: Site,
    loss: float,
    way: str,
    length: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab, weather = outside
    weather.set(loss=loss)
    before = weather.lost

    seconds = TRANSFERS[way](lab, site, length)

    with capsys.disabled():
        print(
            f"\n{length / MB:g} MB {way} in {seconds:.2f} s with {loss:.1%} lost:"
            f" {weather.lost - before} packets"
        )
    assert weather.lost > before or loss < 0.01  # of 1600 packets, no one may be


@pytest.mark.parametrize("way", TRANSFERS)
def test_a_transfer_whose_packets_come_late_and_twice_is_intact(
    outside: tuple[Lab, Weather], site: Site, way: str, length: int
) -> None:
    lab, weather = outside
    weather.set(loss=0.01, duplicate=0.01, reorder=0.01, delay=0.001)
    before = weather.lost
    TRANSFERS[way](lab, site, length // 5)
    assert weather.lost > before


@pytest.mark.parametrize("outside", ["offload"], indirect=True)
@pytest.mark.parametrize("way", TRANSFERS)
def test_one_packet_lost_in_a_hundred_slows_a_transfer_down_by_less_than_four(
    outside: tuple[Lab, Weather],
    site: Site,
    way: str,
    length: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab, weather = outside
    seconds: dict[float, list[float]] = {0: [], 0.01: []}
    for _ in range(5):
        for loss, taken in seconds.items():
            weather.set(loss=loss)
            taken.append(TRANSFERS[way](lab, site, length))

    clean, lossy = map(statistics.median, seconds.values())
    with capsys.disabled():
        print(f"\n{length / MB:g} MB {way}: {clean:.2f} s, {lossy:.2f} s with 1 % lost")
    assert lossy < SLOWER * clean
