"""What all layers do: a weight packed once, and a plan kept for each input shape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, planner, wisdom
from cpuconv.options import Options
from cpuconv.plan import Array, Bindable, Bound, Plan, Quantization, aligned_empty, lasting_empty, types
from cpuconv.planner import Budget
from cpuconv.problem import INTEGER_DTYPES, Epilogue, Problem
from cpuconv.threads import for_work

ALIGNED_FROM = 2e-5  # seconds: a shorter call would spend more on aligning its result than it gains
MAX_SHAPES = 64  # input shapes for which a layer keeps its plan; the oldest is forgotten

Bind = Callable[[Any, tuple[int, ...], tuple[int, ...]], Bound]


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], seconds: float) -> Array:
    """Where a call that takes so long writes its result."""
    return (aligned_empty if seconds > ALIGNED_FROM else np.empty)(shape, dtype)


@dataclass(frozen=True)
class Planned:
    """What follows from shapes, dtypes and options alone: the same for all layers that share them."""

    plan: Plan
    shape: tuple[int, ...]  # of the result, without the batch axis where the input has none
    bind: Bind | None  # the plan's, where inputs and results may be of its types as they are


@dataclass(frozen=True)
class _Prepared:
    """All that a call needs for inputs of one shape and dtype."""

    plan: Plan
    packed: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ready: _Ready | None  # inputs and results of the plan's types, zero padding: there may be nothing to convert


@dataclass(frozen=True, slots=True)
class _Ready:
    """The short way of a call: what is too slow to find out anew in each of a million calls."""

    bound: Bound
    shape: tuple[int, ...]  # of the result
    dtype: np.dtype[Any]
    seconds: float
    changes: int  # of wisdom, when it was made


class Layer:
    """A convolution of one form with a fixed weight. `one_shot`: for one call, borrowing the weight and counting the time of packing it."""

    quantization: Quantization | None = None  # of layers of 8-bit integers

    def __init__(
        self, options: Options, weight: npt.ArrayLike, bias: npt.ArrayLike | None, activation: Any, algorithm: str, accuracy: Any,
        workspace_limit: Any, one_shot: bool = False,
    ) -> None:  # fmt: skip
        self.options = options
        self.activation = arguments.activation(activation)
        self.budget = Budget(algorithm, arguments.accuracy(accuracy), arguments.workspace_limit(workspace_limit), one_shot)
        planner.named(algorithm)
        self.weight = self._keep(arguments.array("weight", weight))
        self.options.check_weight(self.weight.shape)
        self.bias = None if bias is None else self._keep(arguments.array("bias", bias, sums=True))
        if self.bias is not None and self.bias.shape != (self.out_channels,):
            rule = f"({self.out_channels},), one number for each output channel of weight {self.weight.shape}"
            raise ValueError(f"bias: shape {self.bias.shape} must be {rule}")
        self._weight_dtypes = (self.weight.dtype, arguments.strong_dtype(bias, self.bias))
        self._start()

    def _start(self) -> None:
        """Begin without plans."""
        self._prepared: dict[Hashable, _Prepared] = {}
        self._packed: dict[Hashable, Any] = {}
        self._ready: _Ready | None = None  # of the latest call
        self._wisdom = wisdom.changes  # when the plans that are kept were made
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, in another process perhaps: it plans and packs for itself."""
        own = ("_prepared", "_packed", "_ready", "_wisdom", "_lock")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _keep(self, value: Array) -> Array:
        """A copy: what the caller does with the array later changes nothing."""
        if self.budget.one_shot:
            return value
        kept = lasting_empty(value.shape, value.dtype)
        kept[...] = value
        return kept

    @property
    def out_channels(self) -> int:
        return self.options.out_channels(self.weight.shape)

    @property
    def in_channels(self) -> int:
        return self.options.in_channels(self.weight.shape)

    def __repr__(self) -> str:
        o = self.options
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, kernel_size={o.kernel_size(self.weight.shape)}, {o}, "
            f"bias={self.bias is not None}, layout={o.layout_name!r})"
        )

    def __call__(self, x: npt.ArrayLike, residual: npt.ArrayLike | None = None, out: Array | None = None) -> Array:
        """Return ``activation(conv(x) + bias + residual)``.

        Parameters
        ----------
        x : array_like
            In the layout, with or without the batch axis: ``(N, C, H, W)`` or ``(C, H, W)``; for NHWC ``(N, H, W, C)`` or ``(H, W, C)``.
        residual : array_like of the result's shape, optional
        out : ndarray of the result's shape and dtype, optional
            Where the result is written; must not overlap `x`.

        Raises
        ------
        ValueError, TypeError
            If an argument breaks its rule; nothing is written to `out` then.
        UnsupportedError
            If the algorithm named cannot do the problem.
        """
        ready = self._ready
        if ready is not None and residual is None and ready.changes == wisdom.changes:
            result = empty(ready.shape, ready.dtype, ready.seconds) if out is None else out
            if ready.bound.run(x, result, for_work(ready.seconds)):
                return result
        x = arguments.array(self.options.operand, x)
        residual_array = None if residual is None else arguments.array("residual", residual)
        residual_dtype = arguments.strong_dtype(residual, residual_array)
        key = (x.shape, x.dtype, residual is not None, residual_dtype, wisdom.changes)
        prepared = self._prepared.get(key) or self._prepare(key, x, residual is not None, residual_dtype)
        if residual_array is not None and residual_array.shape != prepared.shape:
            raise ValueError(f"residual: shape {residual_array.shape} must be the result's shape {prepared.shape}")
        if out is None:
            result = empty(prepared.shape, prepared.dtype, prepared.plan.cost.seconds)
        else:
            result = arguments.output(out, prepared.shape, prepared.dtype, **{self.options.operand: x})
            if residual_array is not None and arguments.overlap(result, residual_array):
                residual_array = residual_array.copy()
        ready = prepared.ready
        if residual is None and ready and ready.bound.run(x, result, for_work(ready.seconds)):
            self._ready = ready
        else:
            self._convert_and_run(prepared, x, residual_array, result)
        return result

    def _convert_and_run(self, prepared: _Prepared, x: Array, residual: Array | None, result: Array) -> None:
        """The general call: casts, copies and pads what the plan cannot read or write in place."""
        plan = prepared.plan
        problem, kinds = plan.problem, types(plan.problem.dtype)
        if self.options.padding_mode != "zeros":
            x = x if x.ndim == self.options.rank + 2 else x[None]
            x = arguments.pad_image(x, self.options.padding_mode, self.options.pads(x.shape, self.weight.shape), self.options.layout)
        if residual is not None:
            residual = arguments.contiguous(residual, kinds.y).reshape(problem.result_shape)
        in_place = result.flags.carray and result.dtype == kinds.y
        target = result.reshape(problem.result_shape) if in_place else np.empty(problem.result_shape, kinds.y)
        plan.run(arguments.contiguous(x, kinds.x).reshape(problem.operand_shapes[0]), prepared.packed, residual, target, for_work(plan.cost.seconds))
        if not in_place:
            result[...] = target.reshape(result.shape)

    def explain(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> str:
        """Return the table of candidate algorithms for inputs of this shape; see `cpuconv.explain`.

        Examples
        --------
        >>> from cpuconv import Conv2d
        >>> print(Conv2d(np.ones((8, 8, 3, 3), np.float32)).explain((1, 8, 32, 32)))
        n1_ic8_ih32_iw32_oc8_kh3_kw3_s1_p0_d1_g1_f32_nchw: 1.0 MFLOP on ...
        """
        return planner.explain_table(self.problem(x_shape, dtype), self.budget)

    def problem(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, residual: bool = False) -> Problem:
        """Return the problem that inputs of this shape and type pose, with or without a residual of that type.

        Examples
        --------
        >>> from cpuconv import Conv2d
        >>> str(Conv2d(np.ones((8, 8, 3, 3), np.float32)).problem((1, 8, 32, 32)))
        'n1_ic8_ih32_iw32_oc8_kh3_kw3_s1_p0_d1_g1_f32_nchw'
        """
        _, word = self._dtypes(np.dtype(dtype), None)
        return self._problem(tuple(x_shape), word, residual)

    def _dtypes(self, x: np.dtype[Any], residual: np.dtype[Any] | None) -> tuple[np.dtype[Any], str]:
        """The result's dtype and the problem's, for inputs of these."""
        result, word = arguments.problem_dtypes(x, *self._weight_dtypes, residual)
        if word in INTEGER_DTYPES and self.bias is not None and self.bias.dtype.kind == "f":
            raise TypeError(f"bias: a list of floats, with {x} and {self.weight.dtype}, must be an array of int32 (or of floats to compute in)")
        return result, word

    def _problem(self, x_shape: tuple[int, ...], dtype: str, residual: bool) -> Problem:
        return self.options.problem(x_shape, self.weight.shape, dtype, Epilogue(self.bias is not None, residual, self.activation))

    def _prepare(self, key: Hashable, x: Array, residual: bool, residual_dtype: np.dtype[Any] | None) -> _Prepared:
        dtype, word = self._dtypes(x.dtype, residual_dtype)
        form = self.options, self.budget, self.activation, self.weight.shape, self.bias is None, x.shape, residual, dtype, word
        planned = planner.kept(form, lambda: self._plan(x.shape, residual, dtype, word))
        plan, kinds = planned.plan, types(word)
        with self._lock:
            if self._wisdom != wisdom.changes:
                self._prepared.clear()
                self._packed.clear()
                self._wisdom = wisdom.changes
            packed_key = (plan.weight_format, word)
            if packed_key not in self._packed:
                bias = None if self.bias is None else arguments.contiguous(self.bias, kinds.bias)
                weight = arguments.contiguous(self.weight, kinds.weight)
                self._packed[packed_key] = plan.pack(weight, bias, self.quantization, lasting=not self.budget.one_shot)
            packed, ready = self._packed[packed_key], None
            if planned.bind:
                ready = _Ready(planned.bind(packed, x.shape, planned.shape), planned.shape, kinds.x, plan.cost.seconds, wisdom.changes)
            prepared = _Prepared(plan, packed, planned.shape, dtype, ready)
            if len(self._prepared) >= MAX_SHAPES:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[key] = prepared
        return prepared

    def planned(self, x: Array) -> Planned:
        """What follows for calls without a residual on arrays of x's shape and type."""
        dtype, word = self._dtypes(x.dtype, None)
        return self._plan(x.shape, False, dtype, word)

    def _plan(self, x_shape: tuple[int, ...], residual: bool, dtype: np.dtype[Any], word: str) -> Planned:
        problem = self._problem(x_shape, word, residual)
        plan = planner.plan(problem, self.budget)
        shape = self.options.result_shape(problem, len(x_shape) == self.options.rank + 2)
        as_they_are = types(word).x == dtype and not residual and self.options.padding_mode == "zeros"
        return Planned(plan, shape, plan.bind if as_they_are and isinstance(plan, Bindable) else None)
