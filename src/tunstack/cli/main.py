"""The door: finds the command, and says its errors in two lines.

Each command is a module of this package with a click command of the same name, which
is imported when it is called for, and for `--help` with all others: what only the command
itself needs, and takes long to load, is imported in it.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from tunstack._version import PRODUCT
from tunstack.errors import TunstackError, UsageError

_COMMANDS = (
    "connect",
    "status",
    "quit",
    "install",
    "uninstall",
    "version",
    "manager",
    "demo",
    "config",
    "dns",
    "doctor",
    "replay",
    "bench",
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"tunstack.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(PRODUCT, message="tunstack %(version)s")
def tunstack() -> None:
    """Connect this computer to a Kubernetes cluster.

    \b
    Exit codes: 0 done, 1 not connected, 2 usage, 3 configuration, 4 privilege,
    5 this host, 6 Kubernetes, 7 manager or tunnel, 8 not allowed, 70 a bug.

    \b
    Shell completion: eval "$(_TUNSTACK_COMPLETE=bash_source tunstack)",
    or zsh_source, or fish_source.
    """  # noqa: D301 - click wants the character, not its name


# The C core of gRPC would explain failed handshakes on standard error, beside us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code. Errors go to standard error."""
    try:
        code = tunstack.main(arguments, prog_name="tunstack", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as exc:
        # Click's, when whoever read our output has gone: nobody is left to tell.
        return exc.code if isinstance(exc.code, int) else 1
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        path = context.command_path if context is not None else "tunstack"
        return _report(UsageError(exc.format_message(), hint=f"see `{path} --help`"))
    except (click.Abort, KeyboardInterrupt):
        return 130
    except TunstackError as error:
        return _report(error)
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is a bug
        return _report(TunstackError(f"{type(exc).__name__}: {exc}"))


def _report(error: TunstackError) -> int:
    if os.environ.get("TUNSTACK_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    click.echo(f"error: {_one_line(str(error))}", err=True)
    click.echo(f"hint: {_one_line(error.hint)}", err=True)
    return error.exit_code


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Be the command ``tunstack``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
