"""`separable_conv2d` and its layer: a depthwise convolution and a 1x1 convolution of its result, in one pass."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, cpu
from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.algorithms.depthwise import Depthwise
from cpuconv.algorithms.implicit_gemm import ImplicitGemm
from cpuconv.layer import MAX_SHAPES, empty
from cpuconv.layers import Conv2d
from cpuconv.plan import NUMPY_DTYPES, Array
from cpuconv.problem import Epilogue, Problem
from cpuconv.threads import for_work, get_num_threads


@dataclass(frozen=True)
class _Prepared:
    """All that a call needs for inputs of one shape and a dtype."""

    separable: core.Separable
    depthwise: Problem
    shape: tuple[int, ...]  # of the result, without the batch axis where the input has none
    dtype: np.dtype[Any]
    bound: core.BoundSeparable | None  # the short way, where nothing is to be converted
    threads: int
    most_threads: int  # that calls were allowed
    seconds: float


class SeparableConv2d:
    """A layer of `separable_conv2d` with its weights packed once; may be called from many threads at once.

    Parameters
    ----------
    depthwise_weight, pointwise_weight, bias, stride, padding, dilation, layout, padding_mode, depth_bias, depth_activation, activation
        See `separable_conv2d`.
    depth_multiplier : int
        Channels that the depthwise convolution makes of each input channel: m of ``C*m``.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv = SeparableConv2d(np.ones((8, 1, 3, 3), np.float32), np.ones((16, 8, 1, 1), np.float32), padding=1, activation="relu")
    >>> conv(np.ones((1, 8, 10, 10), np.float32)).shape
    (1, 16, 10, 10)
    """

    def __init__(
        self,
        depthwise_weight: npt.ArrayLike,
        pointwise_weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        *,
        depth_multiplier: int = 1,
        layout: str = "NCHW",
        padding_mode: str = "zeros",
        depth_bias: npt.ArrayLike | None = None,
        depth_activation: Any = None,
        activation: Any = None,
    ) -> None:
        depthwise, pointwise = arguments.array("depthwise_weight", depthwise_weight), arguments.array("pointwise_weight", pointwise_weight)
        channels = between(depthwise.shape, layout)
        self.multiplier = arguments.integer("depth_multiplier", depth_multiplier)
        if self.multiplier < 1 or channels % self.multiplier:
            raise ValueError(f"depth_multiplier: {depth_multiplier} must divide the {channels} output channels of depthwise_weight {depthwise.shape}")
        form = "(O, {}, 1, 1)" if layout == "NCHW" else "(1, 1, {}, O)"
        o = pointwise.shape[0 if layout == "NCHW" else -1] if pointwise.ndim == 4 else 0
        if not o or pointwise.shape != ((o, channels, 1, 1) if layout == "NCHW" else (1, 1, channels, o)):
            rule = f"{form.format(channels)}, as depthwise_weight {depthwise.shape} makes {channels} channels"
            raise ValueError(f"pointwise_weight: shape {pointwise.shape} must be {rule}, for layout {layout}")
        try:
            self.depthwise = Conv2d(
                depthwise, depth_bias, stride, padding, dilation, channels // self.multiplier, layout=layout, padding_mode=padding_mode,
                activation=depth_activation,
            )  # fmt: skip
        except (ValueError, TypeError) as e:
            raise type(e)(f"depth_{e}") if str(e).startswith(("bias", "activation")) else e from None
        self.pointwise = Conv2d(pointwise, bias, layout=layout, activation=activation)
        weak = (depth_bias, self.depthwise.bias), (bias, self.pointwise.bias)
        self._dtypes = (depthwise.dtype, pointwise.dtype, *(arguments.strong_dtype(*b) for b in weak))
        self._start()

    def _start(self) -> None:
        """Begin without plans."""
        self._prepared: dict[Hashable, _Prepared] = {}
        self._ready: _Prepared | None = None  # of the last call that took the short way
        self._packed: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: it plans and packs for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_prepared", "_ready", "_packed", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        return f"SeparableConv2d({self.depthwise!r}, {self.pointwise!r})"

    def __call__(self, x: npt.ArrayLike, residual: npt.ArrayLike | None = None, out: Array | None = None) -> Array:
        """Return the result for x; `residual`, of the result's shape, is added before the last activation.

        Raises
        ------
        ValueError, TypeError
            If an argument breaks its rule; nothing is written to `out` then.
        """
        ready = self._ready
        if ready is not None and ready.bound and residual is None and ready.most_threads == get_num_threads():
            result = empty(ready.shape, ready.dtype, ready.seconds) if out is None else out
            if ready.bound.run(x, result, ready.threads):
                return result
        if any(a and a.function for a in (self.depthwise.activation, self.pointwise.activation)):
            return self.pointwise(self.depthwise(x), residual, out)  # a Python function needs a kernel compiled at run time
        images = arguments.array("x", x)
        added = None if residual is None else arguments.array("residual", residual)
        added_dtype = arguments.strong_dtype(residual, added)
        key = (images.shape, images.dtype, added is not None, added_dtype, get_num_threads())
        prepared = self._prepared.get(key) or self._prepare(key, images, added is not None, added_dtype)
        if added is not None and added.shape != prepared.shape:
            raise ValueError(f"residual: shape {added.shape} must be the result's shape {prepared.shape}")
        result = np.empty(prepared.shape, prepared.dtype) if out is None else arguments.output(out, prepared.shape, prepared.dtype, x=images)
        if added is None and prepared.bound and prepared.bound.run(images, result, prepared.threads):
            self._ready = prepared
        else:
            self._convert_and_run(prepared, images, added, result)
        return result

    def _convert_and_run(self, prepared: _Prepared, x: Array, residual: Array | None, result: Array) -> None:
        """The general call: casts, copies and pads what cannot be read or written in place."""
        compute, options = NUMPY_DTYPES[prepared.depthwise.dtype], self.depthwise.options
        y_shape = prepared.shape if x.ndim == 4 else (1, *prepared.shape)
        if options.padding_mode != "zeros":
            pads = options.pads(x.shape, self.depthwise.weight.shape)
            x = arguments.pad_image(x if x.ndim == 4 else x[None], options.padding_mode, pads, options.layout)
        if residual is not None:
            residual = arguments.contiguous(residual, compute).reshape(y_shape)
        in_place = result.flags.carray and result.dtype == compute and (residual is None or not arguments.overlap(result, residual))
        y = result.reshape(y_shape) if in_place else np.empty(y_shape, compute)
        prepared.separable.run(arguments.contiguous(x, compute).reshape(prepared.depthwise.x_shape), residual, y, prepared.threads)
        if not in_place:
            result[...] = y.reshape(result.shape)

    def _prepare(self, key: Hashable, x: Array, residual: bool, residual_dtype: np.dtype[Any] | None) -> _Prepared:
        machine, d, p, m = cpu.detect(), self.depthwise, self.pointwise, self.multiplier
        dtype = arguments.result_dtype(x.dtype, *self._dtypes, residual_dtype)
        whole = d.options.problem(x.shape, d.weight.shape, arguments.COMPUTE_DTYPES[dtype.name], Epilogue(True, False, d.activation))
        depthwise = replace(whole, oc=whole.ic)
        pointwise = Problem(
            whole.n, whole.oc, whole.oh, whole.ow, p.out_channels, 1, 1, dtype=whole.dtype, layout=whole.layout,
            epilogue=Epilogue(True, residual, p.activation),
        )  # fmt: skip
        first = _plan(Depthwise(), core.DEPTHWISE, depthwise, machine, stream=False)  # its results are read at once
        seconds = m * first.cost.seconds + ImplicitGemm().estimate(pointwise, machine).seconds
        threads = for_work(seconds)
        pixels = whole.oh * whole.ow
        small = pixels <= PIXELS[whole.layout] or pixels * whole.oc * whole.itemsize <= _size(whole, machine)
        if small:
            second = [_plan(ImplicitGemm(), core.IMPLICIT_GEMM, pointwise.per_image, machine, stream=native.streams(pointwise, machine))]
        else:
            rows = _rows(whole, threads, machine)
            second = [_band(pointwise, height, machine) for height in (rows, whole.oh % rows) if height]
        with self._lock:
            stages = [(first.convolution, *self._pack(first, j)) for j in range(m)]
            separable = core.Separable(stages, [(plan.convolution, *self._pack(plan, None)) for plan in second], small)
            shape = pointwise.y_shape if x.ndim == 4 else pointwise.y_shape[1:]
            as_they_are = x.dtype == dtype == NUMPY_DTYPES[whole.dtype] and d.options.padding_mode == "zeros"
            bound = core.BoundSeparable(separable, x.shape, shape, whole.dtype == "f64") if as_they_are else None
            prepared = _Prepared(separable, depthwise, shape, dtype, bound, threads, get_num_threads(), seconds)
            if len(self._prepared) >= MAX_SHAPES:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[key] = prepared
        return prepared

    def _pack(self, plan: native.NativePlan, part: int | None) -> Any:
        """The packed weight and bias: of the depthwise channels c m + part, or of the 1x1, which sees channels in the order [m][c]."""
        key = (plan.weight_format, plan.problem.dtype, part)
        if key not in self._packed:
            layer = self.pointwise if part is None else self.depthwise
            dtype, m, nchw = NUMPY_DTYPES[plan.problem.dtype], self.multiplier, plan.problem.layout == "nchw"
            weight, bias = layer.weight, layer.bias
            if part is not None:
                weight = weight[part::m] if nchw else weight[..., part::m]
                bias = None if bias is None else bias[part::m]
            elif nchw:
                weight = weight.reshape(len(weight), -1, m).swapaxes(1, 2).reshape(weight.shape)
            else:
                weight = weight.reshape(-1, m, weight.shape[3]).swapaxes(0, 1).reshape(weight.shape)
            bias = None if bias is None else arguments.contiguous(bias, dtype)
            self._packed[key] = plan.pack(arguments.contiguous(weight, dtype), bias, lasting=True)
        return self._packed[key]


def between(shape: tuple[int, ...], layout: Any) -> int:
    """Channels that a depthwise weight of this shape makes."""
    arguments.choice("layout", layout, arguments.LAYOUTS[2])
    form, inputs = ("(C*m, 1, kH, kW)", 1) if layout == "NCHW" else ("(kH, kW, 1, C*m)", 2)
    if len(shape) != 4 or 0 in shape or shape[inputs] != 1:
        raise ValueError(f"depthwise_weight: shape {shape} must be {form} with no empty axis, for layout {layout}")
    return shape[0 if layout == "NCHW" else 3]


def _band(pointwise: Problem, rows: int, machine: cpu.Cpu) -> native.NativePlan:
    """The 1x1 convolution on a band. It cuts its sums as on whole images, so that bands of all sizes give the same bits."""
    p, whole = replace(pointwise, n=1, ih=rows), ImplicitGemm().blocking(pointwise, machine)
    return _plan(ImplicitGemm(), core.IMPLICIT_GEMM, p, machine, channels=p.ic, kc=whole.kc, band=True, stream=whole.stream)


def _plan(algorithm: Depthwise | ImplicitGemm, kind: int, p: Problem, machine: cpu.Cpu, **changes: Any) -> native.NativePlan:
    """The algorithm's plan, but for some of its blocking."""
    blocking = algorithm.blocking(p, machine)._replace(**changes)
    convolution = core.Convolution(machine.isa, p.dtype, kind, native.geometry(p, machine), native.activation(p.epilogue.activation), blocking)
    return replace(algorithm.build(p, machine), convolution=convolution)


CACHED = 8 << 20  # bytes of a depthwise result that L3 holds beside the rest
PIXELS = {"nhwc": 56, "nchw": 224}  # of a band, at least, for the 1x1 to be worth reading its weight; planes, in vectors, want more


def _size(p: Problem, machine: cpu.Cpu) -> int:
    """Bytes of a depthwise result that stay in cache for the 1x1; an image with no more is not divided.

    NHWC: bands cost little, and leave L2 to the input, the result and the weight. NCHW: the shorter the columns of a band, the more it costs to begin
    them, and L3 gives whole planes faster than parts (on a Zen 4, bands of 1 MB take up to 1.09 times as long as all of an image, of 256 KB up to
    1.22 times).
    """
    return min(machine.l3 // 4, CACHED) if p.layout == "nchw" else machine.l2 // 2


def _rows(p: Problem, threads: int, machine: cpu.Cpu) -> int:
    """Output rows of a band, of about the same number each; of an image as many bands for each thread, two at least.

    Those of planes are multiples of four: their kernels take four at a time, bands share rows of the input, and the 1x1 wants vectors of pixels.
    """
    unit = 4 if p.layout == "nchw" else 1
    rows = max(_size(p, machine) // (p.ow * p.oc * p.itemsize), PIXELS[p.layout] // p.ow, 1)
    if threads > 1:
        rows = max(1, min(rows, p.n * p.oh // (2 * threads)))
    bands = -(-p.oh // rows)
    if p.n == 1:
        bands = -(-bands // threads) * threads
    even = -(-p.oh // min(p.oh, bands))
    return min(p.oh, -(-even // unit) * unit)


def separable_conv2d(
    x: npt.ArrayLike,
    depthwise_weight: npt.ArrayLike,
    pointwise_weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    *,
    layout: str = "NCHW",
    padding_mode: str = "zeros",
    depth_bias: npt.ArrayLike | None = None,
    depth_activation: Any = None,
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``activation(conv1x1(depth_activation(depthwise(x) + depth_bias)) + bias + residual)``, without storing what lies between.

    The depthwise separable convolution of MobileNet and Xception (A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks
    for Mobile Vision Applications", 2017): a band of rows of the depthwise result at a time, which stays in cache until the 1x1
    convolution has used it. To apply the same weights many times, make a `SeparableConv2d`.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)`` or ``(C, H, W)``; for ``layout="NHWC"`` ``(N, H, W, C)`` or ``(H, W, C)``.
    depthwise_weight : array_like
        ``(C*m, 1, kH, kW)``, for NHWC ``(kH, kW, 1, C*m)``: outputs ``c*m`` to ``c*m + m - 1`` come from input channel ``c``.
    pointwise_weight : array_like
        ``(O, C*m, 1, 1)``, for NHWC ``(1, 1, C*m, O)``.
    bias, depth_bias : array_like of shape (O,) and (C*m,), optional
    stride, padding, dilation, padding_mode
        Of the depthwise convolution; see `conv2d`.
    layout : "NCHW" or "NHWC"
    depth_activation, activation : optional
        After the depthwise and after the 1x1 convolution; see `conv2d`.
    residual : array_like of the result's shape, optional
    out : ndarray, optional
        Where the result is written: of its shape and dtype, not overlapping an input but `residual`.

    Returns
    -------
    ndarray
        ``(N, O, outH, outW)`` or ``(N, outH, outW, O)`` (or unbatched, as x), of the inputs' promoted dtype.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names the argument, its value and the rule. Nothing is written to `out` then.

    Examples
    --------
    >>> import numpy as np
    >>> x, d, p = np.ones((1, 8, 10, 10)), np.ones((16, 1, 3, 3)), np.ones((4, 16, 1, 1))
    >>> separable_conv2d(x, d, p, padding=1, stride=2, depth_activation="relu6").shape
    (1, 4, 5, 5)
    """
    images, depthwise = arguments.array("x", x), arguments.array("depthwise_weight", depthwise_weight)
    outputs = between(depthwise.shape, layout)
    if images.ndim not in (3, 4):
        raise ValueError(f"x: shape {images.shape} must be {'(N, C, H, W) or (C, H, W)' if layout == 'NCHW' else '(N, H, W, C) or (H, W, C)'}")
    channels = images.shape[-3 if layout == "NCHW" else -1]
    if not channels or outputs % channels:
        rule = f"a multiple of the {channels} channels of x {images.shape}"
        raise ValueError(f"depthwise_weight: its {outputs} output channels (shape {depthwise.shape}) must be {rule}")
    layer = SeparableConv2d(
        depthwise_weight, pointwise_weight, bias, stride, padding, dilation, depth_multiplier=outputs // channels, layout=layout,
        padding_mode=padding_mode, depth_bias=depth_bias, depth_activation=depth_activation, activation=activation,
    )  # fmt: skip
    if isinstance(out, np.ndarray):
        for name, value in (
            ("depthwise_weight", depthwise_weight), ("pointwise_weight", pointwise_weight), ("bias", bias), ("depth_bias", depth_bias),
        ):  # fmt: skip
            if isinstance(value, np.ndarray) and arguments.overlap(out, value):
                raise ValueError(f"out: must not overlap {name} in memory")
    return layer(x, residual, out)
