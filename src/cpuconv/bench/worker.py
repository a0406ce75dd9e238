"""Measures in a process of its own, since peers may crash: `run` starts it, and starts another without the peer that crashed.

Peers may also crash when their objects are freed while other peers' live on, so a worker frees nothing and leaves by
``os._exit``. There is one worker for each network, so that memory does not pile up.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from tempfile import TemporaryFile
from typing import Any

from cpuconv.bench.layers import Layer
from cpuconv.bench.measure import Result, measure
from cpuconv.problem import Problem

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "CPUCONV_NUM_THREADS")


def run(
    layers: list[Layer], names: list[str], threads: int, seconds: float, entering: Callable[[Layer, str], None] = lambda layer, name: None
) -> Iterator[Result]:
    """Measure layers in `names`, yielding each when it is done; `entering` is told the layer and contestant at work.

    Raises
    ------
    RuntimeError
        If a worker ends before it measures anything.
    """
    for _, group in groupby(layers, key=lambda layer: layer.network):
        left = list(group)
        crashes: dict[str, str] = {}  # of the next layer
        while left:
            at: str | None = None
            remaining = [name for name in names if name not in crashes]
            for message in _messages(left, remaining, names, threads, seconds):
                if "status" in message:
                    if at is None:
                        raise RuntimeError(f"the measuring process ended with {message['status']}: {message['stderr']}")
                    crashes[at] = f"crashed: {message['status']}"
                elif "peer" in message:
                    at = message["peer"]
                    entering(left[0], at)
                else:
                    result = Result(left.pop(0), message["seconds"], message["errors"], message["failures"] | crashes)
                    at, crashes = None, {}
                    yield result


def _messages(layers: list[Layer], first_names: list[str], names: list[str], threads: int, seconds: float) -> Iterator[dict[str, Any]]:
    """What one worker says, then how it ended if it did not do all layers."""
    job = {
        "layers": [(layer.network, str(layer.problem), layer.count) for layer in layers],
        "first_names": first_names, "names": names, "threads": threads, "seconds": seconds,
    }  # fmt: skip
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    done = 0
    with TemporaryFile("w+") as errors, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                message = json.loads(line)
                done += "seconds" in message
                yield message
            code = process.wait()
        finally:
            process.kill()
        if done < len(layers):
            errors.seek(0)
            yield {"status": signal.Signals(-code).name if code < 0 else f"status {code}", "stderr": errors.read()[-2000:].strip()}


def main(job: dict[str, Any]) -> None:
    """Do a job; write a line of JSON before each contestant's code runs, and one with each layer's result."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some peers write what they like

    def say(**message: object) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    keep: list[object] = []
    names = job["first_names"]
    for network, spec, count in job["layers"]:
        layer = Layer(network, Problem.parse(spec), count)
        result = measure(layer, names, job["threads"], job["seconds"], keep, lambda name: say(peer=name))
        say(seconds=result.seconds, errors=result.errors, failures=result.failures)
        names = job["names"]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    os._exit(0)
