"""Turns what callers pass into checked arrays and numbers. Every message names the argument, its value and the rule."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cpuconv.plan import Array
from cpuconv.problem import ACTIVATIONS, Activation

LAYOUTS = {1: {"NCL": "nchw", "NLC": "nhwc"}, 2: {"NCHW": "nchw", "NHWC": "nhwc"}, 3: {"NCDHW": "nchw", "NDHWC": "nhwc"}}
"""By the number of spatial axes, and whether channels come before them."""
AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
PADDING_MODES = {"zeros": None, "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Names of PyTorch, and np.pad's."""
PADDING_NAMES = ("valid", "same", "same_lower")
# float16 and bfloat16 are stored so, and computed in float32
COMPUTE_DTYPES = {"float16": "f32", "bfloat16": "f32", "float32": "f32", "float64": "f64"}
INTEGER_DTYPES = {"int8": "s8", "uint8": "u8"}
ARRAY_DTYPES = (*COMPUTE_DTYPES, *INTEGER_DTYPES)


@functools.lru_cache(maxsize=64)
def _is_known(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of ours. (A dtype's name takes microseconds to make.)"""
    return dtype.name in ARRAY_DTYPES


def array(name: str, value: Any, *, sums: bool = False) -> Array:
    """Any array-like as a NumPy array of a type that we compute with (or, with `sums`, int32), without a copy where that is possible."""
    if not isinstance(value, np.ndarray):
        value = _import(name, value)
    if not _is_known(value.dtype) and not (sums and value.dtype == np.int32):
        raise TypeError(f"{name}: dtype {value.dtype} is not one of {', '.join(ARRAY_DTYPES)}; cast it, e.g. {name}.astype(np.float32)")
    return np.asarray(value)


def _import(name: str, value: Any) -> Array:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        return _import(name, value.view(torch.int16)).view(_bfloat16(name))  # NumPy's DLPack has no word for bfloat16
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as e:
            if not hasattr(value, "__array__"):
                raise TypeError(f"{name}: cannot be read through DLPack: {e}") from e
    try:
        return np.asarray(value)
    except Exception as e:
        raise TypeError(f"{name}: {type(value).__name__} cannot be made an array: {e}") from e


def _bfloat16(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as e:
        raise TypeError(f"{name}: dtype bfloat16 needs the package ml_dtypes, which is not installed") from e
    return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]


def strong_dtype(value: Any, as_array: Array | None) -> np.dtype[Any] | None:
    """The dtype with which an optional argument takes part in promotion; a list or None takes no part."""
    return None if as_array is None or isinstance(value, list | tuple) else as_array.dtype


def result_dtype(*dtypes: np.dtype[Any] | None, names: str = "x, weight, bias, residual") -> np.dtype[Any]:
    """NumPy's promotion."""
    given = [d for d in dtypes if d is not None]
    names = f"{names}: dtypes {', '.join(map(str, given))}"
    try:
        result = np.result_type(*given)
    except TypeError as e:
        raise TypeError(f"{names} have no common type; cast them to one") from e
    if not result.isnative:
        result = result.newbyteorder("=")
    if result.name not in COMPUTE_DTYPES:
        raise TypeError(f"{names} promote to {result}, not to one of {', '.join(COMPUTE_DTYPES)}")
    return result


@functools.lru_cache(maxsize=256)
def problem_dtypes(
    x: np.dtype[Any], weight: np.dtype[Any], bias: np.dtype[Any] | None = None, residual: np.dtype[Any] | None = None
) -> tuple[np.dtype[Any], str]:
    """The result's dtype, and a Problem's: int32 for 8-bit integers alone, else NumPy's promotion."""
    words = INTEGER_DTYPES.get(x.name), INTEGER_DTYPES.get(weight.name)
    if None not in words and residual is None and (bias is None or bias == np.int32 or bias.name in INTEGER_DTYPES):
        return np.dtype(np.int32), f"{words[0]}{words[1]}s32"
    if bias is not None and bias == np.int32:
        raise TypeError(f"bias: dtype int32 goes with int8 or uint8 x and weight, not {x} and {weight}; cast it to float32")
    result = result_dtype(x, weight, bias, residual)
    return result, COMPUTE_DTYPES[result.name]


def contiguous(value: Array, dtype: np.dtype[Any]) -> Array:
    """C-contiguous, aligned, of that dtype; the array itself where it already is."""
    if value.dtype is dtype and value.flags.c_contiguous and value.flags.aligned:
        return value  # np.require takes microseconds to see it
    return np.require(value, dtype, ("C_CONTIGUOUS", "ALIGNED"))


def integer(name: str, value: Any, rule: str = "an int") -> int:
    try:
        if not isinstance(value, bool | np.bool_):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name}: must be {rule}, got {value!r}")


def shape(name: str, value: Any) -> tuple[int, ...]:
    """A tuple of sizes."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name}: must be a tuple of ints, got {value!r}")
    sizes = tuple(integer(name, size, "a tuple of ints") for size in value)
    if any(size < 0 for size in sizes):
        raise ValueError(f"{name}: {value!r} must not be negative along any axis")
    return sizes


def per_axis(name: str, value: Any, minimum: int, rank: int) -> tuple[int, ...]:
    """An int for all spatial axes, or one for each."""
    rule = f"an int or a {('single', 'pair', 'triple')[rank - 1]} ({', '.join(AXES[rank])})"
    if isinstance(value, tuple | list):
        if len(value) != rank:
            raise ValueError(f"{name}: {value!r} must be {rule}")
        result = tuple(integer(name, v, f"{rule} of ints") for v in value)
    else:
        result = (integer(name, value, rule),) * rank
    if min(result) < minimum:
        raise ValueError(f"{name}: {value!r} must be at least {minimum} along each axis")
    return result


Padding = str | tuple[int, ...]

PADDING_FORMS = {
    1: "an int, (p,) or ((left, right),)",
    2: "an int, (ph, pw) or ((top, bottom), (left, right))",
    3: "an int, (pd, ph, pw) or ((front, back), (top, bottom), (left, right))",
}


def padding(value: Any, rank: int) -> Padding:
    """One of the names, or before and after each axis."""
    if isinstance(value, str):
        if value not in PADDING_NAMES:
            raise ValueError(f"padding: {value!r} is not one of {', '.join(PADDING_NAMES)}, {PADDING_FORMS[rank]}")
        return value
    if isinstance(value, tuple | list) and any(isinstance(v, tuple | list) for v in value):
        if len(value) != rank or not all(isinstance(v, tuple | list) and len(v) == 2 for v in value):
            raise ValueError(f"padding: {value!r} must be {PADDING_FORMS[rank]}")
        return tuple(v for pair in value for v in per_axis("padding", pair, 0, 2))
    return tuple(v for both in per_axis("padding", value, 0, rank) for v in (both, both))


def same_padding(size: int, kernel: int, stride: int, dilation: int, name: str) -> tuple[int, int]:
    """What makes ceil(size / stride) outputs along an axis; an odd one goes to the end for "same", to the start for "same_lower"."""
    total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if name == "same" else (large, small)


def choice(name: str, value: Any, known: dict[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(repr, known))}")
    return known[value]


def check_pads(mode: str, pads: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """PyTorch's rules for how far a padding mode other than zeros may reach."""
    for i, (axis, extent) in enumerate(zip(AXES[len(sizes)], sizes, strict=True)):
        reach = max(pads[2 * i : 2 * i + 2])
        if mode == "reflect" and reach >= max(extent, 1):
            raise ValueError(f'padding: {reach} must be less than the input\'s {axis} {extent} for padding_mode "reflect"')
        if mode == "circular" and reach > extent:
            raise ValueError(f'padding: {reach} must be at most the input\'s {axis} {extent} for padding_mode "circular"')
        if mode == "replicate" and reach and not extent:
            raise ValueError(f'padding: the input\'s {axis} must be at least 1 for padding_mode "replicate"')


def pad_image(x: Array, mode: str, pads: tuple[int, ...], layout: str) -> Array:
    """x, with its batch axis, padded by other values than zeros."""
    widths = [(0, 0), *zip(pads[::2], pads[1::2], strict=True)]
    widths.insert(1 if layout == "nchw" else len(widths), (0, 0))
    return np.pad(x, widths, mode=PADDING_MODES[mode])  # type: ignore[call-overload, no-any-return]


def activation(value: Any) -> Activation | None:
    """None, a name, (name, parameters ...), or a Python function of one scalar."""
    if value is None:
        return None
    if callable(value):
        function: Callable[[float], float] = value
        return Activation(getattr(value, "__name__", "function"), (), function)
    name, *params = value if isinstance(value, tuple | list) and value else (value,)
    clips = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
    known = [*clips, *ACTIVATIONS]
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"activation: {value!r} is not None, one of {', '.join(known)}, or a Python function")
    if name in clips:
        if params:
            raise ValueError(f"activation: {value!r}: {name} takes no parameters")
        return Activation("clip", clips[name])
    if len(params) != ACTIVATIONS[name]:
        raise ValueError(f"activation: {value!r}: {name} takes {ACTIVATIONS[name]} parameters, got {len(params)}")
    try:
        numbers = tuple(float(p) for p in params)
    except (TypeError, ValueError) as e:
        raise TypeError(f"activation: {value!r}: the parameters of {name} must be numbers") from e
    if any(math.isnan(p) for p in numbers) or (name == "clip" and numbers[0] > numbers[1]):
        raise ValueError(f"activation: {value!r}: the parameters must not be NaN, and clip's low not over its high")
    return Activation(name, numbers)


def accuracy(value: Any) -> float | str | None:
    if value is None or value == "strict":
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool | str) or not isinstance(value, int | float | np.number):
        raise TypeError(f'accuracy: {value!r} must be None, "strict" or a positive number')
    if not value > 0:
        raise ValueError(f"accuracy: {value!r} must be over 0 (the largest error allowed, relative to max|y|)")
    return float(value)


def workspace_limit(value: Any) -> int | None:
    if value is None:
        return None
    limit = integer("workspace_limit", value, "None or a number of bytes")
    if limit < 0:
        raise ValueError(f"workspace_limit: {limit} bytes must not be negative")
    return limit


def integer_type(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.name not in INTEGER_DTYPES:
        raise TypeError(f"{name}: dtype {dtype} must be int8 or uint8")


def in_range(name: str, value: int, dtype: np.dtype[Any]) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if not low <= value <= high:
        raise ValueError(f"{name}: {value} must be in the range of {dtype}, {low} to {high}")


def per_channel(name: str, value: Any, channels: int) -> Array:
    """One number, or one for each output channel: as many as channels."""
    values = np.asarray(value)
    if values.shape not in ((), (1,), (channels,)):
        raise ValueError(f"{name}: shape {values.shape} must be () or ({channels},), one number for each output channel")
    return np.broadcast_to(values.reshape(-1), channels)


def zero_points(name: str, value: Any, dtype: np.dtype[Any], channels: int) -> Array:
    values = per_channel(name, value, channels)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: {value!r} must be an int, or an array of ints")
    for extreme in (values.min(), values.max()):
        in_range(name, int(extreme), dtype)
    return values.astype(np.int32)


def _scales(name: str, value: Any, channels: int) -> Array:
    values = per_channel(name, value, channels)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{name}: {value!r} must be a number, or an array of numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"{name}: {value!r} must be over 0 and finite, as float32")
    return values


def requantization(x_scale: Any, w_scale: Any, y_scale: Any, channels: int) -> Array:
    """``x_scale w_scale / y_scale`` in float32, for each output channel."""
    x, w, y = _scales("x_scale", x_scale, 1), _scales("w_scale", w_scale, channels), _scales("y_scale", y_scale, 1)
    with np.errstate(over="ignore", under="ignore"):
        scale: Array = x * w / y
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"x_scale, w_scale, y_scale: {x_scale!r} * {w_scale!r} / {y_scale!r} must be over 0 and finite, as float32")
    return scale


def output(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], **inputs: Array | None) -> Array:
    """Check `out`: a writable array of the result's shape and dtype that shares no memory with an input."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out: shape {out.shape} must be the result's shape {shape}")
    if out.dtype != dtype:
        raise TypeError(f"out: dtype {out.dtype} must be the result's dtype {dtype}")
    if not out.flags.writeable:
        raise ValueError("out: must be writable")
    check_apart(out, **inputs)
    return out


def check_apart(out: Any, **inputs: Any) -> None:
    """Check that an array `out` shares no memory with those of the inputs that are arrays."""
    for name, value in inputs.items():
        if isinstance(out, np.ndarray) and isinstance(value, np.ndarray) and overlap(out, value):
            raise ValueError(f"out: must not overlap {name} in memory")


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element (or may, where finding out would take long)."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
