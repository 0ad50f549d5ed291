"""The command line, called in this process."""

import re

from tunstack.cli import main


def run(capfd, *arguments):
    """Run a command; gives its exit code, standard output and standard error."""
    code = main.run(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def assert_two_lines(err):
    """An error is one line, and what to do about it another."""
    error, hint = err.splitlines()
    assert re.fullmatch("error: .+", error)
    assert re.fullmatch("hint: .+", hint)
