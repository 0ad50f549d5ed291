"""Exchanges with a scripted peer, in virtual time; each file says what it checks."""

import re
from pathlib import Path

import pytest

from tests.support.packetdrill import notation, virtual

FILES = sorted(Path(__file__).with_name("exchanges").glob("**/*.pkt"))
CASES = [
    pytest.param(script, version, id=f"{script.name.removesuffix('.pkt')}-ipv{version}")
    for script in map(notation.read, FILES)
    for version in script.versions
]


@pytest.mark.parametrize(("script", "version"), CASES)
def test_the_stack_keeps_to_the_script(script: notation.Script, version: int) -> None:
    virtual.run(script, version)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_exchange_is_named_after_what_it_cites(file: Path) -> None:
    head = file.read_text().partition("\n\n")[0].replace("\n//", "")
    cited = re.match(r"// RFC (\d+)(?:, section (\d+(?:\.\d+)*))?\b", head)
    assert cited is not None
    assert file.name.startswith(
        "-".join(["rfc" + cited[1], *filter(None, cited.groups()[1:])])
    )
