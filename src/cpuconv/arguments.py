"""Turns what callers pass into checked arrays and numbers. Every message names the argument, its value and the rule."""

from __future__ import annotations

import functools
import math
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


@functools.lru_cache(maxsize=64)
def compute_dtype(dtype: np.dtype[Any]) -> str | None:
    """What a dtype is computed in; None if it is not one of ours. (A dtype's name takes microseconds to make.)"""
    return COMPUTE_DTYPES.get(dtype.name)


def array(name: str, value: Any) -> Array:
    """Any array-like as a NumPy array of a floating type, without a copy where that is possible."""
    if not isinstance(value, np.ndarray):
        value = _import(name, value)
    if compute_dtype(value.dtype) is None:
        hint = "x.astype(np.float32)" if name == "x" else f"{name}.astype(np.float32)"
        raise TypeError(f"{name}: dtype {value.dtype} is not one of {', '.join(COMPUTE_DTYPES)}; cast it, e.g. {hint}")
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
        result = np.result_type(*given).newbyteorder("=")
    except TypeError as e:
        raise TypeError(f"{names} have no common type; cast them to one") from e
    if result.name not in COMPUTE_DTYPES:
        raise TypeError(f"{names} promote to {result}, not to one of {', '.join(COMPUTE_DTYPES)}")
    return result


def contiguous(value: Array, dtype: np.dtype[Any]) -> Array:
    """C-contiguous, aligned, of that dtype; the array itself where it already is."""
    return np.require(value, dtype, ("C_CONTIGUOUS", "ALIGNED"))


def integer(name: str, value: Any, rule: str = "an int") -> int:
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: must be {rule}, got {value!r}")
    return int(value.__index__())


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
    for name, value in inputs.items():
        if value is not None and overlap(out, value):
            raise ValueError(f"out: must not overlap {name} in memory")
    return out


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element (or may, where finding out would take long)."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
