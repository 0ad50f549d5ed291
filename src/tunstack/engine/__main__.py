"""``python -m tunstack.engine``: be the engine, see ``daemon.py``."""

import gc


def main() -> None:
    """Load the engine, and be it."""
    gc.disable()  # a tenth of loading is to look for garbage, where none is
    from tunstack.engine import daemon

    daemon.main()


if __name__ == "__main__":
    main()
