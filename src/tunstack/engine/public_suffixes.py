"""Labels under which anybody may register a name."""

from functools import cache
from pathlib import Path

import publicsuffixlist


@cache
def single_labels() -> frozenset[str]:
    """Give the single labels of the public suffix list's ICANN section: ``rs``, ``dev``.

    Read from the library's file: its tables of everything take ten times as long, and no
    namespace has a dot in its name.
    """
    found = set()
    with open(Path(publicsuffixlist.PSLFILE), encoding="utf-8") as file:
        for line in file:
            if line.startswith("// ===END ICANN"):
                break
            suffix = line.strip().removeprefix("*.")
            if suffix and not suffix.startswith(("//", "!")) and "." not in suffix:
                found.add(suffix.encode("idna").decode())
    return frozenset(found)
