"""`stencil`: plain images, without an axis of channels, under one stencil or a bank of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments
from cpuconv.functional import conv2d
from cpuconv.plan import Array


def stencil(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    stride: int | tuple[int, int] = 1,
    padding: Any = "same",
    dilation: int | tuple[int, int] = 1,
    *,
    layout: str = "NCHW",
    padding_mode: str = "zeros",
    activation: Any = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the cross-correlation of an image, or of each of several, with a stencil, or with each of a bank.

    It is `conv2d` for arrays without an axis of channels; with the default padding the result is of the image's size. SciPy's
    ``scipy.ndimage.correlate(x, weight, mode=...)`` names differently what lies beyond the border: its "constant" is "zeros" here,
    "mirror" is "reflect", "nearest" is "replicate", "grid-wrap" is "circular"; its "reflect", which doubles the pixel at the border,
    is none of these. Where a stencil's height or width is even, SciPy puts the odd pixel of padding where "same_lower" does.

    Parameters
    ----------
    x : array_like
        An image ``(H, W)``, or images ``(N, H, W)``: a batch, or the channels of one picture.
    weight : array_like
        A stencil ``(kH, kW)``, or a bank ``(O, kH, kW)``; for ``layout="NHWC"`` a bank is ``(kH, kW, O)``.
    stride, padding, dilation, padding_mode, activation, algorithm, accuracy, workspace_limit, out
        See `conv2d`.
    layout : "NCHW" or "NHWC"
        Whether the axis of a bank's results comes before the images' axes or last.

    Returns
    -------
    ndarray
        ``(H, W)`` or ``(N, H, W)`` for a stencil; ``(O, H, W)`` or ``(N, O, H, W)`` for a bank, ``(H, W, O)`` or ``(N, H, W, O)`` for NHWC.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names the argument, its value and the rule. Nothing is written to `out` then.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> sobel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    >>> stencil(image, sobel, padding_mode="replicate")
    array([[4., 8., 8., 4.],
           [4., 8., 8., 4.],
           [4., 8., 8., 4.]])
    >>> stencil(image, np.stack([sobel, sobel.T])).shape
    (2, 3, 4)
    """
    arguments.choice("layout", layout, arguments.LAYOUTS[2])
    channel, bank = (1, (1, 0)) if layout == "NCHW" else (3, (2, 3))  # axes of channels: x's and the result's; the weight's, in and out
    images, stencils = arguments.array("x", x), arguments.array("weight", weight)
    if images.ndim not in (2, 3):
        raise ValueError(f"x: shape {images.shape} must be (H, W) or (N, H, W)")
    if stencils.ndim not in (2, 3):
        raise ValueError(f"weight: shape {stencils.shape} must be (kH, kW) or {'(O, kH, kW)' if layout == 'NCHW' else '(kH, kW, O)'}")
    new = (*([0] if images.ndim == 2 else []), *([channel] if stencils.ndim == 2 else []))  # axes that the result lacks
    if isinstance(out, np.ndarray) and out.ndim + len(new) != 4:
        raise ValueError(f"out: shape {out.shape} must have {4 - len(new)} axes, as the result has")
    y = conv2d(
        np.expand_dims(images, (0, channel) if images.ndim == 2 else channel),
        np.expand_dims(stencils, bank[: 4 - stencils.ndim]),
        None, stride, padding, dilation, layout=layout, padding_mode=padding_mode, activation=activation, algorithm=algorithm,
        accuracy=accuracy, workspace_limit=workspace_limit, out=np.expand_dims(out, new) if isinstance(out, np.ndarray) else out,
    )  # fmt: skip
    return y.squeeze(new) if out is None else out
