"""The arguments that shape a convolution, parsed once: with the shapes of x and weight they make a `Problem`."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpuconv import arguments
from cpuconv.problem import Axis, Epilogue, Problem, check_axis


@dataclass(frozen=True)
class Options:
    """Stride, padding, dilation, groups, layout and padding_mode of a convolution of 1, 2 or 3 spatial axes."""

    stride: tuple[int, ...]
    padding: arguments.Padding
    dilation: tuple[int, ...]
    groups: int
    layout: str  # "nchw" or "nhwc", whatever the rank
    padding_mode: str
    rank: int = 2

    operand = "x"  # what messages call the array that goes in
    filters = "output"  # and the channels that the weight has one filter for

    @staticmethod
    def parse(stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, padding_mode: Any = "zeros", *, rank: int = 2) -> Options:
        given = (stride, padding, dilation, groups, layout, padding_mode, rank)
        try:
            key = marshal.dumps(given, 2)  # with the types: True == 1 == 1.0, but only the middle one is a stride
        except ValueError:
            return _parsed(*given)
        if (options := _parsed_before.get(key)) is None:
            if len(_parsed_before) >= MOST_PARSED:
                _parsed_before.clear()
            options = _parsed_before[key] = _parsed(*given)
        return options

    @property
    def layout_name(self) -> str:
        first, last = arguments.LAYOUTS[self.rank]
        return first if self.layout == "nchw" else last

    def out_channels(self, weight_shape: tuple[int, ...]) -> int:
        return weight_shape[0 if self.layout == "nchw" else -1]

    def in_channels(self, weight_shape: tuple[int, ...]) -> int:
        return weight_shape[1 if self.layout == "nchw" else -2] * self.groups

    def kernel_size(self, weight_shape: tuple[int, ...]) -> tuple[int, ...]:
        return weight_shape[2:] if self.layout == "nchw" else weight_shape[:-2]

    def _weight_form(self) -> str:
        return self._form("O", "C/groups")

    def _form(self, oc: str, ic: str) -> str:
        kernel = ", ".join(f"k{letter}" for letter in _letters(self.layout_name))
        return f"({oc}, {ic}, {kernel})" if self.layout == "nchw" else f"({kernel}, {ic}, {oc})"

    def check_weight(self, shape: tuple[int, ...]) -> None:
        if len(shape) != self.rank + 2 or 0 in shape:
            raise ValueError(f"weight: shape {shape} must be {self._weight_form()} with no empty axis, for layout {self.layout_name}")
        if (oc := shape[0 if self.layout == "nchw" else -1]) % self.groups:
            raise ValueError(f"groups: {self.groups} must divide the {oc} {self.filters} channels of weight {shape}")

    def pads(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Padding before and after each axis, for an input of this shape, with or without batch axis."""
        if self.padding == "valid":
            return (0, 0) * self.rank
        if not isinstance(self.padding, str):
            return self.padding
        axes = zip(self._sizes(x_shape), self.kernel_size(weight_shape), self.stride, self.dilation, strict=True)
        return tuple(pad for axis in axes for pad in arguments.same_padding(*axis, self.padding))

    def _sizes(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape[-self.rank :] if self.layout == "nchw" else x_shape[-self.rank - 1 : -1]

    def _batch(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], channels: int) -> int:
        """Images of x, of which the shape is checked."""
        batched = ", ".join(self.layout_name)
        form = f"({batched}) or ({batched.removeprefix('N, ')})"
        name = self.operand
        if len(x_shape) not in (self.rank + 1, self.rank + 2):
            raise ValueError(f"{name}: shape {x_shape} must have {self.rank + 1} or {self.rank + 2} axes, {form}")
        ic = x_shape[-self.rank - 1 if self.layout == "nchw" else -1]
        if ic != channels:
            rule = f"the {channels} that weight {weight_shape} with groups={self.groups} takes"
            raise ValueError(f"{name}: {ic} channels (shape {x_shape}, {form}) must be {rule}")
        return x_shape[0] if len(x_shape) == self.rank + 2 else 1

    def problem(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str, epilogue: Epilogue) -> Problem:
        """The problem for x with or without batch axis; other padding modes than zeros become part of the input."""
        n = self._batch(x_shape, weight_shape, self.in_channels(weight_shape))
        sizes, pads = self._sizes(x_shape), self.pads(x_shape, weight_shape)
        if self.padding_mode != "zeros":
            arguments.check_pads(self.padding_mode, pads, sizes)
            sizes = tuple(size + pads[2 * i] + pads[2 * i + 1] for i, size in enumerate(sizes))
            pads = (0, 0) * self.rank
        kernel = self.kernel_size(weight_shape)
        axes = [
            Axis(*along) for along in zip(sizes, kernel, self.stride, pads[::2], pads[1::2], self.dilation, strict=True)
        ]
        for name, axis in zip(arguments.AXES[self.rank], axes, strict=True):
            check_axis(name, axis, f"x {x_shape}, weight {weight_shape}, padding {pads}")
        oc = self.out_channels(weight_shape)
        return self._problem(axes, n=n, ic=self.in_channels(weight_shape), oc=oc, dtype=dtype, epilogue=epilogue)

    def _problem(self, axes: Sequence[Axis], **rest: Any) -> Problem:
        """1-D is 2-D of height 1."""
        depth = axes[0] if self.rank == 3 else None
        height, width = axes[-2] if self.rank > 1 else Axis(1, 1), axes[-1]
        problem = Problem(
            ih=height.size, iw=width.size, kh=height.kernel, kw=width.kernel, stride=(height.stride, width.stride),
            padding=(height.before, height.after, width.before, width.after), dilation=(height.dilation, width.dilation),
            groups=self.groups, layout=self.layout, depth=depth, **rest,
        )  # fmt: skip
        problem.check()
        return problem

    def result_shape(self, problem: Problem, batched: bool) -> tuple[int, ...]:
        """The shape that callers see."""
        shape = list(problem.result_shape)
        if self.rank == 1:
            del shape[2 if self.layout == "nchw" else 1]
        return tuple(shape if batched else shape[1:])

    def __str__(self) -> str:
        return f"stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}"


@dataclass(frozen=True)
class TransposedOptions(Options):
    """Of a transposed convolution: in the problem, the gradient of the input of a forward one."""

    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] | None = None

    filters = "input"

    @classmethod
    def parse_transposed(
        cls, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any, layout: Any, output_shape: Any, *, rank: int
    ) -> TransposedOptions:
        parsed = cls(
            arguments.per_axis("stride", stride, 1, rank), arguments.padding(padding, rank), arguments.per_axis("dilation", dilation, 1, rank),
            _groups(groups), arguments.choice("layout", layout, arguments.LAYOUTS[rank]), "zeros", rank,
            arguments.per_axis("output_padding", output_padding, 0, rank),
            None if output_shape is None else arguments.per_axis("output_shape", output_shape, 1, rank),
        )  # fmt: skip
        for extra, stride, dilation in zip(parsed.output_padding, parsed.stride, parsed.dilation, strict=True):
            if extra >= max(stride, dilation):
                raise ValueError(f"output_padding: {extra} must be less than the stride {stride} or the dilation {dilation}")
        if parsed.output_shape is not None and not isinstance(parsed.padding, str) and any(parsed.padding):
            raise ValueError(f"padding: {padding!r} must be 0 or a name where output_shape is given, for that decides the padding")
        return parsed

    def out_channels(self, weight_shape: tuple[int, ...]) -> int:
        return super().in_channels(weight_shape)

    def in_channels(self, weight_shape: tuple[int, ...]) -> int:
        return super().out_channels(weight_shape)

    def _weight_form(self) -> str:
        return self._form("C", "O/groups")

    def problem(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str, epilogue: Epilogue) -> Problem:
        n = self._batch(x_shape, weight_shape, self.in_channels(weight_shape))
        axes = []
        for i, (name, size, kernel) in enumerate(
            zip(arguments.AXES[self.rank], self._sizes(x_shape), self.kernel_size(weight_shape), strict=True)
        ):
            if size < 1:
                raise ValueError(f"x: {name} {size} (shape {x_shape}) must be at least 1")
            axes.append(self._axis(i, size, kernel))
            if axes[-1].size < 1:
                raise ValueError(
                    f"padding: {axes[-1].before, axes[-1].after} leaves no output along the {name} (x {x_shape}, weight {weight_shape})"
                )
        ic, oc = self.out_channels(weight_shape), self.in_channels(weight_shape)
        return self._problem(axes, n=n, ic=ic, oc=oc, dtype=dtype, epilogue=epilogue, pass_="input")

    def _axis(self, i: int, size: int, kernel: int) -> Axis:
        """Of the forward convolution that makes `size` outputs exactly: what is beyond the reach of its taps is negative padding."""
        stride, dilation, extra = self.stride[i], self.dilation[i], self.output_padding[i]
        full = (size - 1) * stride + dilation * (kernel - 1) + 1
        wanted = self.output_shape[i] if self.output_shape else size * stride if self.padding in ("same", "same_lower") else None
        if wanted is not None:
            # ONNX's ConvTranspose: the larger half at the start, but for SAME_UPPER; what cannot be reached is at the end
            total = max(full + extra - wanted, 0)
            before = total // 2 if self.padding == "same" else total - total // 2
        else:
            before, after = (0, 0) if isinstance(self.padding, str) else self.padding[2 * i : 2 * i + 2]
            wanted = full - before - after + extra
        return Axis(wanted, kernel, stride, before, full - wanted - before, dilation)

    def __str__(self) -> str:
        return f"{super().__str__()}, output_padding={self.output_padding}"


@dataclass(frozen=True)
class GradientOptions(Options):
    """Of the gradient of a forward convolution's input, of which the shape is given."""

    input_shape: tuple[int, ...] = ()

    operand = "grad_output"

    @classmethod
    def of(cls, forward: Options, input_shape: tuple[int, ...]) -> GradientOptions:
        fields = {name: getattr(forward, name) for name in Options.__dataclass_fields__}
        return cls(**fields, input_shape=input_shape)

    def problem(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str, epilogue: Epilogue) -> Problem:
        forward = _Input.of(self).problem(self.input_shape, weight_shape, dtype, epilogue)
        expected = super().result_shape(forward, len(self.input_shape) == self.rank + 2)
        if x_shape != expected:
            raise ValueError(
                f"grad_output: shape {x_shape} must be {expected}, the result's for input_shape {self.input_shape} and weight {weight_shape}"
            )
        problem = replace(forward, pass_="input")
        problem.check()
        return problem


class _Input(Options):
    """A forward convolution whose x is only a shape."""

    operand = "input_shape"

    @classmethod
    def of(cls, options: Options) -> _Input:
        return cls(**{name: getattr(options, name) for name in Options.__dataclass_fields__})


def _parsed(stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, padding_mode: Any, rank: int) -> Options:
    arguments.choice("padding_mode", padding_mode, arguments.PADDING_MODES)
    return Options(
        arguments.per_axis("stride", stride, 1, rank), arguments.padding(padding, rank), arguments.per_axis("dilation", dilation, 1, rank),
        _groups(groups), arguments.choice("layout", layout, arguments.LAYOUTS[rank]), padding_mode, rank,
    )  # fmt: skip


MOST_PARSED = 256
_parsed_before: dict[bytes, Options] = {}  # one-shot calls come with the same options again and again


def _groups(value: Any) -> int:
    groups = arguments.integer("groups", value)
    if groups < 1:
        raise ValueError(f"groups: {groups} must be at least 1")
    return groups


def _letters(layout_name: str) -> str:
    return layout_name.replace("N", "").replace("C", "")
