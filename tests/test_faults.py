"""Faults from outside: interrupts, full disks, damaged files, lack of memory. Each leaves whole files behind, and the next call works."""

import contextlib
import gc
import itertools
import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, Problem, conv2d, cpu, planner, tuning, wisdom
from cpuconv.wisdom import Measured
from processes import child_result, fork_warning, forks, fresh

HERE = cpu.detect()
SMALL = [f"n1_ic4_ih6_iw6_oc{oc}_kh1_kw1_s1_p0_d1_g1_f32_nchw" for oc in (4, 8, 12)]
X = np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 4, 1, 1)).astype(np.float32)
EXPECTED = np.einsum("oc,nchw->nohw", W[:, :, 0, 0].astype(np.float64), X)


def works() -> bool:
    return np.allclose(conv2d(X, W), EXPECTED, atol=1e-5) and np.allclose(Conv2d(W)(X), EXPECTED, atol=1e-5)


def forget_memory() -> None:
    """As a new process would start."""
    wisdom._stores.clear()
    wisdom._reported.clear()
    cpuconv.clear_cache()


def record(spec: str, seconds: float = 1e-6) -> None:
    wisdom.record(Problem.parse(spec), HERE, {"im2col": Measured(1, seconds)})


def saved(directory: Path) -> list[str]:
    """Keys in the wisdom file, of which nothing but the file itself and its lock may be left."""
    assert {path.suffix for path in directory.glob("*")} <= {".json", ".lock"}
    return list(json.loads(wisdom.path().read_text())["problems"]) if wisdom.path().exists() else []


# Interrupts


@pytest.fixture(scope="module", autouse=True)
def _numba_is_loaded():
    """An interrupt while Numba starts leaves Numba half made."""
    for spec in SMALL:
        for algorithm in tuning.contestants(Problem.parse(spec), planner.Budget(), HERE):
            algorithm.build(Problem.parse(spec), HERE)
    conv2d(X, W, algorithm="direct" if find_spec("numba") else "auto")


@contextlib.contextmanager
def interrupted_at(event: int):
    """KeyboardInterrupt behind the n-th call of a function, which is where the interpreter looks for signals."""
    left = itertools.count(event, -1)
    fallen = []

    def count(frame, kind, _) -> None:
        if kind in ("call", "c_return") and next(left) == 0:
            sys.setprofile(None)
            fallen.append(event)
            raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        yield fallen
    finally:
        sys.setprofile(None)


def interruptions(action, step: int):
    """Do `action` again and again, interrupted later and later until it ends by itself; yields after each interruption."""
    for event in itertools.count(0, step):
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(event) as fallen:
            action()
        if not fallen:
            assert event > 20 * step, "it was hardly interrupted"
            return
        yield event  # even if it was lost in a destructor, where Python cannot raise


quiet = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@quiet
def test_wisdom_is_whole_wherever_an_interrupt_falls(wisdom_directory):
    record(SMALL[0])
    for event in interruptions(lambda: record(SMALL[1]), step=7):
        known = wisdom.entries().keys()
        assert saved(wisdom_directory), event
        record(SMALL[2])
        assert known < set(saved(wisdom_directory)), event
        wisdom.forget(SMALL[1])
        wisdom.forget(SMALL[2])
    assert len(saved(wisdom_directory)) == 2


@quiet
def test_a_tune_may_be_interrupted_anywhere(wisdom_directory):
    cpuconv.tune(SMALL, time_limit=0.1)  # compiled and imported
    wisdom.forget()
    for event in interruptions(lambda: cpuconv.tune(SMALL[:2], time_limit=1e-6), step=11):
        assert len(saved(wisdom_directory)) <= 2, event
        assert works()
        wisdom.forget()
    assert list(cpuconv.tune(SMALL[0], time_limit=0.05)) == SMALL[:1]


@quiet
def test_a_layer_may_be_interrupted_anywhere():
    conv = Conv2d(W)

    def first_call() -> None:
        nonlocal conv
        conv = Conv2d(W)
        cpuconv.clear_cache()
        conv(X)

    for _ in interruptions(first_call, step=19):
        assert np.allclose(conv(X), EXPECTED, atol=1e-5)
        assert works()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_a_long_tune_is_interrupted_by_a_signal(wisdom_directory):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for seconds in (0.01, 0.05, 0.3):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with pytest.raises(KeyboardInterrupt):
                cpuconv.tune(SMALL, time_limit=1000)
            saved(wisdom_directory)
            assert works()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert list(cpuconv.tune(SMALL[0], time_limit=0.05)) == SMALL[:1]


@forks
@fork_warning
def test_a_killed_process_leaves_a_whole_file(wisdom_directory):
    record(SMALL[0])
    for milliseconds in (2, 5, 10, 20, 40):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                for i in itertools.count(1):
                    record(SMALL[1], 1e-6 * i)
            os._exit(1)
        time.sleep(milliseconds / 1000)
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        forget_memory()
        assert 1 <= len(wisdom.entries()) <= 2
    record(SMALL[2])
    assert len(saved(wisdom_directory)) == 3


def test_an_algorithm_that_fails_while_it_is_tuned(wisdom_directory, monkeypatch):
    call = tuning._Arrays.call

    def failing(arrays, algorithm, cpu):
        run = call(arrays, algorithm, cpu)
        runs = itertools.count()

        def fail() -> None:
            run()
            if str(arrays.problem) == SMALL[1] and next(runs) == 2:
                raise MemoryError

        return fail

    monkeypatch.setattr(tuning._Arrays, "call", failing)
    with pytest.raises(MemoryError):
        cpuconv.tune(SMALL, time_limit=60)
    monkeypatch.setattr(tuning._Arrays, "call", call)
    assert [key.split()[0] for key in saved(wisdom_directory)] == SMALL[:1]
    assert works()
    assert list(cpuconv.tune(SMALL[0], time_limit=0.05)) == SMALL[:1]


# Disks


@forks
@fork_warning
def test_a_full_disk_keeps_the_old_wisdom(wisdom_directory):
    record(SMALL[0])
    old = wisdom.path().read_bytes()

    def child() -> bool:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 10, len(old) + 10))
        with pytest.warns(RuntimeWarning, match="cannot be written .*too large.* stays in memory"):
            record(SMALL[1])
        return len(wisdom.entries()) == 2 and works()

    assert child_result(child) == 0
    assert wisdom.path().read_bytes() == old
    saved(wisdom_directory)


@forks
@fork_warning
@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no users on this system")
def test_a_directory_of_somebody_else(wisdom_directory):
    record(SMALL[0])

    def child() -> bool:
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write everywhere
        with pytest.warns(RuntimeWarning, match="cannot be written .* stays in memory"):
            record(SMALL[1])
        return len(wisdom.entries()) == 2 and works()

    wisdom_directory.chmod(0o555)
    assert child_result(child) == 0
    assert len(saved(wisdom_directory)) == 1


DIRECT = """
import numpy as np, cpuconv
x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
assert (cpuconv.conv2d(x, w, algorithm="direct", activation="relu") == 27).all()
"""


def test_compiled_code_that_cannot_be_kept_is_used(tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))"
    fresh(full + DIRECT, NUMBA_CACHE_DIR=str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"?" + b[1:]], ids=["empty", "half", "other"])
def test_damaged_compiled_code_is_compiled_again(tmp_path, monkeypatch, suffix, damage):
    numba = pytest.importorskip("numba")
    from cpuconv._jit.direct import compile_callback

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def compiled():
        def triple(a):
            return 3 * a

        return compile_callback(numba.types.int64(numba.types.int64), triple, 3)

    assert compiled().cache_hits == 0
    (file,) = tmp_path.rglob(f"*.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    for hits in (0, None, 1):  # made anew, kept, found
        again = compiled()
        assert again.ctypes(5) == 15
        assert hits is None or again.cache_hits == hits


def test_each_kernel_has_its_own_file(tmp_path, monkeypatch):
    """One index for several would name the wrong one's code, if two processes wrote it at once."""
    numba = pytest.importorskip("numba")
    from cpuconv._jit import activations, direct

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for size in (4, 8):
        assert direct.pixels.__wrapped__(size, 2, 2, 1).address
        assert activations.named.__wrapped__("clip", size).address
    assert len(list(tmp_path.rglob("*.nbi"))) == len(list(tmp_path.rglob("*.1.nbc"))) == 4


# Memory

NEEDY = {"NCHW": ["winograd_f4x3", "winograd_f5x3s2", "implicit_gemm"], "NHWC": ["winograd_f4x3", "winograd_f5x3s2"]}
"""Whose scratch is large for 120 x 120 pixels. (Not im2col: OpenBLAS ends the process where it finds no memory.)"""
SHORT_OF_MEMORY = """
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import cpuconv
from cpuconv.planner import plan

OC = 128


def layer(name, layout):
    k, groups = 3, OC if name == "depthwise" else 1
    shape = (OC, OC // groups, k, k) if layout == "NCHW" else (k, k, OC // groups, OC)
    conv = cpuconv.Conv2d(np.ones(shape, np.float32), stride=2 if name.endswith("s2") else 1, groups=groups, layout=layout, algorithm=name)
    return conv, k * k * OC // groups


def arrays(conv, size):
    x = np.ones((2, OC, size, size) if conv.options.layout == "nchw" else (2, size, size, OC), np.float32)
    plan(conv.problem(x.shape), conv.budget)
    conv(x[:0])
    return x, np.zeros(conv.problem(x.shape).y_shape, np.float32)


def limit(size):
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def try_it(name, layout):
    conv, expected = layer(name, layout)
    (x, out), (small_x, small_out) = arrays(conv, 120), arrays(conv, 9)
    limit(int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    try:
        conv(x, out=out)
    except MemoryError as e:
        print(layout, name, e)
    limit(resource.RLIM_INFINITY)
    for x, out in ((small_x, small_out), (x, out)):
        assert np.allclose(conv(x, out=out), expected, rtol=1e-4), (layout, name)


cpuconv.set_num_threads(THREADS)
for layout in ("NCHW", "NHWC"):
    for name in NAMES:
        with ThreadPoolExecutor(1) as fresh:  # has no scratch yet
            fresh.submit(try_it, name, layout).result()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_short_of_memory(threads):
    """A process that may have no more memory than it has: every algorithm says so, or does without; then smaller layers still work."""
    # glibc shall give back what is freed, and look nowhere else for what it is refused
    alone = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}
    lines = fresh(f"THREADS, NAMES = {threads}, {[*NEEDY['NCHW'], 'depthwise', 'direct']}\n{SHORT_OF_MEMORY}", **alone).splitlines()
    message = " convolution: no memory for the workspace of a thread"
    assert all(line.endswith(message) for line in lines)
    assert {line.removesuffix(message) for line in lines} >= {f"{layout} {name}" for layout in NEEDY for name in NEEDY[layout]}


# Long runs


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_10_000_calls_of_many_forms_leave_memory_flat():

    def wrong(error, function, *args, **kwargs) -> None:
        with pytest.raises(error):
            function(*args, **kwargs)

    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 8, 12, 12)).astype(np.float32)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    layer = Conv2d(w, padding=1, activation="silu")
    out = np.empty((2, 8, 12, 12), np.float32)
    forms = (
        lambda i: layer(x, out=out),
        lambda i: layer(x[:, :, : 4 + i % 9], residual=None),
        lambda i: layer(x[::-1, :, ::-1], residual=out),
        lambda i: layer(x[0].astype(np.float16)),
        lambda i: conv2d(x, w, stride=1 + i % 3, padding=((1, 2), (0, i % 4)), padding_mode="reflect"),
        lambda i: conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), layout="NHWC", algorithm=("winograd", "im2col", "direct")[i % 3]),
        lambda i: conv2d(x.astype(np.float64), w[:, :1], groups=8, dilation=2, accuracy="strict"),
        lambda i: Conv2d(w, np.ones(8, np.float32), activation="relu")(x),
        lambda i: wrong(ValueError, layer, x, out=out[1:]),
        lambda i: wrong(TypeError, conv2d, x.astype(complex), w),
    )

    def calls(n: int) -> None:
        for i in range(n):
            for form in forms:
                form(i)
        gc.collect()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    calls(100)
    before = resident()
    calls(1000)
    # a leak of one result a call would come to 92 MB, of one tuple to 0.5 MB
    assert resident() - before < 1 << 20


A_LAYER_COMES_AND_GOES = """
import os
from pathlib import Path
import numpy as np
from cpuconv import Conv2d


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


w, x = np.ones((512, 512, 3, 3), np.float32), np.ones((1, 512, 7, 7), np.float32)
Conv2d(w[:8], padding=1)(x)
large = np.ones(24 << 20, np.uint8)
del large  # from now on glibc gives what is smaller from its heap
before = resident()
layer = Conv2d(w, padding=1)
y = layer(x)
between = np.ones(100_000, np.uint8)  # behind the layer's arrays, were they on the heap
made = resident()
del layer, y
print((made - before) >> 20, (resident() - before) >> 20)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_a_layer_that_is_gone_leaves_no_memory():
    """Its weights, as given and as packed, go back to the system, even where glibc would keep what it is given."""
    made, left = map(int, fresh(A_LAYER_COMES_AND_GOES).split())
    assert made >= 18 and left <= 2
