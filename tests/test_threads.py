"""Threads of the caller and of the library, forked children, and memory that must not grow. Nothing here is timed."""

import contextlib
import copy
import gc
import multiprocessing
import os
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, Problem, conv2d
from oracle import FLOATING, normal, suited
from processes import child_result, fork_warning, forks

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 32, 40, 40)).astype(np.float32)
W = RNG.standard_normal((48, 32, 3, 3)).astype(np.float32)
PROBLEM = Problem.parse("n2_ic32_ih40_iw40_oc48_kh3_kw3_s1_p1_d1_g1_f32_nchw")
NAMES = [a.name for a in FLOATING if a.name != "reference"]


@pytest.fixture(autouse=True)
def all_threads_whatever_the_work(monkeypatch):
    """Or calls as short as these might take one thread, as the pool's happen to sleep."""
    for name in ("SECONDS_A_THREAD", "SECONDS_TO_WAKE"):
        monkeypatch.setattr(sys.modules["cpuconv.threads"], name, 1e-9)


def options(algorithm: str) -> dict:
    """Arguments of a convolution of `X` that the algorithm does."""
    p = PROBLEM if algorithm == "auto" else suited(algorithm, PROBLEM)
    return {"weight": normal(p).weight, "stride": p.stride, "padding": 1, "groups": p.groups, "algorithm": algorithm}


def layer(algorithm: str) -> Conv2d:
    return Conv2d(**options(algorithm))


def from_threads(count, function):
    """Call `function(i)` from `count` Python threads that start together."""
    start = threading.Barrier(count)

    def call(i):
        start.wait()
        return function(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("native_threads", [1, 4])
def test_one_layer_from_16_threads(algorithm, native_threads):
    cpuconv.set_num_threads(native_threads)
    conv = layer(algorithm)
    inputs = [np.roll(X, i, 3) for i in range(16)]
    expected = [layer(algorithm)(x) for x in inputs]
    for i, result in enumerate(from_threads(16, lambda i: [conv(inputs[i]) for _ in range(5)])):
        for y in result:
            np.testing.assert_array_equal(y, expected[i])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_threads_share_few_pixels(dtype):
    """The pixels of 1x1 in planes are divided evenly between threads, of which there may be more than panels of pixels."""
    rng = np.random.default_rng(5)
    conv = Conv2d(rng.standard_normal((24, 16, 1, 1)).astype(dtype), algorithm="implicit_gemm")
    for side in range(8, 42):
        x = rng.standard_normal((1, 16, side, side)).astype(dtype)
        with cpuconv.threads(1):
            expected = conv(x)
        with cpuconv.threads(40):
            np.testing.assert_array_equal(conv(x), expected)


def test_the_first_call_may_come_from_16_threads_at_once():
    """Plans and packed weights are made once, whoever comes first, for many shapes at the same time."""
    cpuconv.clear_cache()
    conv = Conv2d(W, padding=1)
    for i, y in enumerate(from_threads(16, lambda i: conv(X[:, :, : 20 + i % 4]))):
        np.testing.assert_array_equal(y, Conv2d(W, padding=1)(X[:, :, : 20 + i % 4]))


@pytest.mark.parametrize("algorithm", NAMES)
def test_two_layers_at_once(algorithm):
    cpuconv.set_num_threads(4)
    layers = [layer(algorithm), layer("auto")]
    expected = [conv(X) for conv in layers]
    for i, results in enumerate(from_threads(2, lambda i: [layers[i](X) for _ in range(20)])):
        for y in results:
            np.testing.assert_array_equal(y, expected[i])


@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_results_do_not_depend_on_the_number_of_threads(algorithm, threads):
    conv = layer(algorithm)
    with cpuconv.threads(1):
        one = conv(X)
    with cpuconv.threads(threads):
        np.testing.assert_array_equal(conv(X), one)


@forks
@fork_warning
@pytest.mark.parametrize("algorithm", NAMES)
def test_fork_after_a_call_on_many_threads(algorithm):
    cpuconv.set_num_threads(4)
    conv = layer(algorithm)
    expected = conv(X)

    def child() -> bool:
        return all(np.array_equal(conv(X), expected) for _ in range(3)) and np.array_equal(layer(algorithm)(X), expected)

    assert child_result(child) == 0
    assert child_result(lambda: child_result(child) == 0) == 0  # a grandchild
    np.testing.assert_array_equal(conv(X), expected)


@forks
@fork_warning
def test_fork_while_other_threads_compute():
    """The child must not wait for locks or workers that only the parent has."""
    cpuconv.set_num_threads(2)
    conv, stop = Conv2d(W, padding=1), threading.Event()
    expected = conv(X)

    def work() -> None:
        while not stop.is_set():
            conv(X)

    others = [threading.Thread(target=work) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        statuses = [child_result(lambda: np.array_equal(conv(X), expected)) for _ in range(10)]
    finally:
        stop.set()
        for thread in others:
            thread.join()
    assert statuses == [0] * 10


def test_a_failing_child_is_noticed():
    assert child_result(lambda: False) == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@fork_warning
def test_multiprocessing(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    expected = conv2d(X, W, padding=1)
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(cpuconv.conv2d, [(X, W, None, 1, 1)] * 4)
    for y in results:
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@fork_warning
def test_layers_travel_to_workers(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    conv = Conv2d(W, np.arange(48, dtype=np.float32), padding=1, activation="silu", layout="NCHW")
    expected = conv(X)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for y in pool.map(conv, [X] * 4, chunksize=1):
            np.testing.assert_array_equal(y, expected)
    twin = copy.deepcopy(conv)
    assert twin.weight is not conv.weight and repr(twin) == repr(conv)
    np.testing.assert_array_equal(twin(X), expected)


def test_set_num_threads_returns_the_old_value():
    first = cpuconv.get_num_threads()
    assert cpuconv.set_num_threads(5) == first
    assert cpuconv.set_num_threads(np.int64(3)) == 5
    assert cpuconv.get_num_threads() == 3


def test_threads_is_for_this_python_thread_only():
    cpuconv.set_num_threads(6)
    inside, seen = threading.Event(), queue.Queue()

    def other() -> None:
        inside.wait()
        seen.put(cpuconv.get_num_threads())

    thread = threading.Thread(target=other)
    thread.start()
    with cpuconv.threads(2), cpuconv.threads(1):
        assert cpuconv.get_num_threads() == 1
        inside.set()
        thread.join()
    assert seen.get() == 6
    assert cpuconv.get_num_threads() == 6


def test_threads_ends_with_an_exception():
    old = cpuconv.get_num_threads()
    with contextlib.suppress(KeyError), cpuconv.threads(old + 3):
        raise KeyError
    assert cpuconv.get_num_threads() == old


def test_other_python_threads_run_during_a_call():
    """The GIL is released: a thread gets on while a long call computes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nothing but a released GIL lets the other thread run
    try:
        counted, ready, stop = [0], threading.Event(), threading.Event()

        def count() -> None:
            ready.set()
            while not stop.wait(0.0005):
                counted[0] += 1

        thread = threading.Thread(target=count)
        thread.start()
        ready.wait()
        conv = Conv2d(W, padding=1, algorithm="implicit_gemm")
        big = np.ones((16, 32, 112, 112), np.float32)
        before = counted[0]
        for _ in range(3):
            conv(big)
        during = counted[0] - before
        stop.set()
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert during > 3


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
@pytest.mark.parametrize("algorithm", [*NAMES, "auto"])
def test_1200_calls_leave_memory_flat(algorithm):
    x, arguments = X[:, :, :12, :12], options(algorithm)
    conv = Conv2d(**arguments)

    def calls(n: int) -> None:
        for _ in range(n):
            conv(x, out=conv(x))
            conv2d(x, **arguments)

    calls(100)
    gc.collect()
    before = resident_bytes()
    calls(300)
    gc.collect()
    # one leaked result a call (2 x 48 x 10 x 10 floats) would come to 11 MB
    assert resident_bytes() - before < 4 << 20
