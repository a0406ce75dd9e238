"""The examples in docstrings, run against the installed package (the one in src/ has no compiled extension)."""

import doctest
import importlib
import pkgutil

import pytest

import cpuconv

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
OPTIONAL = {"cpuconv.__main__"}
MODULES = ["cpuconv", *(m.name for m in pkgutil.walk_packages(cpuconv.__path__, "cpuconv.") if m.name not in OPTIONAL)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    if "core" not in name:  # compiled: no docstrings to read
        assert doctest.testmod(module, optionflags=FLAGS).failed == 0


def test_there_are_examples():
    attempted = {name: len(doctest.DocTestFinder().find(importlib.import_module(name))) for name in ("cpuconv.functional", "cpuconv.layers")}
    assert all(attempted.values())
