"""What the environment says before anything else is loaded."""

import os

FASTPATH = os.environ.get("TUNSTACK_FASTPATH", "")
"""``kernels`` or ``reference``: which arithmetic to use; empty takes what is built."""
