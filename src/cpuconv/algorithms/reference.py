"""`reference`: the float64 oracle as an algorithm. Does every valid problem, all passes; the slowest."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from cpuconv import reference
from cpuconv.cpu import Cpu
from cpuconv.plan import NUMPY_DTYPES, Array, Cost, Quantization, Rejection, plain_integers
from cpuconv.problem import Problem


@dataclass(frozen=True)
class ReferencePlan:
    problem: Problem
    cost: Cost
    weight_format: Hashable = "reference"

    def pack(
        self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False
    ) -> tuple[Array, Array | None, Quantization | None]:
        return weight, bias, quantization

    def run(self, x: Array, packed: tuple[Array, Array | None, Quantization | None], residual: Array | None, out: Array, threads: int) -> None:
        weight, bias, quantization = packed
        if self.problem.dtype in NUMPY_DTYPES:
            out[...] = reference.compute(self.problem, x, weight, bias, residual)
        else:
            out[...] = reference.integers(self.problem, x, weight, bias, quantization or plain_integers(self.problem))


class Reference:
    name = "reference"
    version = 1
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return None

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        padded = p.n * p.ic * math.prod(a.size + max(a.before, 0) + max(a.after, 0) for a in p.axes)
        outputs, taps = math.prod(p.y_shape), math.prod(a.kernel for a in p.axes)
        workspace = 8 * (2 * padded + 3 * outputs + math.prod(p.weight_shape))
        # float64 matmul of one core at half its peak, and each tap's copy of the input and pass over the output
        seconds = 50e-6 + p.flops / (0.5 * cpu.peak("f64")) + taps * (1e-5 + 8 * outputs * (p.ic / p.oc + 2) / 3e9)
        return Cost(seconds, workspace, 0, {"f32": 1.2e-7, "f64": 3e-16 * (4 + p.k**0.5)}.get(p.dtype, 0.0))

    def build(self, problem: Problem, cpu: Cpu) -> ReferencePlan:
        return ReferencePlan(problem, self.estimate(problem, cpu))
