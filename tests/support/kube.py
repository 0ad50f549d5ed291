"""A laptop in front of a real Kubernetes, for tests from the outside.

    laptop -- gateway == relay == the host -- node

The cluster is the lab's (``KUBE_LAB``: one node, on this machine). The laptop is a network
namespace. Its default route leads to the gateway, another, where the API server's address
is a relay's that connects from the host; whatever else the laptop sends is unreachable.
So it reaches the API server's port, as everybody does, and nothing else of the cluster,
and nothing of the host's own network is changed. The relay can delay.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support.lab import (
    TRANSPORT,
    Namespace,
    link,
    missing,
    tunstack,
    wait_until,
)

LAB = Path(os.environ.get("KUBE_LAB", Path(__file__).parents[3] / "shared/kube"))
"""The scripts of the lab: ``up``, ``down``, ``kubectl``, ``image``."""

HOME = Path(os.environ.get("KUBE_LAB_DIR") or Path.home() / ".cache/kube-lab")

IMAGE = "localhost/tunstack:dev"

API = ("172.31.255.2", 6443)

LAPTOP, GATEWAY = "10.77.0.2", "10.77.0.1"

ROOT = Path(__file__).parents[2]


def why_not() -> str | None:
    """Say why there is no cluster to test with; ``None`` when there is one."""
    if os.environ.get("TUNSTACK_CLUSTER") == "later":
        return "runs later, with an image of this checkout: .ci/cluster"
    if reason := missing():
        return reason
    if not (LAB / "kubectl").exists():
        return f"needs a Kubernetes lab, and KUBE_LAB={LAB} is none"
    if not (HOME / "kubeconfig").exists():
        return f"needs the Kubernetes lab to be up: {LAB}/up"
    if not (HOME / "images/tunstack_dev.tar").exists():
        return "needs the manager's image: make kube-image"
    return None


class Kube:
    """The cluster, as its administrator, and a laptop in front of it."""

    def __init__(self) -> None:
        self.name = f"tsk{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="tunstack-kube-"))
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.kubeconfig = self.folder / "kubeconfig"
        shutil.copy(HOME / "kubeconfig", self.kubeconfig)
        self.laptop = Namespace(f"{self.name}-laptop", self.logs)
        self.gateway = Namespace(f"{self.name}-gateway", self.logs)
        link(self.laptop, "gateway", LAPTOP, self.gateway, "laptop", GATEWAY)
        self.gateway.ip(f"address add {API[0]}/32 dev lo")
        self.laptop.ip(f"route add default via {GATEWAY}")
        self.gateway.sysctl("ipv4/conf/all/forwarding", 1)
        self.gateway.ip("route add unreachable default")
        self._relay: subprocess.Popen[bytes] | None = None
        self.relay()
        self.environment = {
            key: value for key, value in os.environ.items() if "proxy" not in key.lower()
        } | {
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TUNSTACK_TUNNEL_TRANSPORT": TRANSPORT,
            "COLUMNS": "100",
        }
        (self.folder / "run").mkdir(mode=0o700)
        self._log_places: set[Path] = set()

    def close(self) -> None:
        """End everything."""
        for name in self.sessions():
            self.tunstack("quit", "--name", name)
        self.cut()
        for namespace in (self.laptop, self.gateway):
            namespace.close()
        shutil.rmtree(self.folder)

    # The way to the API server

    def relay(self, delay: float = 0) -> None:
        """Let the laptop reach the API server, with so many seconds of delay each way."""
        self.cut()
        with self.gateway:
            listener = socket.socket()
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(API)
            listener.listen(100)
            where = [str(listener.fileno()), *map(str, API), str(delay)]
            self._relay = subprocess.Popen(
                [sys.executable, "-m", "tests.support.relay", *where],
                pass_fds=[listener.fileno()],
                cwd=ROOT,
            )

    def cut(self) -> None:
        """Break every connection to the API server, and let none be made."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None

    # The cluster

    def kubectl(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl as the administrator, on the host."""
        done = subprocess.run(
            [str(LAB / "kubectl"), *words], input=text, capture_output=True, text=True
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *words: str) -> Any:
        """Give what ``kubectl get`` finds."""
        return json.loads(self.kubectl("get", "-o", "json", *words))

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply manifests."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(documents))

    def serve(self) -> None:
        """Run the lab's own test server, with a service."""
        self.kubectl("apply", "-f", str(LAB / "manifests/testserver.yaml"))
        rollout = ("rollout", "status", "deployment/testserver", "--timeout=90s")
        self.kubectl("-n", "testserver", *rollout)

    def service(self, name: str, namespace: str) -> str:
        """The ClusterIP of a service."""
        return str(self.get("-n", namespace, "service", name)["spec"]["clusterIP"])

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """The pods that are not about to go."""
        found = self.get("-n", namespace, "pods", "-l", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def user(self, name: str, **user: Any) -> Path:
        """Write a kubeconfig for the same cluster, of somebody else."""
        return self.write(name, user=user)

    def write(
        self,
        name: str,
        *,
        user: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Path:
        """Write a kubeconfig that differs from the administrator's in what is said."""
        config = yaml.safe_load((HOME / "kubeconfig").read_text())
        if user is not None:
            config["users"][0]["user"] = user
        config["clusters"][0]["cluster"] |= cluster or {}
        config["contexts"][0]["context"] |= context or {}
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    # The laptop

    def tunstack(
        self, *words: str, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a tunstack command on the laptop to its end, whatever that is."""
        return subprocess.run(
            self.laptop.inside(*tunstack(*words)),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Install the image that was made of this checkout; it must work."""
        done = self.tunstack("install", "--image", IMAGE, *words)
        assert done.returncode == 0, done.stderr
        return done

    def connect(
        self, *words: str, names: bool = False, **environment: str
    ) -> dict[str, Any]:
        """Connect, with the cluster's names or without; gives the status."""
        words = words if names else ("--no-dns", *words)
        done = self.tunstack("connect", *words, **environment)
        assert done.returncode == 0, done.stderr
        name = words[words.index("--name") + 1] if "--name" in words else "default"
        return self.status(name)

    def status(self, name: str = "default") -> dict[str, Any]:
        """Give the document of ``status --json``."""
        done = self.tunstack("status", "--json", "--name", name)
        document: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == (document["state"] == "connected")
        if document["log"]:
            self._log_places.add(Path(document["log"]))
        return document

    def quit(self, *words: str) -> None:
        """Disconnect."""
        done = self.tunstack("quit", *words)
        assert done.returncode == 0, done.stderr

    def sessions(self) -> list[str]:
        """Names of the sessions that left something on this laptop."""
        folder = self.folder / "run/tunstack"
        return sorted(os.listdir(folder)) if folder.exists() else []

    def engine_logs(self) -> list[Path]:
        """Logs of the engines whose status was asked for."""
        return sorted(path for path in self._log_places if path.exists())

    def curl(self, url: str, *options: str) -> str:
        """Fetch a page from the laptop."""
        words = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10"]
        return self.laptop.run(*words, *options, url)

    def tcp(self, host: str, port: int, timeout: float = 10) -> socket.socket:
        """Connect from the laptop."""
        with self.laptop:
            return socket.create_connection((host, port), timeout)

    def traces(self) -> str:
        """What of us the laptop's kernel and processes show; empty when nothing."""
        found = []
        links = self.laptop.ip("-brief link show")
        found += [line for line in links.splitlines() if re.match(r"ts\d", line)]
        routes = self.laptop.ip("route show")
        found += [line for line in routes.splitlines() if " ts" in line]
        for pid in self.laptop.pids():
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                if "tunstack" in command:
                    found.append(command)
        return "\n".join(found + self.sessions())


__all__ = ["IMAGE", "Kube", "wait_until", "why_not"]
