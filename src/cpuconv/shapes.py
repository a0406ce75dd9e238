"""What follows from the shapes of arrays alone: `output_shape`, `flops`."""

from __future__ import annotations

from typing import Any

from cpuconv import arguments
from cpuconv.functional import Sizes
from cpuconv.options import Options, TransposedOptions
from cpuconv.problem import Epilogue, Problem


def _shape_and_problem(
    x_shape: Any, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, transposed: bool, output_padding: Any
) -> tuple[tuple[int, ...], Problem]:
    weight, x = arguments.shape("weight_shape", weight_shape), arguments.shape("x_shape", x_shape)
    if layout is None:
        if not 3 <= len(weight) <= 5:
            raise ValueError(f"weight_shape: {weight_shape} must have 3, 4 or 5 axes")
        rank, layout = len(weight) - 2, next(iter(arguments.LAYOUTS[len(weight) - 2]))
    else:
        known = {name: rank for rank, names in arguments.LAYOUTS.items() for name in names}
        rank = arguments.choice("layout", layout, known)
    if transposed:
        options: Options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, None, rank=rank)
    else:
        if output_padding:
            raise ValueError(f"output_padding: {output_padding} must be 0 unless transposed")
        options = Options.parse(stride, padding, dilation, groups, layout, rank=rank)
    options.check_weight(weight)
    problem = options.problem(x, weight, "f32", Epilogue())
    return options.result_shape(problem, len(x) == rank + 2), problem


def output_shape(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str | None = None,
    transposed: bool = False,
    output_padding: Sizes = 0,
) -> tuple[int, ...]:
    """Return the shape of a convolution's result for arrays of these shapes.

    Along each axis ``floor((H + before + after - dilation (k - 1) - 1) / stride) + 1``; for transposed ones see `conv_transpose2d`.

    Parameters
    ----------
    x_shape, weight_shape : tuple of int
        Shapes of the arrays that the function would take; x's with or without the batch axis.
    stride, padding, dilation, groups
        See `conv2d`.
    layout : str, optional
        One of any of the functions; by default channels come first, and the weight says how many spatial axes there are.
    transposed, output_padding
        For `conv_transpose2d` and its like.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> output_shape((1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    (1, 64, 112, 112)
    >>> output_shape((1, 64, 56, 56), (64, 32, 2, 2), stride=2, transposed=True)
    (1, 32, 112, 112)
    >>> output_shape((1, 3, 100), (8, 3, 5))
    (1, 8, 96)
    """
    return _shape_and_problem(x_shape, weight_shape, stride, padding, dilation, groups, layout, transposed, output_padding)[0]


def flops(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str | None = None,
    transposed: bool = False,
    output_padding: Sizes = 0,
) -> int:
    """Return the floating-point operations of the direct method: 2 for each multiply-add, padding included.

    Parameters
    ----------
    x_shape, weight_shape : tuple of int
        Shapes of the arrays that the function would take; x's with or without the batch axis.
    stride, padding, dilation, groups
        See `conv2d`.
    layout : str, optional
        One of any of the functions; by default channels come first, and the weight says how many spatial axes there are.
    transposed, output_padding
        For `conv_transpose2d` and its like.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> flops((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    231211008
    """
    return _shape_and_problem(x_shape, weight_shape, stride, padding, dilation, groups, layout, transposed, output_padding)[1].flops
