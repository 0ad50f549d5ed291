"""Install, uninstall, and everything that somebody may have done by hand in between."""

import json
import sys

import pytest
import yaml

from tests.support.kube import IMAGE, Kube, wait_until

LABEL = "app.kubernetes.io/name=tunstack"

KINDS = (
    "deployments,replicasets,pods,services,serviceaccounts,poddisruptionbudgets,"
    "roles,rolebindings,clusterroles,clusterrolebindings,namespaces"
)


def ours(kube: Kube) -> set[str]:
    """Everything in the cluster that bears our label."""
    found = kube.kubectl("get", KINDS, "-A", "-l", LABEL, "-o", "name")
    return set(found.split())


def kinds(names: set[str]) -> set[str]:
    return {name.partition("/")[0].partition(".")[0] for name in names}


def test_install_uninstall_and_install_again(kube):
    kube.install()
    kube.install()  # once more is no harm
    everything = ours(kube)
    kube.connect()
    kube.quit()
    kube.kubectl("-n", "tunstack", "delete", "deployment", "tunstack")
    assert kube.tunstack("connect", "--no-dns").returncode == 6
    kube.install()
    kube.connect()
    kube.quit()
    kube.kubectl("-n", "tunstack", "delete", "serviceaccount,service,pdb", "tunstack")
    kube.kubectl("delete", "clusterrolebinding", "tunstack")
    done = kube.tunstack("uninstall")
    assert done.returncode == 0, done.stderr
    assert kinds(ours(kube)) <= {"namespace", "role", "rolebinding"}
    again = kube.tunstack("uninstall")
    assert (again.returncode, again.stdout) == (0, "there was nothing to delete\n")
    kube.install()
    assert kinds(ours(kube)) == kinds(everything)
    kube.connect()


def test_uninstall_everything_leaves_nothing(kube):
    kube.install("--grant-users", "developers")
    kube.install("--manager-namespace", "another")
    kube.connect()
    done = kube.tunstack("uninstall", "--everything", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["sessions"] == ["default"]
    assert "tunstack/rolebinding/tunstack-user:developers" in report["deleted"]
    assert ours(kube) == set()
    assert kube.traces() == ""
    assert kube.tunstack("uninstall", "--everything").returncode == 0


def test_a_namespace_that_was_there_before_stays(kube):
    kube.kubectl("create", "namespace", "theirs")
    try:
        kube.install("--manager-namespace", "theirs")
        done = kube.tunstack("uninstall", "--everything")
        assert done.returncode == 0, done.stderr
        namespace = kube.get("namespace", "theirs")
        assert "deletionTimestamp" not in namespace["metadata"]
    finally:
        kube.kubectl("delete", "namespace", "theirs")


def test_installing_while_the_last_namespace_goes(kube):
    kube.install()
    kube.kubectl("delete", "namespace", "tunstack", "--wait=false")
    kube.install()
    kube.connect()


def test_the_pod_has_no_privilege_and_listens_on_loopback_only(installed):
    (pod,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    program = """
import os
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\\t") for line in lines if ":\\t" in line)
print(os.getuid(), status["CapEff"], status["NoNewPrivs"], status["Seccomp"])
try:
    open("/written", "w")
except OSError as error:
    print(error.strerror)
listening = [l.split()[1] for f in ("tcp", "tcp6") for l in open(f"/proc/net/{f}")
             if l.split()[3] == "0A"]
print(*sorted(listening))
"""
    said = installed.kubectl(
        "-n", "tunstack", "exec", pod["metadata"]["name"], "--",
        sys._base_executable, "-c", program,
    ).splitlines()  # fmt: skip
    assert said[0] == "65532 0000000000000000 1 2"
    assert said[1] == "Read-only file system"
    health = f"{8080:04X}"
    tunnel = f"0100007F:{7777:04X}"
    assert tunnel in said[2].split()
    assert {a.split(":")[1] for a in said[2].split() if a != tunnel} == {health}


def test_manifests_can_be_printed_without_a_cluster(kube):
    done = kube.tunstack(
        "install", "--dry-run=client", "-o", "yaml", "--registry", "registry.example/team",
        KUBECONFIG="/nowhere",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert "Deployment" in {document["kind"] for document in documents}
    assert "registry.example/team/tunstack:" in done.stdout
    kube.kubectl("apply", "--dry-run=server", "-f", "-", text=done.stdout, check=False)


def test_no_image_is_guessed(kube):
    kube.tunstack("uninstall")
    done = kube.tunstack("install")
    assert done.returncode == 2
    assert "--registry" in done.stderr


def test_an_image_that_is_not_there_is_named(kube):
    kube.tunstack("uninstall")
    done = kube.tunstack(
        "install", "--image", "localhost/absent:1", "--pull-policy", "Never"
    )
    assert done.returncode == 6
    assert "ErrImageNeverPull" in done.stderr
    done = kube.tunstack("connect", "--no-dns", TUNSTACK_TIMEOUTS_POD_READY="0.3")
    assert done.returncode == 6
    assert "ErrImageNeverPull" in done.stderr
    kube.install()


def test_another_version_is_replaced_only_when_asked_for(installed):
    (pod,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    label = "app.kubernetes.io/version=0.0.1"
    installed.kubectl("-n", "tunstack", "label", "--overwrite", "deploy/tunstack", label)
    done = installed.tunstack("install", "--image", IMAGE)
    assert done.returncode == 6
    assert "0.0.1 is installed" in done.stderr
    # Whoever connects changes nothing.
    installed.connect()
    (after,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    installed.install("--upgrade")


@pytest.fixture
def account(installed: Kube):
    """A service account that has no rights yet, and its kubeconfig."""
    installed.kubectl("-n", "testserver", "create", "serviceaccount", "somebody")
    token = installed.kubectl("-n", "testserver", "create", "token", "somebody").strip()
    yield installed.user("somebody", token=token)
    installed.kubectl("-n", "testserver", "delete", "serviceaccount", "somebody")


def test_a_user_needs_what_is_granted_and_nothing_else(installed, account):
    words = ("--kubeconfig", str(account))
    done = installed.tunstack("connect", "--no-dns", *words)
    assert done.returncode == 6
    assert 'cannot list resource "pods"' in done.stderr
    assert 'in the namespace "tunstack"' in done.stderr
    assert "--grant-users" in done.stderr

    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "half", "namespace": "tunstack"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }
    installed.apply(role)
    installed.kubectl(
        *["-n", "tunstack", "create", "rolebinding", "half", "--role=half"],
        "--serviceaccount=testserver:somebody",
    )
    done = installed.tunstack("connect", "--no-dns", *words)
    assert done.returncode == 6
    assert 'cannot get resource "pods/portforward"' in done.stderr
    role["rules"].append(
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get"]}
    )
    installed.apply(role)
    done = installed.tunstack("connect", "--no-dns", *words)
    assert done.returncode == 6
    assert 'cannot create resource "pods/portforward"' in done.stderr
    installed.kubectl("-n", "tunstack", "delete", "role,rolebinding", "half")

    grant = installed.tunstack(
        "install", "--grant-users", "system:serviceaccount:testserver:somebody"
    )
    assert grant.returncode == 0, grant.stderr
    rules = installed.get("-n", "tunstack", "role", "tunstack-user")["rules"]
    assert [(r["resources"], sorted(r["verbs"])) for r in rules] == [
        (["pods"], ["get", "list"]),
        (["pods/portforward"], ["create", "get"]),
    ]
    installed.connect(*words)
    service = installed.service("testserver", "testserver")
    installed.curl(f"http://{service}/healthz")
    done = installed.tunstack("uninstall", *words)
    assert done.returncode == 6
    assert "forbidden" in done.stderr


INTRUDER = """
import socket, sys
host, ports = sys.argv[1], sys.argv[2:]
for port in ports:
    try:
        socket.create_connection((host, int(port)), 3).close()
        print(port, "open")
    except OSError as error:
        print(port, error)
"""


def test_another_pod_does_not_get_in(installed):
    (manager,) = installed.pods("tunstack", "app.kubernetes.io/component=manager")
    host = manager["status"]["podIP"]
    overrides = {"spec": {"containers": [{
        "name": "intruder", "image": IMAGE,
        "command": [sys._base_executable, "-c", INTRUDER, host, "7777", "7778"],
    }]}}  # fmt: skip
    installed.kubectl(
        *f"-n testserver run intruder --image={IMAGE} --restart=Never".split(),
        f"--overrides={json.dumps(overrides)}",
    )
    try:
        wait_until(
            lambda: (
                installed.get("-n", "testserver", "pod", "intruder")["status"]["phase"]
                == "Succeeded"
            ),
            60,
            "the intruder has tried",
        )
        said = installed.kubectl("-n", "testserver", "logs", "intruder")
        assert said.count("Connection refused") == 2, said
    finally:
        installed.kubectl("-n", "testserver", "delete", "pod", "intruder", "--now")


def test_what_is_not_said_stays_as_it_was(installed):
    installed.tunstack("install", "--replicas", "2", "--no-wait")
    done = installed.tunstack(
        "install", "--grant-users", "a", TUNSTACK_REGISTRY="r.example"
    )
    assert "granted" in done.stdout
    done = installed.tunstack("install", "--json")
    assert json.loads(done.stdout)["replicas"] == 2
    assert json.loads(done.stdout)["image"] == IMAGE
    installed.install("--replicas", "1")


def test_what_an_earlier_version_had_and_this_has_not_is_deleted(installed):
    labels = {LABEL.split("=")[0]: "tunstack", "app.kubernetes.io/component": "manager"}
    installed.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "old", "namespace": "tunstack", "labels": labels},
        }
    )
    installed.install()
    assert "role.rbac.authorization.k8s.io/old" not in ours(installed)
