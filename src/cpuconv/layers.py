"""`Conv2d`: a convolution with its weight packed once and a plan kept for each input shape."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, planner, wisdom
from cpuconv.options import Options
from cpuconv.plan import NUMPY_DTYPES, Array, Plan
from cpuconv.planner import Budget
from cpuconv.problem import Epilogue, Problem
from cpuconv.threads import for_work

MAX_SHAPES = 64  # input shapes for which a layer keeps its plan; the oldest is forgotten


@dataclass(frozen=True)
class _Prepared:
    """All that a call needs for inputs of one shape and dtype."""

    plan: Plan
    packed: Any
    shape: tuple[int, ...]  # of the result, without the batch axis where the input has none
    dtype: np.dtype[Any]
    direct: bool  # inputs of the compute dtype, zero padding: nothing to convert


class Conv2d:
    """A 2-D convolution layer (the cross-correlation of deep learning) with fixed weights, for NumPy arrays.

    The parameters are those of `conv2d`. The weight is copied and packed for the CPU once; a plan is kept for each shape of
    input, until new wisdom (`cpuconv.tune`) calls for a new one. One layer may be called from many threads at once, and be copied and pickled.

    Parameters
    ----------
    weight : array_like
        ``(O, C/groups, kH, kW)`` for ``layout="NCHW"``, ``(kH, kW, C/groups, O)`` for ``"NHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or pair of int
    padding : int, (ph, pw), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCHW" or "NHWC"
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    activation, algorithm, accuracy, workspace_limit
        See `conv2d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv = Conv2d(np.ones((8, 3, 3, 3), np.float32), padding="same", activation="relu")
    >>> conv(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    _one_shot = False

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        padding_mode: str = "zeros",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
    ) -> None:
        self.options = Options.parse(stride, padding, dilation, groups, layout, padding_mode)
        self.activation = arguments.activation(activation)
        self.budget = Budget(algorithm, arguments.accuracy(accuracy), arguments.workspace_limit(workspace_limit), self._one_shot)
        planner.named(algorithm)
        self.weight = self._keep(arguments.array("weight", weight))
        self.options.check_weight(self.weight.shape)
        self.bias = None if bias is None else self._keep(arguments.array("bias", bias))
        if self.bias is not None and self.bias.shape != (self.out_channels,):
            rule = f"({self.out_channels},), one number for each output channel of weight {self.weight.shape}"
            raise ValueError(f"bias: shape {self.bias.shape} must be {rule}")
        self._weight_dtypes = (self.weight.dtype, arguments.strong_dtype(bias, self.bias))
        self._start()

    def _start(self) -> None:
        """Begin without plans."""
        self._prepared: dict[Hashable, _Prepared] = {}
        self._packed: dict[Hashable, Any] = {}
        self._wisdom = wisdom.changes  # when the plans that are kept were made
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, in another process perhaps: it plans and packs for itself."""
        own = ("_prepared", "_packed", "_wisdom", "_lock")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    @staticmethod
    def _keep(value: Array) -> Array:
        """A copy: what the caller does with the array later changes nothing."""
        return value.copy(order="C")

    @property
    def out_channels(self) -> int:
        return self.options.out_channels(self.weight.shape)

    @property
    def in_channels(self) -> int:
        return self.options.in_channels(self.weight.shape)

    def __repr__(self) -> str:
        o = self.options
        return (
            f"Conv2d({self.in_channels}, {self.out_channels}, kernel_size={o.kernel_size(self.weight.shape)}, stride={o.stride}, "
            f"padding={o.padding!r}, dilation={o.dilation}, groups={o.groups}, bias={self.bias is not None}, layout={o.layout.upper()!r})"
        )

    def __call__(self, x: npt.ArrayLike, residual: npt.ArrayLike | None = None, out: Array | None = None) -> Array:
        """Return ``activation(conv(x) + bias + residual)``.

        Parameters
        ----------
        x : array_like
            ``(N, C, H, W)`` or ``(C, H, W)``; for NHWC ``(N, H, W, C)`` or ``(H, W, C)``.
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
        x = arguments.array("x", x)
        residual_array = None if residual is None else arguments.array("residual", residual)
        residual_dtype = arguments.strong_dtype(residual, residual_array)
        key = (x.shape, x.dtype, residual is not None, residual_dtype, wisdom.changes)
        prepared = self._prepared.get(key) or self._prepare(key, x, residual is not None, residual_dtype)
        if residual_array is not None and residual_array.shape != prepared.shape:
            raise ValueError(f"residual: shape {residual_array.shape} must be the result's shape {prepared.shape}")
        if out is None:
            result = np.empty(prepared.shape, prepared.dtype)
        else:
            result = arguments.output(out, prepared.shape, prepared.dtype, x=x)
            if residual_array is not None and arguments.overlap(result, residual_array):
                residual_array = residual_array.copy()
        if prepared.direct and x.flags.c_contiguous and x.flags.aligned and residual is None and result.flags.carray:
            plan = prepared.plan
            plan.run(x, prepared.packed, None, result, for_work(plan.cost.seconds))
        else:
            self._convert_and_run(prepared, x, residual_array, result)
        return result

    def _convert_and_run(self, prepared: _Prepared, x: Array, residual: Array | None, result: Array) -> None:
        """The general call: casts, copies and pads what the plan cannot read or write in place."""
        plan = prepared.plan
        problem, dtype = plan.problem, NUMPY_DTYPES[plan.problem.dtype]
        x = x if x.ndim == 4 else x[None]
        if self.options.padding_mode != "zeros":
            x = arguments.pad_image(x, self.options.padding_mode, self.options.pads(x.shape, self.weight.shape), self.options.layout)
        if residual is not None:
            residual = arguments.contiguous(residual, dtype).reshape(problem.y_shape)
        in_place = result.flags.carray and result.dtype == dtype
        target = result.reshape(problem.y_shape) if in_place else np.empty(problem.y_shape, dtype)
        plan.run(arguments.contiguous(x, dtype), prepared.packed, residual, target, for_work(plan.cost.seconds))
        if not in_place:
            result[...] = target.reshape(result.shape)

    def explain(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> str:
        """Return the table of candidate algorithms for inputs of this shape; see `cpuconv.explain`.

        Examples
        --------
        >>> import numpy as np
        >>> print(Conv2d(np.ones((8, 8, 3, 3), np.float32)).explain((1, 8, 32, 32)))
        n1_ic8_ih32_iw32_oc8_kh3_kw3_s1_p0_d1_g1_f32_nchw: 1.0 MFLOP on ...
        """
        return planner.explain_table(self.problem(x_shape, dtype), self.budget)

    def problem(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, residual: bool = False) -> Problem:
        """Return the problem that inputs of this shape and type pose, with or without a residual of that type.

        Examples
        --------
        >>> import numpy as np
        >>> str(Conv2d(np.ones((8, 8, 3, 3), np.float32)).problem((1, 8, 32, 32)))
        'n1_ic8_ih32_iw32_oc8_kh3_kw3_s1_p0_d1_g1_f32_nchw'
        """
        result = arguments.result_dtype(np.dtype(dtype), *self._weight_dtypes)
        return self._problem(tuple(x_shape), arguments.COMPUTE_DTYPES[result.name], residual)

    def _problem(self, x_shape: tuple[int, ...], dtype: str, residual: bool) -> Problem:
        return self.options.problem(x_shape, self.weight.shape, dtype, Epilogue(self.bias is not None, residual, self.activation))

    def _prepare(self, key: Hashable, x: Array, residual: bool, residual_dtype: np.dtype[Any] | None) -> _Prepared:
        result = arguments.result_dtype(x.dtype, *self._weight_dtypes, residual_dtype)
        compute = arguments.COMPUTE_DTYPES[result.name]
        problem = self._problem(x.shape, compute, residual)
        plan = planner.plan(problem, self.budget)
        with self._lock:
            if self._wisdom != wisdom.changes:
                self._prepared.clear()
                self._packed.clear()
                self._wisdom = wisdom.changes
            packed_key = (plan.weight_format, compute)
            if packed_key not in self._packed:
                dtype = NUMPY_DTYPES[compute]
                bias = None if self.bias is None else arguments.contiguous(self.bias, dtype)
                self._packed[packed_key] = plan.pack(arguments.contiguous(self.weight, dtype), bias)
            shape = problem.y_shape if x.ndim == 4 else problem.y_shape[1:]
            direct = x.dtype == result == NUMPY_DTYPES[compute] and self.options.padding_mode == "zeros" and x.ndim == 4
            prepared = _Prepared(plan, self._packed[packed_key], shape, result, direct)
            if len(self._prepared) >= MAX_SHAPES:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[key] = prepared
        return prepared
