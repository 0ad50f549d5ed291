"""Plugins that give credentials: what they are told, and what they may say."""

import base64
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tunstack.cluster import access, exec_plugin
from tunstack.cluster.kubeconfig import Context, Entry, KubeconfigError

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"

TOKEN = {"token": "secret"}
PAIR = {"clientCertificateData": "certificate", "clientKeyData": "key"}

RECORD = """
printf '%s' "$KUBERNETES_EXEC_INFO" > "${0%/*}/info"
printf '%s' "$GREETING" > "${0%/*}/greeting"
for word; do printf '%s\\n' "$word"; done > "${0%/*}/words"
"""


def said(status, version=V1):
    """Give what a plugin prints that says so."""
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})


class Plugin:
    """A script beside a kubeconfig in ``folder``, and the context that names it."""

    def __init__(self, folder):
        self.folder = folder
        self.cluster = {"server": "https://blue.example"}

    def write(self, output="", *, name="plugin", code=0, before=""):
        """Write the script: what it does, what it prints, how it ends."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        lines = ("#!/bin/sh", before, "cat <<'END'", output, "END", f"exit {code}", "")
        file.write_text("\n".join(lines))
        file.chmod(0o755)
        return file

    def context(self, **spec):
        spec = {"apiVersion": V1, "command": "./plugin", **spec}
        file = self.folder / "config"
        return Context(
            "dev",
            "default",
            Entry("cluster", "blue", self.cluster, file),
            Entry("user", "ann", {"exec": spec}, file),
        )

    def run(self, *, ca=None, interactive=False, timeout=30, variables=None, **spec):
        environment = {"PATH": os.defpath, **(variables or {})}
        return exec_plugin.run(
            self.context(**spec),
            ca=ca,
            environment=environment,
            interactive=interactive,
            timeout=timeout,
        )

    def refused(self, **spec):
        """Run what cannot be; gives the error."""
        with pytest.raises(KubeconfigError) as caught:
            self.run(**spec)
        assert caught.value.exit_code == 3
        assert f"{self.folder}/config: user ann" in str(caught.value)
        return caught.value

    def told(self, **spec):
        """Run the plugin; gives what it found in ``KUBERNETES_EXEC_INFO``."""
        self.write(said(TOKEN, spec.get("apiVersion", V1)), before=RECORD)
        self.run(**spec)
        return json.loads((self.folder / "info").read_text())


@pytest.fixture
def plugin(tmp_path):
    return Plugin(tmp_path)


# Credentials


@pytest.mark.parametrize("status", [TOKEN, PAIR, TOKEN | PAIR])
@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_plugin_gives_credentials(plugin, version, status):
    plugin.write(said(status, version))
    assert plugin.run(apiVersion=version) == status


def resolve(plugin):
    return access.resolve(
        plugin.context(), {"PATH": os.defpath}, interactive=False, plugin_timeout=30
    )


def test_a_token_becomes_a_header(plugin):
    plugin.write(said(TOKEN))
    found = resolve(plugin)
    assert found.headers == (("Authorization", "Bearer secret"),)
    assert (found.renewable, found.expires) == ("exec plugin", None)


def test_a_pair_becomes_the_certificate(plugin):
    plugin.write(said(PAIR))
    found = resolve(plugin)
    assert (found.certificate, found.key) == ("certificate", "key")
    assert (found.renewable, found.headers) == ("exec plugin", ())


@pytest.fixture
def far_from_greenwich(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-02T03:04:05Z",
        "2030-01-02T03:04:05.000000123Z",
        "2030-01-02T05:04:05+02:00",
        "2030-01-01T19:04:05-08:00",
        "2030-01-02T03:04:05",
    ],
)
def test_the_time_of_expiry_is_understood(plugin, far_from_greenwich, text):
    plugin.write(said(TOKEN | {"expirationTimestamp": text}))
    expected = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert resolve(plugin).expires == expected


@pytest.mark.parametrize("text", ["soon", "", 7])
def test_a_time_of_expiry_that_is_none_is_named(plugin, text):
    plugin.write(said(TOKEN | {"expirationTimestamp": text}))
    with pytest.raises(KubeconfigError, match="expirationTimestamp is no time") as caught:
        resolve(plugin)
    assert "user ann" in str(caught.value)


# What a plugin is told


def test_arguments_and_variables_reach_the_plugin(plugin):
    plugin.write(said(TOKEN), before=RECORD)
    plugin.run(
        args=["token", "two words", 7],
        env=[{"name": "GREETING", "value": "hello"}],
        variables={"GREETING": "overridden"},
    )
    assert (plugin.folder / "words").read_text() == "token\ntwo words\n7\n"
    assert (plugin.folder / "greeting").read_text() == "hello"


def test_the_callers_variables_reach_the_plugin(plugin):
    plugin.write(said(TOKEN), before=RECORD)
    plugin.run(variables={"GREETING": "inherited"}, env=None, args=None)
    assert (plugin.folder / "greeting").read_text() == "inherited"
    assert (plugin.folder / "words").read_text() == ""


@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_plugin_is_not_told_the_cluster_unless_it_asks(plugin, version):
    assert plugin.told(apiVersion=version) == {
        "apiVersion": version,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    assert "cluster" not in plugin.told(provideClusterInfo=False)["spec"]


def test_a_plugin_that_asks_is_told_the_cluster(plugin):
    plugin.cluster |= {
        "tls-server-name": "api.internal",
        "proxy-url": "http://proxy.example",
        "insecure-skip-tls-verify": True,
        "certificate-authority": "/not/told",
        "extensions": [
            {"name": "tunstack.io", "extension": {"also-proxy": []}},
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}},
            {"name": "telepresence.io", "extension": {}},
        ],
    }
    spec = plugin.told(provideClusterInfo=True, ca="UEVN")["spec"]
    assert spec["cluster"] == {
        "server": "https://blue.example",
        "tls-server-name": "api.internal",
        "proxy-url": "http://proxy.example",
        "insecure-skip-tls-verify": True,
        "certificate-authority-data": "UEVN",
        "config": {"audience": "x"},
    }


def test_extensions_that_have_no_keys_are_not_told(plugin):
    plugin.cluster["extensions"] = ["text"]
    assert "config" not in plugin.told(provideClusterInfo=True)["spec"]["cluster"]


def test_extensions_that_are_no_list_are_named(plugin):
    plugin.cluster["extensions"] = 7
    with pytest.raises(KubeconfigError, match=r"cluster .*: extensions is not a list"):
        plugin.told(provideClusterInfo=True)


def test_what_a_cluster_does_not_say_is_left_out(plugin):
    spec = plugin.told(provideClusterInfo=True)["spec"]
    assert spec["cluster"] == {"server": "https://blue.example"}


def test_authorities_are_told_as_base64_of_pem(plugin, keys):
    plugin.cluster["certificate-authority"] = str(keys.certificate)
    plugin.write(said(TOKEN), before=RECORD)
    context = plugin.context(provideClusterInfo=True)
    access.resolve(context, {"PATH": os.defpath}, interactive=False, plugin_timeout=30)
    spec = json.loads((plugin.folder / "info").read_text())["spec"]
    told = base64.b64decode(spec["cluster"]["certificate-authority-data"])
    assert told == keys.certificate.read_bytes()


@pytest.mark.parametrize(
    ("mode", "terminal", "interactive"),
    [
        (None, True, True),
        (None, False, False),
        ("IfAvailable", True, True),
        ("IfAvailable", False, False),
        ("Never", True, False),
        ("Never", False, False),
        ("Always", True, True),
    ],
)
def test_a_plugin_is_told_whether_it_may_ask(plugin, mode, terminal, interactive):
    spec = {} if mode is None else {"interactiveMode": mode}
    told = plugin.told(interactive=terminal, **spec)
    assert told["spec"]["interactive"] is interactive


def test_a_plugin_that_must_ask_needs_a_terminal(plugin):
    plugin.write(said(TOKEN), before=RECORD)
    error = plugin.refused(interactiveMode="Always")
    assert "./plugin wants a terminal (interactiveMode: Always)" in str(error)
    assert "terminal" in error.hint
    assert not (plugin.folder / "info").exists()


@pytest.fixture
def standard_input():
    """Have somebody say ``hello`` on standard input."""
    before = os.dup(0)
    reader, writer = os.pipe()
    os.write(writer, b"hello\n")
    os.dup2(reader, 0)
    yield
    os.dup2(before, 0)
    for fd in (before, reader, writer):
        os.close(fd)


@pytest.mark.parametrize(
    ("mode", "terminal", "heard"),
    [("IfAvailable", True, "hello"), ("IfAvailable", False, ""), ("Never", True, "")],
)
def test_only_a_plugin_that_may_ask_hears_the_answer(
    plugin, standard_input, mode, terminal, heard
):
    plugin.write(said(TOKEN), before='read -r GREETING || GREETING=""\n' + RECORD)
    plugin.run(interactiveMode=mode, interactive=terminal)
    assert (plugin.folder / "greeting").read_text() == heard


# Which program it is


@pytest.mark.parametrize(
    ("command", "name"), [("./plugin", "plugin"), ("bin/plugin", "bin/plugin")]
)
def test_a_command_with_a_slash_is_relative_to_the_kubeconfig(plugin, command, name):
    plugin.write(said(TOKEN), name=name)
    assert plugin.run(command=command) == TOKEN


def test_an_absolute_command_is_taken_as_it_is(plugin):
    file = plugin.write(said(TOKEN))
    assert plugin.run(command=str(file)) == TOKEN


def test_a_command_without_a_slash_is_looked_up_in_the_callers_path(plugin):
    plugin.write(said({"token": "beside the kubeconfig"}), name="ts-plugin")
    plugin.write(said({"token": "in the path"}), name="bin/ts-plugin")
    path = f"{plugin.folder}/bin{os.pathsep}{os.defpath}"
    found = plugin.run(command="ts-plugin", variables={"PATH": path})
    assert found == {"token": "in the path"}
    assert "ts-plugin cannot be run" in str(plugin.refused(command="ts-plugin"))


@pytest.mark.parametrize("folder", [".", "kube"])
def test_a_relative_kubeconfig_is_relative_to_where_we_are(plugin, monkeypatch, folder):
    plugin.write(said(TOKEN), name=f"{folder}/plugin")
    monkeypatch.chdir(plugin.folder)
    assert Plugin(Path(folder)).run() == TOKEN


# What goes wrong


def test_a_plugin_that_is_not_there_says_how_to_get_it(plugin):
    error = plugin.refused(command="ts-missing", installHint="brew install ts-missing")
    assert "the exec plugin ts-missing cannot be run" in str(error)
    assert error.hint == "brew install ts-missing"
    for more in ({}, {"installHint": 7}):
        assert "kubeconfig" in plugin.refused(command="ts-missing", **more).hint


def test_a_plugin_that_is_no_program_is_named(plugin):
    plugin.write(said(TOKEN)).chmod(0o644)
    assert "Permission denied" in str(plugin.refused())


def test_a_plugin_that_fails_is_quoted(plugin):
    plugin.write(code=3, before="echo 'the session has expired' >&2")
    error = plugin.refused()
    assert "failed with code 3: the session has expired" in str(error)
    assert "log in" in error.hint


def test_a_plugin_that_fails_in_silence_is_named(plugin):
    plugin.write(code=1)
    assert str(plugin.refused()).endswith("plugin failed with code 1")


def test_of_much_that_a_plugin_says_the_end_is_quoted(plugin):
    long = "x" * 2000
    plugin.write(code=1, before=f"echo {long}and-this-is-why >&2")
    text = str(plugin.refused())
    assert text.endswith("and-this-is-why")
    assert len(text) < 1000


def test_a_plugin_that_takes_too_long_names_the_setting(plugin):
    plugin.write(before="exec sleep 60")
    text = str(plugin.refused(timeout=0.1))
    assert "timed out after 0.1 s (timeouts.exec_plugin)" in text


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Logged in!",
        "[]",
        "null",
        "{}",
        json.dumps({"kind": "ExecCredential", "apiVersion": V1}),
        said(None),
        said([]),
        said({}),
        said({"token": ""}),
        said({"clientCertificateData": "certificate"}),
        said({"clientKeyData": "key"}),
        said(TOKEN | {"clientKeyData": "key"}),
        said({"token": 123}),
        said(["x"]),
        said("token"),
        said({"clientCertificateData": 1, "clientKeyData": 2}),
        said(TOKEN | {"clientCertificateData": ["x"], "clientKeyData": "key"}),
        said(TOKEN, V1BETA1),
        said(TOKEN).replace("ExecCredential", "Status"),
    ],
)
def test_a_plugin_that_says_nothing_of_use_is_named(plugin, output):
    plugin.write(output)
    assert "plugin gave no credentials" in str(plugin.refused())


def test_a_plugin_that_says_no_text_is_named(plugin):
    plugin.write(before=r"printf '\377\376'")
    assert "plugin gave no credentials" in str(plugin.refused())


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"command": None}, "exec names no command"),
        ({"command": ["kubelogin"]}, "exec names no command"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1 is not one of"),
        ({"apiVersion": None}, "apiVersion None is not one of"),
        ({"env": ["GREETING=hello"]}, "cannot be run"),
        ({"env": [{"name": "GREETING"}]}, "cannot be run"),
        ({"args": 7}, "cannot be run"),
        ({"args": ["a\0b"]}, "cannot be run"),
        ({"env": [{"name": "A=B", "value": "c"}]}, "cannot be run"),
    ],
)
def test_a_plugin_that_is_not_described_well_is_named(plugin, spec, part):
    plugin.write(said(TOKEN))
    assert part in str(plugin.refused(**spec))


@pytest.mark.parametrize("spec", [None, "kubelogin", []])
def test_an_exec_that_has_no_keys_is_named(plugin, spec):
    context = plugin.context()
    user = Entry("user", "ann", {"exec": spec}, context.user.file)
    context = Context("dev", "default", context.cluster, user)
    with pytest.raises(KubeconfigError, match="exec names no command"):
        exec_plugin.run(context, ca=None, environment={}, interactive=False, timeout=1)
