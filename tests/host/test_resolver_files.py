"""Files that name our server, and what they name it beside."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.host.namespaces import (
    CLONE_NEWNET,
    forked,
    mount,
    unshare,
    with_mounts_of_its_own,
)
from tunstack.dns.resolv_conf import parse
from tunstack.errors import HostError
from tunstack.host.journal import Journal
from tunstack.host.resolver_files import (
    MACOS_SEARCH,
    macos_files,
    set_macos_files,
    set_resolv_conf,
)

SERVERS = ["fd74::2", "198.18.0.2"]
SEARCH = ["default.svc.cluster.local", "svc.cluster.local"]

BEFORE = """\
# theirs
nameserver 192.0.2.1
nameserver 192.0.2.2
search corp.example lan
options edns0 timeout:3
"""


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal("dev", tmp_path / "journal")


@pytest.fixture
def path(tmp_path) -> Path:
    made = tmp_path / "resolv.conf"
    made.write_text(BEFORE)
    return made


def test_our_server_is_the_only_one_and_what_else_there_was_stays(path, journal):
    set_resolv_conf(SERVERS, SEARCH, "dev", journal, path, ())
    said = parse(path.read_text())
    assert said.name_servers == ("198.18.0.2",)
    assert said.search == (*SEARCH, "corp.example", "lan")
    assert said.options == ("edns0", "timeout:3")
    journal.undo()
    assert path.read_text() == BEFORE


def test_the_file_says_who_wrote_it_and_where_the_one_before_is(path, journal):
    set_resolv_conf(SERVERS, SEARCH, "dev", journal, path, ())
    comment = path.read_text().partition("nameserver")[0]
    assert "tunstack, session dev" in comment
    assert str(journal.path) in comment
    assert BEFORE.splitlines()[1] in journal.path.read_text()
    journal.undo()


def test_without_ipv4_our_ipv6_address_is_named(path, journal):
    set_resolv_conf(SERVERS[:1], [], "dev", journal, path, ())
    assert parse(path.read_text()).name_servers == ("fd74::2",)
    journal.undo()


def test_no_search_stays_no_search(path, journal):
    path.write_text("nameserver 192.0.2.1\nsearch .\n")
    set_resolv_conf(SERVERS, [], "dev", journal, path, ())
    assert parse(path.read_text()).search == (".",)
    set_resolv_conf(SERVERS, ["default"], "dev", journal, path, ())
    assert parse(path.read_text()).search == ("default",)
    journal.undo()


def test_a_second_time_the_host_s_own_words_are_taken_and_not_ours(path, journal):
    for search in (["one"], ["two"], ["three"]):
        set_resolv_conf(SERVERS, search, "dev", journal, path, ())
    said = parse(path.read_text())
    assert said.search == ("three", "corp.example", "lan")
    assert said.options == ("edns0", "timeout:3")
    journal.undo()
    assert path.read_text() == BEFORE


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path, path, journal):
    link = tmp_path / "etc/resolv.conf"
    link.parent.mkdir()
    link.symlink_to("../resolv.conf")
    for search in ([], ["default"]):
        set_resolv_conf(SERVERS, search, "dev", journal, link, ())
        said = parse(link.read_text())
        assert said.search == (*search, "corp.example", "lan")
        assert path.read_text() == BEFORE
    journal.undo()
    assert os.readlink(link) == "../resolv.conf"


@pytest.mark.parametrize("kind", ["absent", "dangling"])
def test_where_there_is_none_one_is_written(tmp_path, journal, kind):
    path = tmp_path / "resolv.conf"
    if kind == "dangling":
        path.symlink_to("/nowhere/resolv.conf")
    set_resolv_conf(SERVERS, ["default"], "dev", journal, path, ())
    said = parse(path.read_text())
    assert (said.name_servers, said.search) == (("198.18.0.2",), ("default",))
    journal.undo()
    assert path.is_symlink() == (kind == "dangling")
    assert not path.exists()


@pytest.mark.system
def test_a_resolv_conf_that_those_outside_read_as_well_is_refused(path, journal):
    """As under ``ip netns exec`` without one of the namespace's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")

    def of_another_network() -> None:
        unshare(CLONE_NEWNET)
        with pytest.raises(HostError, match="outside of this network namespace"):
            set_resolv_conf(SERVERS, [], "dev", journal, path)

    def of_another_network_with_its_own_file() -> None:
        unshare(CLONE_NEWNET)
        other = path.with_name("other")
        other.write_text("search own.example\n")
        mount(other, path, "--bind")
        set_resolv_conf(SERVERS, [], "dev", journal, path)
        assert parse(other.read_text()).name_servers == ("198.18.0.2",)
        journal.undo()
        assert other.read_text() == "search own.example\n"

    forked(of_another_network)
    with_mounts_of_its_own(of_another_network)
    with_mounts_of_its_own(of_another_network_with_its_own_file)
    assert path.read_text() == BEFORE


@pytest.mark.system
def test_in_the_network_namespace_of_all_it_is_written(path, journal):
    set_resolv_conf(SERVERS, [], "dev", journal, path, [os.getpid()])
    assert path.read_text() != BEFORE
    journal.undo()


@pytest.mark.system
def test_a_file_that_nobody_may_change_is_an_error_and_stays(path, journal):
    done = subprocess.run(["chattr", "+i", path], stderr=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        with pytest.raises(HostError, match="cannot be written"):
            set_resolv_conf(SERVERS, [], "dev", journal, path, ())
        assert not journal.path.exists()
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert path.read_text() == BEFORE


MACOS = {
    "cluster.local": (
        "# By tunstack\ndomain cluster.local\nnameserver 198.18.0.2\nsearch_order 1\n"
    ),
    "svc": "# By tunstack\ndomain svc\nnameserver 198.18.0.2\nsearch_order 1\n",
    MACOS_SEARCH: (
        f"# By tunstack\ndomain {MACOS_SEARCH}\nnameserver 198.18.0.2\n"
        "search default.svc.cluster.local svc.cluster.local\n"
    ),
}


def test_macos_has_a_file_for_each_domain_and_one_for_search():
    assert macos_files(["198.18.0.2"], ["cluster.local", "svc"], SEARCH) == MACOS


def test_macos_is_told_the_port_unless_it_is_the_usual_one():
    (text,) = macos_files(["127.0.0.1", "::1"], ["svc"], [], 5353).values()
    assert text.splitlines()[2:5] == ["nameserver 127.0.0.1", "nameserver ::1", "port 5353"]


def test_macos_without_search_domains_has_no_file_for_them():
    assert list(macos_files(["198.18.0.2"], ["svc"], [])) == ["svc"]


@pytest.fixture
def resolver(tmp_path) -> Path:
    return tmp_path / "resolver"


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_macos_files_are_written_replaced_and_removed(resolver, journal):
    assert set_macos_files(MACOS, journal, resolver) == []
    assert texts(resolver) == MACOS
    assert stat.S_IMODE(resolver.stat().st_mode) == 0o755
    fewer = {"svc": "# By tunstack\nnameserver 198.18.0.6\n", "default": MACOS["svc"]}
    assert set_macos_files(fewer, journal, resolver) == []
    assert texts(resolver) == fewer
    journal.undo()
    assert texts(resolver) == {}


def test_a_macos_file_of_somebody_else_is_left_alone_and_said(resolver, journal):
    resolver.mkdir()
    (resolver / "svc").write_text("nameserver 192.0.2.1\n")
    (resolver / "cluster.local").symlink_to("nowhere")
    assert set_macos_files(MACOS, journal, resolver) == ["cluster.local", "svc"]
    assert (resolver / "svc").read_text() == "nameserver 192.0.2.1\n"
    assert (resolver / MACOS_SEARCH).read_text() == MACOS[MACOS_SEARCH]
    journal.undo()
    assert sorted(os.listdir(resolver)) == ["cluster.local", "svc"]
