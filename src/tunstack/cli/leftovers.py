"""What helpers have done to this host that are no more: undone by who is root."""

import os

from tunstack.host import paths


def undo() -> list[str]:
    """Undo it, as root; says what was done, and what could not be, a line each."""
    if os.geteuid() != 0 or not paths.JOURNAL.exists():
        return []
    from tunstack.host import journal

    return journal.replay(journal.DIRECTORY)


def forget() -> None:
    """Remove the journal's directory where nothing is in it any more."""
    from tunstack.host import journal

    for directory in (journal.DIRECTORY, journal.DIRECTORY.parent):
        try:
            directory.rmdir()
        except OSError:
            return
