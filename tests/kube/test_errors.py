"""What a user is told when something on the way is not right."""

import base64
import subprocess
import sys

import pytest
import yaml

from tests.support.kube import API, GATEWAY, HOME, ROOT, Kube

NOT_A_CERTIFICATE = base64.b64encode(b"nothing of the kind").decode()


def wrong(kube: Kube, change) -> str:
    """Write a kubeconfig with something changed."""
    config = yaml.safe_load((HOME / "kubeconfig").read_text())
    change(
        config,
        config["clusters"][0]["cluster"],
        config["users"][0]["user"],
        config["contexts"][0]["context"],
    )
    path = kube.folder / "wrong"
    path.write_text(yaml.safe_dump(config))
    return str(path)


WRONG = {
    "no current context": (
        lambda config, *_: config.pop("current-context"), ["current-context"],
    ),
    "a context that is not there": (
        lambda config, *_: config.update({"current-context": "gone"}), ["context gone"],
    ),
    "a cluster that is not there": (
        lambda c, cl, u, context: context.update(cluster="gone"), ["cluster gone"],
    ),
    "a user that is not there": (
        lambda c, cl, u, context: context.update(user="gone"), ["user gone"],
    ),
    "no server": (
        lambda c, cluster, *_: cluster.pop("server"), ["kube-lab", "no server"],
    ),
    "a server that is no URL": (
        lambda c, cluster, *_: cluster.update(server="https://:port"), ["https://:port"],
    ),
    "an authority that is not there": (
        lambda c, cluster, *_: (
            cluster.pop("certificate-authority-data"),
            cluster.update({"certificate-authority": "/nowhere/ca.crt"}),
        ),
        ["/nowhere/ca.crt", "No such file"],
    ),
    "an authority that is none": (
        lambda c, cluster, *_: cluster.update(
            {"certificate-authority-data": NOT_A_CERTIFICATE}
        ),
        ["certificate-authority-data", "PEM"],
    ),
    "somebody else's authority": (
        lambda c, cluster, *_: cluster.pop("certificate-authority-data"),
        ["certificate", f"https://{API[0]}:{API[1]}", "not to be trusted"],
    ),
    "another name in the certificate": (
        lambda c, cluster, *_: cluster.update({"tls-server-name": "other.example"}),
        ["certificate", "other.example"],
    ),
    "half a pair of keys": (
        lambda c, cl, user, ctx: user.pop("client-key-data"), ["no client-key"],
    ),
    "a plugin that is not there": (
        lambda c, cl, user, ctx: (user.clear(), user.update(exec={
            "apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin",
            "interactiveMode": "Never", "installHint": "install the plugin",
        })),
        ["no-such-plugin", "install the plugin"],
    ),
    "a token file that is not there": (
        lambda c, cl, user, ctx: (user.clear(), user.update(tokenFile="no-such-token")),
        ["no-such-token", "No such file"],
    ),
    "a misspelt key of the extension": (
        lambda c, cluster, *_: cluster.update(extensions=[
            {"name": "telepresence.io", "extension": {"never-proxi": ["10.0.0.0/8"]}},
        ]),
        ["never-proxi", "never-proxy"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kubeconfig_is_explained(kube, name):
    change, parts = WRONG[name]
    path = wrong(kube, change)
    done = kube.tunstack("connect", "--no-dns", "--kubeconfig", path)
    assert done.returncode == 3, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    context = [] if name == "no current context" else ["context "]
    for part in (path, *context, *parts):
        assert part in done.stderr
    assert kube.sessions() == []


def test_no_file_and_a_file_that_is_none(kube):
    done = kube.tunstack("connect", "--no-dns", "--kubeconfig", "/nowhere/config")
    assert (done.returncode, "/nowhere/config" in done.stderr) == (3, True)
    path = kube.folder / "junk"
    path.write_text("clusters: [\n")
    done = kube.tunstack("connect", "--no-dns", KUBECONFIG=str(path))
    assert (done.returncode, f"{path} is not YAML" in done.stderr) == (3, True)
    done = kube.tunstack("connect", "--no-dns", "--context", "absent")
    assert (done.returncode, "no context absent" in done.stderr) == (3, True)


def test_nobody_at_the_servers_address(kube):
    path = kube.write("port", cluster={"server": f"https://{API[0]}:1"})
    done = kube.tunstack("connect", "--no-dns", "--kubeconfig", str(path))
    assert done.returncode == 6
    assert "connection refused" in done.stderr
    path = kube.write("name", cluster={"server": "https://no.such.name.invalid"})
    done = kube.tunstack("connect", "--no-dns", "--kubeconfig", str(path))
    assert done.returncode == 6
    assert "no.such.name.invalid" in done.stderr


def test_a_silent_server_is_given_up_in_time(kube):
    with kube.gateway.firewall("tcp dport 6443 drop"):
        done = kube.tunstack("connect", "--no-dns", TUNSTACK_TIMEOUTS_API_REQUEST="0.5")
    assert done.returncode == 6
    assert "timeouts.api_request" in done.stderr


def test_no_manager_is_installed(kube):
    done = kube.tunstack("connect", "--no-dns", "--manager-namespace", "empty")
    assert done.returncode == 6
    assert "no traffic manager in the namespace empty" in done.stderr
    assert "tunstack install" in done.stderr


def test_options_that_exclude_each_other(kube):
    done = kube.tunstack("connect", "--manager", "127.0.0.1:1", "--context", "kube-lab")
    assert done.returncode == 2
    done = kube.tunstack("connect", "--token-file", str(kube.kubeconfig))
    assert done.returncode == 2


def test_the_clusters_extension_counts(installed):
    extension = {"never-proxy": ["10.96.0.0/16"], "also-proxy": ["10.20.0.0/16"]}
    path = installed.write(
        "extension",
        cluster={"extensions": [{"name": "telepresence.io", "extension": extension}]},
    )
    status = installed.connect("--kubeconfig", str(path))
    assert status["routes"]["never_proxy"] == ["10.96.0.0/16"]
    assert "10.20.0.0/16" in status["routes"]["proxied"]
    assert "10.96.0.0/12" not in status["routes"]["proxied"]


def test_through_a_proxy(installed):
    """The kubeconfig's proxy-url is what stays out of the tunnel then."""
    with installed.gateway:
        proxy = subprocess.Popen(
            [sys.executable, "-m", "tests.support.connect_proxy", GATEWAY],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        port = int(proxy.stdout.readline())
        url = f"http://{GATEWAY}:{port}"
        path = installed.write("proxied", cluster={"proxy-url": url})
        status = installed.connect("--kubeconfig", str(path))
        assert status["kubernetes"]["proxy"] == url
        assert status["routes"]["api_server"] == [f"{GATEWAY}/32"]
        installed.curl(f"http://{installed.service('testserver', 'testserver')}/healthz")
    finally:
        installed.quit()
        proxy.kill()
        proxy.wait()
