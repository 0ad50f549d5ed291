"""Each committed input, without a fuzzer: what was wrong once stays right."""

import importlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent / "corpus"
PYTHON = ("mux", "parse", "stack")
INPUTS = [path for target in PYTHON for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_of_the_corpus_is_handled(path):
    importlib.import_module(f"tests.fuzz.{path.parent.name}").check(path.read_bytes())
