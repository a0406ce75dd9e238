"""What all tests share: one fixed Hypothesis profile, and a library whose caches and threads are as at the start."""

import os

import pytest
from hypothesis import settings

import cpuconv

# The same examples every time; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("explore", deadline=None, database=None, max_examples=2000)
settings.load_profile("fixed")

for name in ("CPUCONV_NUM_THREADS", "CPUCONV_VERBOSE", "CPUCONV_MAX_ISA"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _restore_threads():
    old = cpuconv.get_num_threads()
    yield
    cpuconv.set_num_threads(old)
