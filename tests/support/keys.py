"""A certificate that signs itself."""

import subprocess
from pathlib import Path

from tunstack.rpc.channel import Keys


def make_keys(folder: Path, name: str) -> Keys:
    """Make a certificate and its key, as files in ``folder``.

    Args:
        folder: where they go.
        name: what it certifies: ``DNS:manager.test``, ``IP:127.0.0.1``.
    """
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        f" -keyout {folder}/key -out {folder}/cert -days 2 -subj /CN=manager"
        f" -addext subjectAltName={name}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return Keys(certificate=folder / "cert", key=folder / "key")
