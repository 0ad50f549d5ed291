from pathlib import Path

import pytest

from tunstack.errors import ConfigError, UsageError
from tunstack.manager.config import ManagerConfig

TLS = {"tls_cert": Path("cert"), "tls_key": Path("key")}
TOKEN = {"token_file": Path("token")}


@pytest.mark.parametrize(
    ("host", "settings", "allowed"),
    [
        ("127.0.0.1", {}, True),
        ("127.9.9.9", {}, True),
        ("::1", {}, True),
        ("localhost", {}, True),
        ("0.0.0.0", {}, False),
        ("::", {}, False),
        ("10.1.2.3", {}, False),
        ("manager.example", {}, False),
        ("0.0.0.0", TLS, False),
        ("0.0.0.0", TOKEN, False),
        ("0.0.0.0", TLS | TOKEN, True),
        ("0.0.0.0", {"insecure": True}, True),
        ("10.1.2.3", {"insecure": True} | TOKEN, True),
    ],
)
def test_it_listens_where_strangers_are_only_protected_or_when_told(
    host, settings, allowed
):
    if allowed:
        assert ManagerConfig(host=host, **settings).host == host
    else:
        with pytest.raises(UsageError, match=host) as caught:
            ManagerConfig(host=host, **settings)
        assert "--insecure" in caught.value.hint


@pytest.mark.parametrize("half", [{"tls_cert": Path("cert")}, {"tls_key": Path("key")}])
def test_half_a_key_is_refused(half):
    with pytest.raises(UsageError, match="both"):
        ManagerConfig(**half)


@pytest.mark.parametrize(
    "settings",
    [{"sessions": 0}, {"flows": 0}, {"flow_buffer": 1}, {"hello": 0}, {"dial": -1}],
)
def test_a_limit_or_time_that_cannot_be_is_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ManagerConfig(**settings)
