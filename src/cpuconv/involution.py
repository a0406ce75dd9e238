"""`involution2d`: convolution by a kernel of its own for each pixel."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, cpu
from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.options import Options
from cpuconv.plan import NUMPY_DTYPES, Array
from cpuconv.problem import Epilogue, Problem
from cpuconv.threads import for_work


def involution2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """Return the involution of x with kernels that differ from pixel to pixel and are shared by the channels of a group.

    ``y[n,c,i,j] = bias[c] + sum over u,v of weight[n,g,u,v,i,j] x[n, c, i*stride + u*dilation - top, j*stride + v*dilation - left]``, g being the
    group of c: the first C/G channels are group 0 (D. Li et al., "Involution: Inverting the Inherence of Convolution for Visual
    Recognition", CVPR 2021, equation 4). The kernels usually are computed from x, by 1x1 convolutions. The paper pads by ``(K - 1) // 2``.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)`` or ``(C, H, W)``; for ``layout="NHWC"`` ``(N, H, W, C)`` or ``(H, W, C)``.
    weight : array_like
        ``(N, G, kH, kW, outH, outW)``, or ``(N, G, K*K, outH, outW)`` as in the paper's code, without N where x is without; for NHWC
        ``(N, outH, outW, G, kH, kW)`` or ``(N, outH, outW, G, K*K)``. G divides C.
    bias : array_like of shape (C,), optional
    stride, padding, dilation, out
        See `conv2d`.
    layout : "NCHW" or "NHWC"

    Returns
    -------
    ndarray
        ``(N, C, outH, outW)`` or ``(N, outH, outW, C)`` (or unbatched, as x), of the inputs' promoted dtype.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names the argument, its value and the rule. Nothing is written to `out` then.

    Examples
    --------
    Each pixel of the right half takes its left neighbour's value, those of the left half keep theirs:

    >>> import numpy as np
    >>> weight = np.zeros((1, 1, 3, 1, 4))                     # G, kH, kW, outH, outW
    >>> weight[0, 0, 1, 0, :2] = weight[0, 0, 0, 0, 2:] = 1
    >>> involution2d(np.array([[[1.0, 2, 3, 4]]]), weight, padding=(0, 1))
    array([[[1., 2., 2., 3.]]])
    """
    options = Options.parse(stride, padding, dilation, 1, layout)
    images, kernels = arguments.array("x", x), arguments.array("weight", weight)
    biases = None if bias is None else arguments.array("bias", bias)
    dtype = arguments.result_dtype(images.dtype, kernels.dtype, arguments.strong_dtype(bias, biases))
    problem = _problem(options, images.shape, kernels.shape, arguments.COMPUTE_DTYPES[dtype.name])
    if biases is not None and biases.shape != (problem.ic,):
        raise ValueError(f"bias: shape {biases.shape} must be ({problem.ic},), one number for each channel of x {images.shape}")
    shape = problem.y_shape if images.ndim == 4 else problem.y_shape[1:]
    result = np.empty(shape, dtype) if out is None else arguments.output(out, shape, dtype, x=images, weight=kernels, bias=biases)

    compute = NUMPY_DTYPES[problem.dtype]
    in_place = result.flags.carray and result.dtype == compute
    y = (result if in_place else np.empty(shape, compute)).reshape(problem.y_shape)
    zeros = np.zeros(problem.ic, compute)
    _convolution(problem, cpu.detect()).run(
        arguments.contiguous(images, compute).reshape(problem.x_shape), arguments.contiguous(kernels, compute),
        zeros if biases is None else arguments.contiguous(biases, compute), None, y, for_work(_seconds(problem, cpu.detect())),
    )  # fmt: skip
    if not in_place:
        result[...] = y.reshape(shape)
    return result


def _problem(options: Options, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str) -> Problem:
    """The convolution with G groups whose geometry this is."""
    nchw = options.layout == "nchw"
    if len(x_shape) not in (3, 4):
        raise ValueError(f"x: shape {x_shape} must be {'(N, C, H, W) or (C, H, W)' if nchw else '(N, H, W, C) or (H, W, C)'}")
    batch = len(x_shape) - 3
    n, channels = x_shape[0] if batch else 1, x_shape[-3 if nchw else -1]
    forms = ("(N, G, kH, kW, outH, outW)", "(N, G, K*K, outH, outW)") if nchw else ("(N, outH, outW, G, kH, kW)", "(N, outH, outW, G, K*K)")
    rule = f"weight: shape {weight_shape} must be {' or '.join(forms if batch else [form.replace('N, ', '') for form in forms])} for x {x_shape}"
    if len(weight_shape) not in (batch + 4, batch + 5) or 0 in weight_shape[batch:]:
        raise ValueError(f"{rule}, with no empty axis")
    rest = weight_shape[batch:]
    groups, taps, maps = (rest[0], rest[1:-2], rest[-2:]) if nchw else (rest[2], rest[3:], rest[:2])
    kh, kw = taps if len(taps) == 2 else (math.isqrt(taps[0]),) * 2
    if kh * kw != math.prod(taps):
        raise ValueError(f"{rule}: {taps[0]} is not a square")
    if channels % groups:
        raise ValueError(f"weight: its {groups} groups (shape {weight_shape}) must divide the {channels} channels of x {x_shape}")
    depthwise = replace(options, groups=channels).problem(x_shape, (channels, 1, kh, kw) if nchw else (kh, kw, 1, channels), dtype, Epilogue())
    problem = replace(depthwise, groups=groups)
    if batch and weight_shape[0] != n:
        raise ValueError(f"weight: batch {weight_shape[0]} (shape {weight_shape}) must be the {n} of x {x_shape}")
    if maps != (problem.oh, problem.ow):
        raise ValueError(f"weight: has kernels for {maps[0]} x {maps[1]} outputs (shape {weight_shape}), but there are {problem.oh} x {problem.ow}")
    return problem


def _seconds(p: Problem, machine: cpu.Cpu) -> float:
    """About half of the peak, as each product needs a load; the lanes that channels leave empty count."""
    lanes = -(-p.icg // (vl := machine.vector_length(p.dtype))) * vl / p.icg
    return 2 * p.n * p.ic * p.oh * p.ow * p.kh * p.kw * lanes / (machine.peak(p.dtype) / 2)


@functools.lru_cache(maxsize=256)
def _convolution(p: Problem, machine: cpu.Cpu) -> core.Convolution:
    """Bands of so many rows that those of the input stay in half of L2, and that few of them are shared."""
    halo = (p.kh - 1) * p.dilation[0]
    rows = max(machine.l2 // 2 // (p.iw * p.icg * p.itemsize) - halo, 2 * halo) // p.stride[0]
    return core.Convolution(
        machine.isa, p.dtype, core.INVOLUTION, native.geometry(p, machine), native.activation(None), native.Blocking(max(1, min(rows, -(-p.oh // 4))))
    )
