"""What is to be computed, without any data: `Problem`, its epilogue, its shape arithmetic and its spec string."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

LAYOUTS = ("nchw", "nhwc")
INTEGER_DTYPES = tuple(x + weight + y for x in ("s8", "u8") for weight in ("s8", "u8") for y in ("s32", "s8", "u8"))
"""Of 8-bit integers: the types of x, weight and y, as oneDNN writes them."""
DTYPES = ("f32", "f64", *INTEGER_DTYPES)
ACTIVATIONS: dict[str, int] = {
    "clip": 2, "leaky_relu": 1, "sigmoid": 0, "tanh": 0, "silu": 0, "hardsigmoid": 0, "hardswish": 0, "gelu": 0,
}  # fmt: skip
"""Named activations and how many parameters each has. relu and relu6 are clips."""


@dataclass(frozen=True)
class Activation:
    """An elementwise function: one of `ACTIVATIONS` with its parameters, or a Python function (then `name` is its name)."""

    name: str
    params: tuple[float, ...] = ()
    function: Callable[[float], float] | None = None

    def __str__(self) -> str:
        if self.function:
            return f"<{self.name}>"
        return self.name + (f"({','.join(map(repr, self.params))})" if self.params else "")

    @classmethod
    def parse(cls, text: str) -> Activation:
        match = re.fullmatch(r"(\w+)(?:\((.*)\))?", text)
        if not match or match[1] not in ACTIVATIONS:
            raise ValueError(f"spec: {text!r} is not an activation that a spec can name")
        try:
            params = tuple(float(p) for p in match[2].split(",")) if match[2] else ()
        except ValueError as e:
            raise ValueError(f"spec: the parameters of {text!r} must be numbers") from e
        if any(math.isnan(p) for p in params) or (match[1] == "clip" and list(params) != sorted(params)):
            raise ValueError(f"spec: {text!r}: the parameters must not be NaN, and clip's low not over its high")
        if len(params) != ACTIVATIONS[match[1]]:
            raise ValueError(f"spec: activation {match[1]} takes {ACTIVATIONS[match[1]]} parameters, got {len(params)}")
        return cls(match[1], params)


@dataclass(frozen=True)
class Epilogue:
    """What is fused behind the convolution: ``activation(conv + bias + residual)``."""

    bias: bool = False
    residual: bool = False
    activation: Activation | None = None


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Outputs along one axis: ``floor((size + before + after - dilation (kernel - 1) - 1) / stride) + 1``."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class Problem:
    """One convolution; sizes in elements; `ic` and `oc` count the channels of all groups.

    `padding` is (top, bottom, left, right) zeros. ``str(problem)`` is its spec, and ``Problem.parse`` reads it back
    (but for a Python function as activation, which has no text form).

    >>> p = Problem(n=1, ic=64, ih=56, iw=56, oc=64, kh=3, kw=3, padding=(1, 1, 1, 1))
    >>> str(p)
    'n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw'
    >>> Problem.parse(str(p)) == p, p.oh, p.flops
    (True, 56, 231211008)
    """

    n: int
    ic: int
    ih: int
    iw: int
    oc: int
    kh: int
    kw: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: str = "f32"
    layout: str = "nchw"
    epilogue: Epilogue = field(default_factory=Epilogue)

    @cached_property
    def oh(self) -> int:
        return output_size(self.ih, self.kh, self.stride[0], *self.padding[:2], self.dilation[0])

    @cached_property
    def ow(self) -> int:
        return output_size(self.iw, self.kw, self.stride[1], *self.padding[2:], self.dilation[1])

    @property
    def icg(self) -> int:
        """Input channels of one group."""
        return self.ic // self.groups

    @property
    def ocg(self) -> int:
        """Output channels of one group."""
        return self.oc // self.groups

    @property
    def k(self) -> int:
        """Products summed for one output."""
        return self.icg * self.kh * self.kw

    @property
    def itemsize(self) -> int:
        return 8 if self.dtype == "f64" else 4

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.ic, self.ih, self.iw) if self.layout == "nchw" else (self.n, self.ih, self.iw, self.ic)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.oc, self.icg, self.kh, self.kw) if self.layout == "nchw" else (self.kh, self.kw, self.icg, self.oc)

    @cached_property
    def y_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.oc, self.oh, self.ow) if self.layout == "nchw" else (self.n, self.oh, self.ow, self.oc)

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct method, padding taps included (2 per multiply-add)."""
        return 2 * math.prod(self.y_shape) * self.k

    @property
    def per_image(self) -> Problem:
        """The same problem for one image: what algorithms are chosen by, so that results do not depend on the batch."""
        return self if self.n == 1 else replace(self, n=1)

    def __str__(self) -> str:
        top, bottom, left, right = self.padding
        padding = _pair(top, left) if (top, left) == (bottom, right) else f"{top}x{bottom}x{left}x{right}"
        words = [
            *(f"{key}{getattr(self, key)}" for key in ("n", "ic", "ih", "iw", "oc", "kh", "kw")),
            f"s{_pair(*self.stride)}", f"p{padding}", f"d{_pair(*self.dilation)}", f"g{self.groups}", self.dtype, self.layout,
            *(["bias"] if self.epilogue.bias else []),
            *(["residual"] if self.epilogue.residual else []),
            *([f"act:{self.epilogue.activation}"] if self.epilogue.activation else []),
        ]  # fmt: skip
        return "_".join(words)

    @classmethod
    def parse(cls, spec: str) -> Problem:
        """Read a spec string.

        Raises
        ------
        ValueError
            If `spec` is not the text of a valid problem.
        """
        match = _SPEC.fullmatch(spec)
        if not match:
            raise ValueError(f"spec: {spec!r} is not like n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw")
        size = {key: int(match[key]) for key in ("n", "ic", "ih", "iw", "oc", "kh", "kw")}
        p = [int(v) for v in match["p"].split("x")]
        if len(p) not in (1, 2, 4):
            raise ValueError(f"spec: padding {match['p']!r} has {len(p)} numbers, not 1, 2 or 4")
        top, bottom, left, right = p if len(p) == 4 else (p[0], p[0], p[-1], p[-1])
        activation = Activation.parse(match["act"]) if match["act"] else None
        problem = cls(
            **size, stride=_unpair(match["s"]), padding=(top, bottom, left, right), dilation=_unpair(match["d"]), groups=int(match["g"]),
            dtype=match["dtype"], layout=match["layout"], epilogue=Epilogue(bool(match["bias"]), bool(match["residual"]), activation),
        )  # fmt: skip
        problem.check()
        return problem

    def check(self) -> None:
        """Raise ValueError where the sizes contradict each other (the messages name conv2d's arguments)."""
        for axis, size, kernel, pads, stride, dilation, out in (
            ("height", self.ih, self.kh, self.padding[:2], self.stride[0], self.dilation[0], self.oh if self.stride[0] > 0 else 0),
            ("width", self.iw, self.kw, self.padding[2:], self.stride[1], self.dilation[1], self.ow if self.stride[1] > 0 else 0),
        ):
            if stride < 1:
                raise ValueError(f"stride: {self.stride} must be at least 1 along each axis")
            if dilation < 1:
                raise ValueError(f"dilation: {self.dilation} must be at least 1 along each axis (1 means none)")
            if min(pads) < 0:
                raise ValueError(f"padding: {self.padding} (top, bottom, left, right) must not be negative")
            if kernel < 1 or size < 0:
                raise ValueError(f"weight: kernel {axis} {kernel} must be at least 1, and x's {axis} {size} not negative")
            if out < 1:
                raise ValueError(
                    f"weight: kernel {axis} {dilation * (kernel - 1) + 1} (with dilation {dilation}) is larger than the padded input's {axis} "
                    f"{size + sum(pads)} (x {self.x_shape}, weight {self.weight_shape}, padding {self.padding})"
                )
        if self.groups < 1:
            raise ValueError(f"groups: {self.groups} must be at least 1")
        if self.ic < 1 or self.oc < 1:
            raise ValueError(f"weight: channels must be at least 1, got {self.ic} in and {self.oc} out")
        if self.ic % self.groups or self.oc % self.groups:
            raise ValueError(f"groups: {self.groups} must divide the input channels {self.ic} and the output channels {self.oc}")
        if self.dtype in INTEGER_DTYPES and self.epilogue.residual:
            raise ValueError(f"residual: there is none for integers ({self.dtype})")
        if self.dtype in INTEGER_DTYPES and self.epilogue.activation:
            raise ValueError(f"activation: {self.epilogue.activation} is for floating types, not for integers ({self.dtype})")
        for name, shape in (("x", self.x_shape), ("weight", self.weight_shape), ("output", self.y_shape)):
            if math.prod(shape) * self.itemsize >= 2**62:
                raise ValueError(f"{name}: shape {shape} has more elements than can be addressed")


def _pair(a: int, b: int) -> str:
    return str(a) if a == b else f"{a}x{b}"


def _unpair(text: str) -> tuple[int, int]:
    a, _, b = text.partition("x")
    return int(a), int(b or a)


_SPEC = re.compile(
    r"n(?P<n>\d+)_ic(?P<ic>\d+)_ih(?P<ih>\d+)_iw(?P<iw>\d+)_oc(?P<oc>\d+)_kh(?P<kh>\d+)_kw(?P<kw>\d+)"
    r"_s(?P<s>\d+(?:x\d+)?)_p(?P<p>\d+(?:x\d+)*)_d(?P<d>\d+(?:x\d+)?)_g(?P<g>\d+)"
    rf"_(?P<dtype>{'|'.join(DTYPES)})_(?P<layout>{'|'.join(LAYOUTS)})(?P<bias>_bias)?(?P<residual>_residual)?(?:_act:(?P<act>.+))?"
)
