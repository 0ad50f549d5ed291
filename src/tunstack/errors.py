"""Every error a caller may meet, each with its exit code and a hint.

Bad input from a wire is a value and never one of these: an exception means that
somebody must act. Exit codes are part of the command line's contract; a room that
meets a library's exception translates it here with ``raise ... from exc``.
"""


class TunstackError(Exception):
    """Something that somebody must act on.

    Args:
        message: what happened, and what was not touched, in one line.
        hint: what to do about it, in one line.
    """

    exit_code = 70
    hint = "this is a bug in tunstack: please report it with TUNSTACK_DEBUG=1"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class NotConnected(TunstackError):
    """There is no session to act on."""

    exit_code = 1
    hint = "run `tunstack connect` first"


class UsageError(TunstackError):
    """The command line asks for something that cannot be."""

    exit_code = 2
    hint = "see `tunstack --help`"


class ConfigError(TunstackError):
    """A setting is unknown, malformed or out of range."""

    exit_code = 3
    hint = "see docs/configuration.md"


class PrivilegeError(TunstackError):
    """The operating system wants more rights than the caller has."""

    exit_code = 4
    hint = "run it with sudo"


class HostError(TunstackError):
    """Something on this computer: device, routes, resolver, daemons."""

    exit_code = 5
    hint = "see the log that `tunstack status` names"


class ClusterError(TunstackError):
    """Kubernetes: the API is unreachable, forbids, or has no manager."""

    exit_code = 6
    hint = "check the kubeconfig and its context"


class TunnelError(TunstackError):
    """The manager is unreachable, silent, or speaks another protocol."""

    exit_code = 7
    hint = "check that the manager runs and that its address is right"


class AuthError(TunstackError):
    """The other end does not know the caller or does not let it in."""

    exit_code = 8
    hint = "check the token file and the certificate authority"


_BY_CODE: dict[int, type[TunstackError]] = {
    kind.exit_code: kind
    for kind in (
        NotConnected,
        UsageError,
        ConfigError,
        PrivilegeError,
        HostError,
        ClusterError,
        TunnelError,
        AuthError,
    )
}


def from_code(exit_code: int, message: str, hint: str) -> TunstackError:
    """Rebuild an error that another process of ours reported.

    Args:
        exit_code: its exit code; an unknown one gives a plain :class:`TunstackError`.
        message: what happened.
        hint: what to do.
    """
    return _BY_CODE.get(exit_code, TunstackError)(message, hint=hint)
