"""The same tests on the kernels and on their twins."""

import pytest


@pytest.fixture(params=["reference", "kernels"])
def impl(request):
    return pytest.importorskip(f"tunstack._fastpath.{request.param}", reason="not built")


@pytest.fixture
def kernels():
    return pytest.importorskip("tunstack._fastpath.kernels", reason="not built")
