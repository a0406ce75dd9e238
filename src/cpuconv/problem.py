"""What is to be computed, without any data: `Problem`, its epilogue, its shape arithmetic and its spec string."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

LAYOUTS = ("nchw", "nhwc")
INTEGER_DTYPES = tuple(x + weight + y for x in ("s8", "u8") for weight in ("s8", "u8") for y in ("s32", "s8", "u8"))
"""Of 8-bit integers: the types of x, weight and y, as oneDNN writes them."""
DTYPES = ("f32", "f64", *INTEGER_DTYPES)
PASSES = ("forward", "input", "weight")
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


class Axis(NamedTuple):
    """One spatial axis of a convolution: size of the input, taps, stride, padding before and after it, dilation."""

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    @property
    def out(self) -> int:
        """Size of the output; 0 where the stride makes no sense."""
        return output_size(*self) if self.stride > 0 else 0

    @property
    def span(self) -> int:
        """From the first tap to the last."""
        return self.dilation * (self.kernel - 1) + 1


def check_axis(name: str, a: Axis, given: str) -> None:
    """Raise ValueError where the sizes along an axis contradict each other; `given` are the shapes that they come from."""
    if a.stride < 1:
        raise ValueError(f"stride: {a.stride} must be at least 1 along each axis")
    if a.dilation < 1:
        raise ValueError(f"dilation: {a.dilation} must be at least 1 along each axis (1 means none)")
    if a.kernel < 1 or a.size < 0:
        raise ValueError(f"weight: kernel {name} {a.kernel} must be at least 1, and x's {name} {a.size} not negative ({given})")
    if a.out < 1:
        padded = a.size + a.before + a.after
        raise ValueError(f"weight: kernel {name} {a.span} (with dilation {a.dilation}) is larger than the padded input's {name} {padded} ({given})")


@dataclass(frozen=True)
class Problem:
    """One convolution, or one of its gradients; sizes in elements; `ic` and `oc` count the channels of all groups.

    All fields describe the forward convolution ``y = conv(x, weight)``. The pass "input" makes x's gradient (the transposed convolution) out
    of y's and the weight; "weight" makes the weight's out of x and y's. 3-D problems have a `depth` besides; 1-D ones are 2-D of height 1.
    `padding` is (top, bottom, left, right) zeros; in the pass "input" a negative one stands for x beyond the reach of all taps.

    ``str(problem)`` is its spec, and ``Problem.parse`` reads it back (but for a Python function as activation, which has no text form).

    >>> p = Problem(n=1, ic=64, ih=56, iw=56, oc=64, kh=3, kw=3, padding=(1, 1, 1, 1))
    >>> str(p)
    'n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw'
    >>> Problem.parse(str(p)) == p, p.oh, p.flops
    (True, 56, 231211008)
    >>> str(replace(p, depth=Axis(16, 3), pass_="input"))
    'n1_ic64_id16_ih56_iw56_oc64_kd3_kh3_kw3_s1_p0x1x1_d1_g1_f32_ncdhw_input'
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
    layout: str = "nchw"  # of 3-D, too: "nchw" means channels before the spatial axes
    epilogue: Epilogue = field(default_factory=Epilogue)
    depth: Axis | None = None
    pass_: str = "forward"

    @cached_property
    def height(self) -> Axis:
        return Axis(self.ih, self.kh, self.stride[0], *self.padding[:2], self.dilation[0])

    @cached_property
    def width(self) -> Axis:
        return Axis(self.iw, self.kw, self.stride[1], *self.padding[2:], self.dilation[1])

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The spatial axes: (depth,) height, width."""
        return (self.height, self.width) if self.depth is None else (self.depth, self.height, self.width)

    @cached_property
    def oh(self) -> int:
        return self.height.out

    @cached_property
    def ow(self) -> int:
        return self.width.out

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
        """Products summed for one number of the result, at most."""
        if self.pass_ == "weight":
            return self.n * math.prod(a.out for a in self.axes)
        if self.pass_ == "input":
            return self.ocg * math.prod(-(-a.kernel // (a.stride // math.gcd(a.stride, a.dilation))) for a in self.axes)
        return self.icg * math.prod(a.kernel for a in self.axes)

    @property
    def itemsize(self) -> int:
        return 8 if self.dtype == "f64" else 4

    def _shape(self, channels: int, sizes: Iterable[int]) -> tuple[int, ...]:
        return (self.n, channels, *sizes) if self.layout == "nchw" else (self.n, *sizes, channels)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return self._shape(self.ic, (a.size for a in self.axes))

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        kernel = tuple(a.kernel for a in self.axes)
        return (self.oc, self.icg, *kernel) if self.layout == "nchw" else (*kernel, self.icg, self.oc)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        return self._shape(self.oc, (a.out for a in self.axes))

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the pass computes from: x and weight; y's gradient and weight; x and y's gradient."""
        return self.y_shape if self.pass_ == "input" else self.x_shape, self.y_shape if self.pass_ == "weight" else self.weight_shape

    @property
    def result_shape(self) -> tuple[int, ...]:
        """What the pass computes: y, or the gradient of x or of weight."""
        return {"forward": self.y_shape, "input": self.x_shape, "weight": self.weight_shape}[self.pass_]

    @property
    def bias_shape(self) -> tuple[int]:
        """One number for each channel of the result."""
        return (self.ic if self.pass_ == "input" else self.oc,)

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct method, padding taps included (2 per multiply-add); equal for all passes."""
        return 2 * math.prod(self.y_shape) * self.icg * math.prod(a.kernel for a in self.axes)

    @property
    def per_image(self) -> Problem:
        """The same problem for one image: what algorithms are chosen by, so that results do not depend on the batch.

        A weight's gradient is a sum over the batch, so there it is the problem itself.
        """
        return self if self.n == 1 or self.pass_ == "weight" else replace(self, n=1)

    def __str__(self) -> str:
        letters = "hw" if self.depth is None else "dhw"
        pads = [(a.before, a.after) for a in self.axes]
        symmetric = all(before == after for before, after in pads)
        words = [
            f"n{self.n}", f"ic{self.ic}", *(f"i{c}{a.size}" for c, a in zip(letters, self.axes, strict=True)),
            f"oc{self.oc}", *(f"k{c}{a.kernel}" for c, a in zip(letters, self.axes, strict=True)),
            f"s{_joined(a.stride for a in self.axes)}",
            f"p{_joined(before for before, _ in pads) if symmetric else 'x'.join(str(v) for pair in pads for v in pair)}",
            f"d{_joined(a.dilation for a in self.axes)}", f"g{self.groups}", self.dtype, self.layout.replace("hw", letters),
            *([self.pass_] if self.pass_ != "forward" else []),
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
        if not match or len({match["id"] is None, match["kd"] is None, match["layout"] in LAYOUTS}) != 1:
            raise ValueError(f"spec: {spec!r} is not like n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw")
        size = {key: int(match[key]) for key in ("n", "ic", "ih", "iw", "oc", "kh", "kw")}
        rank = 2 if match["id"] is None else 3
        stride, dilation = _numbers("stride", match["s"], rank), _numbers("dilation", match["d"], rank)
        pads = _numbers("padding", match["p"], rank, 2 * rank)
        if len(pads) == rank:
            pads = tuple(v for v in pads for _ in range(2))
        depth = None if rank == 2 else Axis(int(match["id"]), int(match["kd"]), stride[0], pads[0], pads[1], dilation[0])
        top, bottom, left, right = pads[-4:]
        activation = Activation.parse(match["act"]) if match["act"] else None
        problem = cls(
            **size, stride=(stride[-2], stride[-1]), padding=(top, bottom, left, right), dilation=(dilation[-2], dilation[-1]),
            groups=int(match["g"]), dtype=match["dtype"], layout=match["layout"].replace("d", ""),
            epilogue=Epilogue(bool(match["bias"]), bool(match["residual"]), activation), depth=depth, pass_=match["pass"] or "forward",
        )  # fmt: skip
        problem.check()
        return problem

    def check(self) -> None:
        """Raise ValueError where the sizes contradict each other (the messages name conv2d's arguments)."""
        if self.groups < 1:
            raise ValueError(f"groups: {self.groups} must be at least 1")
        for name, a in zip(("depth", "height", "width")[-len(self.axes) :], self.axes, strict=True):
            if min(a.before, a.after) < 0 and self.pass_ != "input":
                raise ValueError(f"padding: {a.before, a.after} of the {name} must not be negative")
            check_axis(name, a, f"x {self.x_shape}, weight {self.weight_shape}, padding {self.padding}")
        if self.ic < 1 or self.oc < 1:
            raise ValueError(f"weight: channels must be at least 1, got {self.ic} in and {self.oc} out")
        if self.ic % self.groups or self.oc % self.groups:
            raise ValueError(f"groups: {self.groups} must divide the input channels {self.ic} and the output channels {self.oc}")
        if self.dtype in INTEGER_DTYPES and self.pass_ != "forward":
            raise ValueError(f"x, weight: integers ({self.dtype}) have no transposed convolutions or gradients; cast them, e.g. x.astype(np.float32)")
        if self.dtype in INTEGER_DTYPES and self.epilogue.residual:
            raise ValueError(f"residual: there is none for integers ({self.dtype})")
        if self.dtype in INTEGER_DTYPES and self.epilogue.activation:
            raise ValueError(f"activation: {self.epilogue.activation} is for floating types, not for integers ({self.dtype})")
        if self.pass_ == "weight" and self.epilogue != Epilogue():
            raise ValueError("spec: a weight's gradient takes no bias, residual or activation")
        for name, shape in (("x", self.x_shape), ("weight", self.weight_shape), ("output", self.y_shape)):
            if math.prod(shape) * self.itemsize >= 2**62:
                raise ValueError(f"{name}: shape {shape} has more elements than can be addressed")


def _joined(values: Iterable[int]) -> str:
    """One number where all are equal."""
    texts = [str(v) for v in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _numbers(name: str, text: str, *lengths: int) -> tuple[int, ...]:
    """Numbers of one of these lengths; one alone stands for the shortest."""
    values = tuple(map(int, text.split("x")))
    if len(values) == 1:
        return values * lengths[0]
    if len(values) not in lengths:
        raise ValueError(f"spec: {name} {text!r} has {len(values)} numbers, not {' or '.join(map(str, (1, *lengths)))}")
    return values


_SPEC = re.compile(
    r"n(?P<n>\d+)_ic(?P<ic>\d+)(?:_id(?P<id>\d+))?_ih(?P<ih>\d+)_iw(?P<iw>\d+)_oc(?P<oc>\d+)(?:_kd(?P<kd>\d+))?_kh(?P<kh>\d+)_kw(?P<kw>\d+)"
    r"_s(?P<s>\d+(?:x\d+)*)_p(?P<p>-?\d+(?:x-?\d+)*)_d(?P<d>\d+(?:x\d+)*)_g(?P<g>\d+)"
    rf"_(?P<dtype>{'|'.join(DTYPES)})_(?P<layout>ncd?hw|nd?hwc)(?:_(?P<pass>{'|'.join(PASSES[1:])}))?"
    r"(?P<bias>_bias)?(?P<residual>_residual)?(?:_act:(?P<act>.+))?"
)
