"""What a resolv.conf says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack.dns.resolv_conf import ResolvConf, parse


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ResolvConf()),
        ("nameserver 10.0.0.1\nnameserver fd00::1\n", ResolvConf(("10.0.0.1", "fd00::1"))),
        ("nameserver fe80::1%eth0", ResolvConf(("fe80::1%eth0",))),
        ("nameserver\t10.0.0.1 # office\r\n", ResolvConf(("10.0.0.1",))),
        ("nameserver 10.0.0.1\n" * 3, ResolvConf(("10.0.0.1",))),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(5)),
         ResolvConf(tuple(f"10.0.0.{n}" for n in range(5)))),
        ("nameserver ns.example\nnameserver\nnameserver 10.0.0.300\n", ResolvConf()),
        ("# nameserver 10.0.0.1\n;nameserver 10.0.0.2\n nameserver 10.0.0.3", ResolvConf()),
        ("nameservers 10.0.0.1\nNAMESERVER 10.0.0.2", ResolvConf()),
        ("search a.test b.test\nsearch c.test\n", ResolvConf(search=("c.test",))),
        ("search a.test\ndomain b.test c.test", ResolvConf(search=("b.test",))),
        ("domain b.test\nsearch .\n", ResolvConf(search=(".",))),
        ("search\ndomain\n", ResolvConf()),
        ("options ndots:5 edns0\noptions trust-ad # yes",
         ResolvConf(options=("ndots:5", "edns0", "trust-ad"))),
    ],
)  # fmt: skip
def test_it_is_read_as_glibc_does(text, want):
    assert parse(text) == want


@given(st.text("nameserv \t\n#;:.%0123f\0\u2028"))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_in_it_raises(text):
    parse(text)
