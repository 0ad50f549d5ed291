"""The settings in force, and where each came from.

Command line > environment (``TUNSTACK_TCP_ACCEPT``) > the cluster's extension in the
kubeconfig > ``config.toml`` in the user's configuration directory > defaults. A source
replaces the value of the one below it, lists included.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tunstack.config import Config, build, defaults
from tunstack.errors import ConfigError

_PREFIX = "TUNSTACK_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force."""

    config: Config
    sources: Mapping[str, str]
    """By ``table.key``: ``command line``, a variable, a file, or ``default``."""


def config_file() -> Path:
    """Say where the caller's ``config.toml`` is, whether it exists or not."""
    return platformdirs.user_config_path("tunstack") / "config.toml"


def load(
    command_line: Mapping[str, object],
    environment: Mapping[str, str] = os.environ,
    file: Path | None = None,
    extension: "Layer | None" = None,
) -> Settings:
    """Put the layers on top of each other.

    Args:
        command_line: what options said, by ``table.key``.
        environment: variables; only those named after a table count.
        file: instead of the caller's ``config.toml``. It need not exist.
        extension: of the cluster in the kubeconfig.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range. Names
            the source, the key, and the nearest key there is.
    """
    values: dict[str, object] = {}
    sources = dict.fromkeys(defaults(), "default")
    layers = (
        _from_file(config_file() if file is None else file),
        extension or {},
        _from_environment(environment),
        {key: ("command line", value) for key, value in command_line.items()},
    )
    for layer in layers:
        for key, (source, value) in layer.items():
            try:
                build({key: value})
            except ConfigError as exc:
                raise ConfigError(f"{source}: {exc}") from exc
            values[key] = value
            sources[key] = source
    return Settings(build(values), sources)


Layer = dict[str, tuple[str, object]]
"""By ``table.key``: where it came from, and the value."""


def _from_file(path: Path) -> Layer:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: {exc}", hint="correct the file") from exc
    known = defaults()
    names = {key.partition(".")[0] for key in known}
    layer: Layer = {}
    for table, entries in tables.items():
        if not isinstance(entries, dict):
            keys = {key.partition(".")[2]: key for key in known}
            key = keys[_nearest(table, keys)]
            raise ConfigError(
                f"{path}: {table} stands outside of any table",
                hint=f"did you mean {key}? Write it below [{key.partition('.')[0]}]",
            )
        if table not in names:
            raise _unknown(str(path), f"table [{table}]", _nearest(table, names))
        for name, value in entries.items():
            key = f"{table}.{name}"
            if key not in known:
                raise _unknown(str(path), f"key {key}", _nearest(key, known))
            layer[key] = (str(path), value)
    return layer


def _from_environment(environment: Mapping[str, str]) -> Layer:
    """Take the variables named after a table; others of our prefix are not settings."""
    variables = {_PREFIX + key.replace(".", "_").upper(): key for key in defaults()}
    prefixes = tuple({f"{_PREFIX}{key.partition('.')[0].upper()}_" for key in defaults()})
    layer: Layer = {}
    for variable, value in environment.items():
        if variable in variables:
            layer[variables[variable]] = (variable, value)
        elif variable.startswith(prefixes):
            raise _unknown("environment", variable, _nearest(variable, variables))
    return layer


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _unknown(source: str, what: str, nearest: str) -> ConfigError:
    return ConfigError(f"{source}: there is no {what}", hint=f"did you mean {nearest}?")
