"""Which layer wins, and what is said about a setting that cannot be."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from tunstack.cli import settings
from tunstack.config import KiB, MiB, defaults
from tunstack.errors import ConfigError


def load(tmp_path, toml="", environment=None, command_line=None):
    file = tmp_path / "config.toml"
    file.write_text(toml)
    return settings.load(command_line or {}, environment or {}, file)


@pytest.mark.parametrize(
    ("toml", "environment", "command_line", "mtu", "source"),
    [
        ("", {}, {}, 65_520, "default"),
        ("[routing]\nmtu = 1300", {}, {}, 1300, "config.toml"),
        ("", {"TUNSTACK_ROUTING_MTU": "1400"}, {}, 1400, "TUNSTACK_ROUTING_MTU"),
        ("", {}, {"routing.mtu": 1500}, 1500, "command line"),
        (
            "[routing]\nmtu = 1300",
            {"TUNSTACK_ROUTING_MTU": "1400"},
            {},
            1400,
            "TUNSTACK_ROUTING_MTU",
        ),
        (
            "[routing]\nmtu = 1300",
            {"TUNSTACK_ROUTING_MTU": "1400"},
            {"routing.mtu": 1500},
            1500,
            "command line",
        ),
    ],
)
def test_the_higher_layer_wins_and_is_named(
    tmp_path, toml, environment, command_line, mtu, source
):
    loaded = load(tmp_path, toml, environment, command_line)
    assert loaded.config.routing.mtu == mtu
    assert loaded.sources["routing.mtu"].endswith(source)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("TCP_ACCEPT", "eager", "eager"),
        ("TCP_RECEIVE_BUFFER", "4 MiB", 4 * MiB),
        ("TCP_SEND_BUFFER", "512KiB", 512 * KiB),
        ("ROUTING_OFFLOAD", "no", False),
        ("ROUTING_OFFLOAD", "true", True),
        ("TIMEOUTS_MANAGER_CONNECT", "1.5", 1.5),
        ("TIMEOUTS_MANAGER_CONNECT", "500ms", 0.5),
        ("TIMEOUTS_MANAGER_CONNECT", "2m", 120.0),
        (
            "ROUTING_ALSO_PROXY",
            "10.0.0.0/8, fd00::/8,192.0.2.7",
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7")),
        ),
        ("ROUTING_ALSO_PROXY", "", ()),
        ("ROUTING_DEVICE_SUBNET", "10.9.0.0/16", ip_network("10.9.0.0/16")),
    ],
)
def test_text_is_read_by_the_type_of_the_setting(tmp_path, variable, text, value):
    config = load(tmp_path, environment={f"TUNSTACK_{variable}": text}).config
    table, _, key = variable.lower().partition("_")
    assert getattr(getattr(config, table), key) == value


def test_a_list_in_the_file_is_a_toml_list(tmp_path):
    config = load(tmp_path, '[routing]\nnever_proxy = ["10.1.0.0/16", "::/0"]').config
    assert config.routing.never_proxy == (ip_network("10.1.0.0/16"), ip_network("::/0"))


def test_variables_that_are_not_named_after_a_table_do_not_count(tmp_path):
    load(tmp_path, environment={"TUNSTACK_DEBUG": "1", "TUNSTACK_FASTPATH": "reference"})


@pytest.mark.parametrize(
    ("toml", "environment", "culprit", "nearest"),
    [
        ("[tcp]\nacept = 'eager'", {}, "tcp.acept", "tcp.accept"),
        ("[tpc]\naccept = 'eager'", {}, "[tpc]", "tcp"),
        ("mtu = 1500", {}, "mtu", "routing.mtu"),
        ("[routing]\nalso-proxy = []", {}, "routing.also-proxy", "routing.also_proxy"),
        ("", {"TUNSTACK_TCP_ACEPT": "x"}, "TUNSTACK_TCP_ACEPT", "TUNSTACK_TCP_ACCEPT"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    tmp_path, toml, environment, culprit, nearest
):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, environment)
    assert culprit in str(caught.value)
    assert nearest in caught.value.hint
    assert str(caught.value).startswith((str(tmp_path), "environment"))


@pytest.mark.parametrize(
    ("toml", "environment", "parts"),
    [
        ("[routing]\nmtu = 'big'", {}, ("config.toml", "routing.mtu", "'big'")),
        ("[routing]\nmtu = true", {}, ("config.toml", "routing.mtu")),
        ("[routing]\nmtu = 100", {}, ("config.toml", "routing.mtu", "1280")),
        ("[tcp]\naccept = 1", {}, ("config.toml", "tcp.accept")),
        ("[timeouts]\nhelper = 'nan'", {}, ("config.toml", "timeouts.helper")),
        ("[routing]\nalso_proxy = 7", {}, ("config.toml", "routing.also_proxy")),
        ("routing = 7", {}, ("config.toml", "routing")),
        ("[routing", {}, ("config.toml",)),
        (
            "",
            {"TUNSTACK_ROUTING_ALSO_PROXY": "10.0.0.1/8"},
            ("TUNSTACK_ROUTING_ALSO_PROXY", "routing.also_proxy", "host bits"),
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_source_and_key(
    tmp_path, toml, environment, parts
):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, environment)
    for part in parts:
        assert part in str(caught.value)


def test_without_a_file_the_defaults_hold(tmp_path):
    loaded = settings.load({}, {}, tmp_path / "absent.toml")
    assert set(loaded.sources.values()) == {"default"}


def test_every_setting_is_documented_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    tables = {}
    for section in page.split("\n## `[")[1:]:
        name, _, text = section.partition("]`")
        tables[name] = text
    for key, default in defaults().items():
        table, _, name = key.partition(".")
        (row,) = [line for line in tables[table].splitlines() if f"| `{name}` |" in line]
        if isinstance(default, int | float | str):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert row.split("|")[2].strip() == shown
