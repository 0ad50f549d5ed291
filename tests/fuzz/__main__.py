"""Run a harness under atheris: ``python -m tests.fuzz TARGET [OPTION...] [CORPUS...]``.

Options are libFuzzer's. A target is a module of this package that has ``check(data)``:
it returns, or raises when something is wrong with the code under test.
"""

import importlib
import sys

import atheris

with atheris.instrument_imports(include=["tunstack"]):
    target = importlib.import_module(f"tests.fuzz.{sys.argv.pop(1)}")

atheris.Setup(sys.argv, target.check)
atheris.Fuzz()
