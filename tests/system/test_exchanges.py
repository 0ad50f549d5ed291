"""The exchanges of ``tests/stack`` through a real device, engine, manager and target."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.lab import V4, V6, Lab
from tests.support.packetdrill import notation, tunnel
from tests.support.packetdrill.play import Mismatch
from tests.support.packetdrill.virtual import MTU

EXCHANGES = Path(__file__).parents[1] / "stack" / "exchanges"
SCRIPTS = [
    script
    for script in map(notation.read, sorted(EXCHANGES.glob("**/*.pkt")))
    if "virtual" not in script.directives
]
SITES = {4: V4, 6: V6}
CASES = [
    pytest.param(version, script.name, id=f"{script.name[:-4]}-ipv{version}")
    for version in SITES
    for script in SCRIPTS
    if version in script.versions
]
AT_ONCE = 16
"""They wait most of the time, so many are played at a time."""

Played = dict[tuple[int, str], Future[None]]


def play_all(lab: Lab, version: int) -> Played:
    """Play every script for one version of IP, through a session of its own."""
    session = lab.connect("--no-offload", "--mtu", str(MTU[version]))
    peers = tunnel.Peers(lab, MTU[version])

    def play(script: notation.Script) -> None:
        try:
            tunnel.run(script, lab, SITES[version], peers)
        except Mismatch:
            # Its timers are real: what this computer was too busy for may do once more.
            tunnel.run(script, lab, SITES[version], peers)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = {
            (version, script.name): pool.submit(play, script)
            for script in SCRIPTS
            if version in script.versions
        }
    peers.close()
    lab.quit()
    session.wait(10)
    return played


@pytest.fixture(scope="module")
def played(bare: Lab) -> Played:
    """What came of each script, by version of IP and name."""
    bare.manage()
    return {**play_all(bare, 4), **play_all(bare, 6)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("version", "name"), CASES)
def test_the_tunnel_keeps_to_the_script(played: Played, version: int, name: str) -> None:
    played[version, name].result()


def test_none_of_it_was_a_surprise_to_the_engine(bare: Lab) -> None:
    for log in (*bare.logs.iterdir(), *bare.engine_logs()):
        assert "Traceback" not in log.read_text(errors="replace")
