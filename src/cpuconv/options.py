"""The arguments that shape a convolution, parsed once: with the shapes of x and weight they make a `Problem`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpuconv import arguments
from cpuconv.problem import Epilogue, Problem


@dataclass(frozen=True)
class Options:
    """conv2d's stride, padding, dilation, groups, layout and padding_mode."""

    stride: tuple[int, int]
    padding: arguments.Padding
    dilation: tuple[int, int]
    groups: int
    layout: str
    padding_mode: str

    @classmethod
    def parse(cls, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, padding_mode: Any) -> Options:
        arguments.choice("padding_mode", padding_mode, arguments.PADDING_MODES)
        parsed = cls(
            arguments.pair("stride", stride, 1), arguments.padding(padding), arguments.pair("dilation", dilation, 1),
            arguments.integer("groups", groups), arguments.choice("layout", layout, arguments.LAYOUTS_2D), padding_mode,
        )  # fmt: skip
        if parsed.groups < 1:
            raise ValueError(f"groups: {groups} must be at least 1")
        return parsed

    def out_channels(self, weight_shape: tuple[int, ...]) -> int:
        return weight_shape[0 if self.layout == "nchw" else 3]

    def in_channels(self, weight_shape: tuple[int, ...]) -> int:
        return weight_shape[1 if self.layout == "nchw" else 2] * self.groups

    def kernel_size(self, weight_shape: tuple[int, ...]) -> tuple[int, int]:
        return weight_shape[2:4] if self.layout == "nchw" else weight_shape[0:2]  # type: ignore[return-value]

    def check_weight(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or 0 in shape:
            form = "(O, C/groups, kH, kW)" if self.layout == "nchw" else "(kH, kW, C/groups, O)"
            raise ValueError(f"weight: shape {shape} must be {form} with no empty axis, for layout {self.layout.upper()}")
        if self.out_channels(shape) % self.groups:
            raise ValueError(f"groups: {self.groups} must divide the {self.out_channels(shape)} output channels of weight {shape}")

    def pads(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) for an input of this shape, with or without batch axis."""
        size = x_shape[-2:] if self.layout == "nchw" else x_shape[-3:-1]
        return arguments.resolve_padding(self.padding, size, self.kernel_size(weight_shape), self.stride, self.dilation)  # type: ignore[arg-type]

    def problem(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str, epilogue: Epilogue) -> Problem:
        """The problem for x of 3 or 4 axes; other padding modes than zeros become part of the input."""
        form = "(N, C, H, W) or (C, H, W)" if self.layout == "nchw" else "(N, H, W, C) or (H, W, C)"
        if len(x_shape) not in (3, 4):
            raise ValueError(f"x: shape {x_shape} must have 3 or 4 axes, {form}")
        n, *chw = x_shape if len(x_shape) == 4 else (1, *x_shape)
        ic, ih, iw = chw if self.layout == "nchw" else (chw[2], chw[0], chw[1])
        taken = self.in_channels(weight_shape)
        if ic != taken:
            rule = f"the {taken} that weight {weight_shape} with groups={self.groups} takes"
            raise ValueError(f"x: {ic} channels (shape {x_shape}, {form}) must be {rule}")
        pads = self.pads(x_shape, weight_shape)
        if self.padding_mode != "zeros":
            arguments.check_pads(self.padding_mode, pads, (ih, iw))
            ih, iw, pads = ih + sum(pads[:2]), iw + sum(pads[2:]), (0, 0, 0, 0)
        kh, kw = self.kernel_size(weight_shape)
        problem = Problem(
            n=n, ic=ic, ih=ih, iw=iw, oc=self.out_channels(weight_shape), kh=kh, kw=kw, stride=self.stride, padding=pads,
            dilation=self.dilation, groups=self.groups, dtype=dtype, layout=self.layout, epilogue=epilogue,
        )  # fmt: skip
        problem.check()
        return problem
