"""What all tests share: one fixed Hypothesis profile, and a library whose caches, wisdom and threads are as at the start."""

import gc
import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

import cpuconv
from cpuconv import wisdom

# The same examples every time; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("explore", deadline=None, database=None, max_examples=2000)
settings.load_profile("fixed")

# Shells start jobs in the background with interrupts ignored. Subprocesses, which tests interrupt, would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

for name in ("CPUCONV_NUM_THREADS", "CPUCONV_VERBOSE", "CPUCONV_MAX_ISA"):
    os.environ.pop(name, None)

# Now, not in a fixture: plans are made while tests are collected. Subprocesses inherit it.
os.environ["CPUCONV_CACHE_DIR"] = tempfile.mkdtemp(prefix="cpuconv-tests-")


@pytest.fixture(autouse=True, scope="module")
def _tests_are_no_garbage():
    """A hundred thousand tests and their reports stay to the end: to look for garbage among them took a minute of eight."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_cache_directory():
    yield
    shutil.rmtree(os.environ["CPUCONV_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _restore_wisdom():
    before = wisdom.changes
    yield
    if wisdom.changes != before:
        wisdom.forget()


@pytest.fixture(autouse=True)
def _restore_threads():
    old = cpuconv.get_num_threads()
    yield
    cpuconv.set_num_threads(old)


@pytest.fixture
def wisdom_directory(tmp_path, monkeypatch):
    """A cache directory of the test's own, not yet made; with it, wisdom starts empty."""
    monkeypatch.setenv("CPUCONV_CACHE_DIR", str(tmp_path / "cache"))
    cpuconv.clear_cache()
    yield tmp_path / "cache"
    cpuconv.clear_cache()
