"""HTTP/2 alone, both ends, without sockets. The question: what does a message cost?"""

import pytest

from benchmarks import workloads

HTTP2 = workloads.of("http2")


@pytest.mark.parametrize("name", HTTP2)
def bench_http2(benchmark, name):
    workloads.measure(benchmark, HTTP2[name])
