"""The messages of ``testing.proto``, generated on the way."""

import grpc

pb = grpc.protos("tests/interop/testing.proto")
