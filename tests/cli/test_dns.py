"""`tunstack dns`: what is said of a question, and what of one after the other."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.support import command_line
from tests.support.command_line import assert_two_lines
from tests.support.questions import SOA, answer, query
from tunstack.dns import message as msg
from tunstack.errors import HostError

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path)}


def run(capfd, *arguments):
    return command_line.run(capfd, "dns", *arguments)


def step(to="cluster", name="echo.default.svc.cluster.local", **more):
    usual = {"seconds": 0.0012, "outcome": "NOERROR", "server": "10.96.0.10"}
    return {"to": to, "name": name, **usual, **more}


def report(*records, name="echo.default", kind="A", number=1, authority=(), **more):
    """Make what an engine tells of a question."""
    rcode = more.get("rcode", "NOERROR")
    said = answer(query(name, kind), *records, rcode=rcode, authority=authority)
    usual = {
        "time": 1_700_000_000.123,
        "name": name,
        "type": number,
        "rule": "namespace default",
        "by": "cluster",
        "rcode": rcode,
        "seconds": 0.0025,
        "steps": [step()],
        "message": said.hex(),
    }
    return usual | more


@pytest.fixture
def answers(start_engine):
    """Have an engine answer every query with a report; gives what it was asked."""
    asked = []

    def start(document):
        def dns_query(name, type):
            asked.append((name, type))
            return document

        start_engine(dns_query=dns_query)
        return asked

    return start


def test_a_query_tells_rule_ways_and_records(capfd, answers):
    asked = answers(report("@ 5 A 10.96.0.7", "@ 5 A 10.96.0.8"))
    code, out, err = run(capfd, "query", "echo.default")
    assert (code, err) == (0, "")
    assert asked == [("echo.default", 1)]
    assert out.splitlines() == [
        "echo.default A: NOERROR",
        "  rule         namespace default",
        "  cluster      10.96.0.10: echo.default.svc.cluster.local, NOERROR, 1.2 ms",
        "  answered by  the cluster, 10.96.0.10",
        "  in           2.5 ms",
        "echo.default. 5 IN A 10.96.0.7",
        "echo.default. 5 IN A 10.96.0.8",
    ]


@pytest.mark.parametrize(
    ("by", "steps", "said"),
    [
        ("cache", [], "the cache: what the cluster has said"),
        ("stale", [], "the cache, out of date: the cluster does not answer"),
        ("cluster", [step()], "the cluster, 10.96.0.10"),
        (
            "host",
            [step(outcome="NXDOMAIN"), step("host", server="192.0.2.1")],
            "this host's own name server, 192.0.2.1",
        ),
        ("settings", [], "the settings"),
        ("somebody new", [], "somebody new"),
    ],
)
def test_a_query_tells_who_answered(capfd, answers, by, steps, said):
    answers(report("@ 5 A 10.96.0.7", by=by, steps=steps))
    code, out, _ = run(capfd, "query", "echo.default")
    assert code == 0
    assert f"  answered by  {said}\n" in out


def test_that_there_is_no_such_name_is_an_answer(capfd, answers):
    answers(report(rcode="NXDOMAIN", authority=[SOA]))
    code, out, err = run(capfd, "query", "echo.default")
    assert (code, err) == (0, "")
    assert out.startswith("echo.default A: NXDOMAIN, there is no such name\n")


def test_a_name_without_such_records_is_told_from_one_that_is_not(capfd, answers):
    answers(report(kind="AAAA", number=28, authority=[SOA]))
    code, out, _ = run(capfd, "query", "echo.default", "AAAA")
    assert code == 0
    assert out.startswith("echo.default AAAA: NOERROR, but there are no AAAA records\n")


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([step(outcome="10.96.0.10 did not answer within 4 s")], 7),
        ([step("host", outcome="192.0.2.1 did not answer", server="192.0.2.1")], 5),
        ([], 5),
    ],
    ids=["the cluster", "this host", "nobody was asked"],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_no_answer_is_an_error_after_the_report(capfd, answers, steps, code, options):
    answers(report(by="nobody", rcode="SERVFAIL", steps=steps))
    got, out, err = run(capfd, "query", "echo.default", *options)
    assert got == code
    assert "SERVFAIL" in out
    assert_two_lines(err)


def test_the_reason_in_an_answer_is_told(capfd, answers):
    asked = msg.parse_question(query("echo.default"))
    said = msg.refuse(asked, msg.SERVFAIL, error=msg.NETWORK_ERROR, text="nobody is in")
    answers(report(by="nobody", rcode="SERVFAIL", steps=[], message=said.hex()))
    _, out, err = run(capfd, "query", "echo.default")
    assert "  because      nobody is in\n" in out
    assert "nobody is in" in err


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a", 1),
        ("AAAA", 28),
        ("28", 28),
        ("HTTPS", 65),
        ("TYPE65280", 65_280),
        ("type65280", 65_280),
        ("65280", 65_280),
    ],
)
def test_a_type_is_a_name_or_a_number(capfd, answers, text, number):
    asked = answers(report(number=number))
    assert run(capfd, "query", "echo.default", text)[0] == 0
    assert asked == [("echo.default", number)]


@pytest.mark.parametrize("text", ["bogus", "TYPE65536", "-1", "", "٣", "TYPE", "1.5"])
def test_a_type_that_there_is_not_is_refused(capfd, answers, text):
    asked = answers(report())
    code, out, err = run(capfd, "query", "--", "echo.default", text)
    assert (code, out, asked) == (2, "", [])
    assert_two_lines(err)


@pytest.mark.parametrize("name", ["echo..default", f"{'a' * 64}.default", "a b", "a\\.b"])
def test_what_is_no_name_is_refused(capfd, answers, name):
    asked = answers(report())
    code, out, err = run(capfd, "query", name)
    assert (code, out, asked) == (2, "", [])
    assert_two_lines(err)


def test_a_name_is_asked_for_in_ascii(capfd, answers):
    asked = answers(report())
    run(capfd, "query", "bücher.example")
    run(capfd, "query", "echo.default.")
    assert asked == [("xn--bcher-kva.example", 1), ("echo.default", 1)]


def test_a_query_gives_one_json_document(capfd, answers):
    document = report("@ 5 A 10.96.0.7")
    answers(document)
    code, out, err = run(capfd, "query", "echo.default", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == document | {"records": ["echo.default. 5 IN A 10.96.0.7"]}


@pytest.mark.parametrize(
    "message", ["", "00" * 11, "ff" * 40, report("@ 5 A 10.96.0.7")["message"][:-4]]
)
def test_an_answer_that_cannot_be_read_is_no_bug_of_ours(capfd, answers, message):
    answers(report(message=message))
    code, out, err = run(capfd, "query", "echo.default")
    assert (code, err) == (0, "")
    assert "the answer cannot be read" in out


def test_without_a_session_nobody_can_be_asked(capfd):
    for arguments in (("query", "echo.default"), ("log",)):
        code, out, err = run(capfd, *arguments)
        assert (code, out) == (1, "")
        assert_two_lines(err)


@pytest.mark.parametrize("arguments", [("query", "echo.default"), ("log",)])
def test_a_session_without_names_says_so(capfd, start_engine, arguments):
    def refuse(**_):
        raise HostError("this session does not resolve names", hint="quit, then connect")

    start_engine(dns_query=refuse, dns_log=refuse)
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (5, "")
    assert_two_lines(err)
    assert "does not resolve names" in err


@pytest.mark.parametrize("arguments", [("query", "echo.default"), ("log",)])
def test_an_engine_that_is_older_says_so(capfd, start_engine, arguments):
    start_engine()
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert_two_lines(err)


# The log


def logged(*reports, forever=False):
    """Make a verb that tells of some questions, and then ends or waits."""

    async def dns_log():
        for each in reports:
            yield {"missed": 0, **each}
        if forever:
            await asyncio.Event().wait()

    return dns_log


def test_the_log_is_a_line_a_question(capfd, start_engine):
    start_engine(
        dns_log=logged(
            report(),
            report(kind="AAAA", number=28, by="cache", steps=[], seconds=0.00004),
            report(name="www.example.com", rule="host", by="host", rcode="NXDOMAIN",
                   steps=[step("host", server="192.0.2.1")]),
        )
    )  # fmt: skip
    code, out, err = run(capfd, "log")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()[1:]) for line in out.splitlines()] == [
        "echo.default A cluster 10.96.0.10 namespace default 2.5 ms NOERROR",
        "echo.default AAAA cache namespace default 0.0 ms NOERROR",
        "www.example.com A host 192.0.2.1 host 2.5 ms NXDOMAIN",
    ]
    for line in out.splitlines():
        assert re.match(r"\d\d:\d\d:\d\d\.123 ", line)


def test_the_log_gives_a_json_document_a_line(capfd, start_engine):
    reports = [report(), report(name="other.default")]
    start_engine(dns_log=logged(*reports))
    code, out, err = run(capfd, "log", "--json")
    assert (code, err) == (0, "")
    assert list(map(json.loads, out.splitlines())) == [{"missed": 0} | r for r in reports]


def test_the_log_says_what_it_has_missed(capfd, start_engine):
    start_engine(dns_log=logged(report(missed=12)))
    code, out, err = run(capfd, "log")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "12" in err


@pytest.fixture
def follow():
    """Follow the log in a process of its own, which has no terminal."""
    processes = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "tunstack.cli.main", "dns", "log", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_line_is_there_when_it_happens_and_ctrl_c_exits_130(
    start_engine, follow, options
):
    start_engine(dns_log=logged(report(), forever=True))
    process = follow(*options)
    assert "echo.default" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_whoever_reads_the_log_may_stop_reading(start_engine, follow):
    async def dns_log():
        while True:
            yield report(missed=0)
            await asyncio.sleep(0)

    start_engine(dns_log=dns_log)
    process = follow()
    assert "echo.default" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == ""


def test_an_engine_that_dies_ends_the_log_with_an_error(start_engine, follow):
    engine = start_engine(dns_log=logged(report(), forever=True))
    process = follow()
    assert "echo.default" in process.stdout.readline()
    engine.stop()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, "")
    assert_two_lines(err)


def test_dnspython_is_not_shadowed_and_only_loaded_for_questions():
    script = (
        "import sys; from tunstack.cli.main import run; run(['--help']);"
        "import tunstack.cli.dns; assert 'dns' not in sys.modules;"
        "import dns.message; assert dns.message.from_wire"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.DEVNULL,
        timeout=30,
        check=True,
        env=os.environ | ENVIRONMENT,
    )
