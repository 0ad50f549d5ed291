"""The generated code is what ``tunnel.proto`` says."""

import re
from importlib import metadata
from pathlib import Path

import pytest

import tunstack.rpc

ROOM = Path(tunstack.rpc.__file__).parent


def test_generating_again_changes_nothing(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools")
    proto = "tunstack/rpc/tunnel.proto"
    source = ROOM.parent.parent
    code = protoc.main(
        [
            "protoc",
            f"-I{source}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            proto,
        ]
    )
    assert code == 0
    for name in ("tunnel_pb2.py", "tunnel_pb2.pyi"):
        generated = (tmp_path / "tunstack" / "rpc" / name).read_text()
        committed = (ROOM / name).read_text()
        if _version(generated) != _version(committed):
            pytest.skip(f"grpcio-tools {metadata.version('grpcio-tools')} is another")
        assert generated == committed


def _version(text):
    return re.findall("^# Protobuf Python Version: (.*)$", text, re.MULTILINE)
