"""What a measurement depends on besides the code: versions, and what is compiled here."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sysconfig
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
KERNELS = CHECKOUT / "src/tunstack/_fastpath"


def versions() -> dict[str, str]:
    """Tools on which counts depend, by name."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python build": " ".join((*platform.python_build(), platform.python_compiler())),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cc": _first_line("cc", "--version"),
        "valgrind": _first_line("valgrind", "--version"),
        "cffi": importlib.metadata.version("cffi"),
    }


def machine() -> dict[str, str]:
    """What else there is to say of this machine."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpus if "model name" in line]
    return {
        "cpu": f"{os.cpu_count()} x {names[0] if names else platform.processor()}",
        "kernel": platform.release(),
    }


def _first_line(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]


@functools.cache
def workshop() -> Path:
    """A directory for what is compiled and counted, gone when this process ends."""
    kept = tempfile.TemporaryDirectory(prefix="tunstack-gate-")
    workshop.kept = kept  # type: ignore[attr-defined]
    return Path(kept.name)


@functools.cache
def probe() -> Path:
    """Compile the library that the measured process counts with."""
    include = sysconfig.get_path("include")
    return _compile("probe.so", HERE / "probe.c", "-shared", "-fPIC", "-O2", f"-I{include}")


@functools.cache
def kernels() -> Path:
    """Compile the program that calls each kernel, with the kernels' own flags."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    (module,) = settings["tool"]["setuptools"]["ext-modules"]
    sources = [CHECKOUT / source for source in module["sources"]]
    flags = [*module["extra-compile-args"], f"-I{KERNELS}"]
    return _compile("kernels", HERE / "kernels.c", *sources, *flags)


def _compile(name: str, *words: str | Path) -> Path:
    built = workshop() / name
    subprocess.run(["cc", *map(str, words), "-o", str(built)], check=True)
    return built
