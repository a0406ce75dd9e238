"""`Conv1d`, `Conv2d`, `Conv3d` and their transposes: a weight packed once, and a plan kept for each input shape."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv.layer import Layer
from cpuconv.options import Options, TransposedOptions

Sizes = int | tuple[int, ...]


class Conv2d(Layer):
    """A 2-D convolution layer (the cross-correlation of deep learning) with fixed weights, for NumPy arrays.

    The parameters are those of `conv2d`. The weight is copied and packed for the CPU once; a plan is kept for each shape of
    input, until new wisdom (`cpuconv.tune`) calls for a new one. One layer may be called from many threads at once, and be copied and pickled.

    Parameters
    ----------
    weight : array_like
        ``(O, C/groups, kH, kW)`` for ``layout="NCHW"``, ``(kH, kW, C/groups, O)`` for ``"NHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or pair of int
    padding : int, (ph, pw), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCHW" or "NHWC"
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    activation, algorithm, accuracy, workspace_limit
        See `conv2d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv = Conv2d(np.ones((8, 3, 3, 3), np.float32), padding="same", activation="relu")
    >>> conv(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        padding_mode: str = "zeros",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
    ) -> None:
        options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=2)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)


class Conv1d(Layer):
    """A 1-D convolution layer (the cross-correlation of deep learning) with fixed weights, for NumPy arrays.

    The parameters are those of `conv1d`. See `Conv2d`.

    Parameters
    ----------
    weight : array_like
        ``(O, C/groups, kL)`` for ``layout="NCL"``, ``(kL, C/groups, O)`` for ``"NLC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or (int,)
    padding : int, (p,), ((left, right),), "valid", "same" or "same_lower"
    groups : int
    layout : "NCL" or "NLC"
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    activation, algorithm, accuracy, workspace_limit
        See `conv1d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv = Conv1d(np.ones((8, 3, 3), np.float32), padding="same", activation="relu")
    >>> conv(np.ones((1, 3, 32), np.float32)).shape
    (1, 8, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCL",
        padding_mode: str = "zeros",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
    ) -> None:
        options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=1)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)


class Conv3d(Layer):
    """A 3-D convolution layer (the cross-correlation of deep learning) with fixed weights, for NumPy arrays.

    The parameters are those of `conv3d`. See `Conv2d`.

    Parameters
    ----------
    weight : array_like
        ``(O, C/groups, kD, kH, kW)`` for ``layout="NCDHW"``, ``(kD, kH, kW, C/groups, O)`` for ``"NDHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or triple of int
    padding : int, (pd, ph, pw), ((front, back), (top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCDHW" or "NDHWC"
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    activation, algorithm, accuracy, workspace_limit
        See `conv3d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv = Conv3d(np.ones((8, 3, 3, 3, 3), np.float32), padding="same", activation="relu")
    >>> conv(np.ones((1, 3, 8, 32, 32), np.float32)).shape
    (1, 8, 8, 32, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCDHW",
        padding_mode: str = "zeros",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
    ) -> None:
        options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=3)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)


class ConvTranspose2d(Layer):
    """A 2-D transposed convolution layer with fixed weights, for NumPy arrays; see `conv_transpose2d` and `Conv2d`.

    Parameters
    ----------
    weight : array_like
        ``(C, O/groups, kH, kW)`` for ``layout="NCHW"``, ``(kH, kW, O/groups, C)`` for ``"NHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation, output_padding : int or pair of int
    padding : int, (ph, pw), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCHW" or "NHWC"
    output_shape : int or pair of int, optional
    activation, algorithm, accuracy, workspace_limit
        See `conv_transpose2d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> up = ConvTranspose2d(np.ones((8, 3, 2, 2), np.float32), stride=2, activation="relu")
    >>> up(np.ones((1, 8, 16, 16), np.float32)).shape
    (1, 3, 32, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
        *,
        layout: str = "NCHW",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
        output_shape: Sizes | None = None,
    ) -> None:
        options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=2)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)


class ConvTranspose1d(Layer):
    """A 1-D transposed convolution layer with fixed weights, for NumPy arrays; see `conv_transpose1d` and `Conv2d`.

    Parameters
    ----------
    weight : array_like
        ``(C, O/groups, kL)`` for ``layout="NCL"``, ``(kL, O/groups, C)`` for ``"NLC"``.
    bias : array_like of shape (O,), optional
    stride, dilation, output_padding : int or (int,)
    padding : int, (p,), ((left, right),), "valid", "same" or "same_lower"
    groups : int
    layout : "NCL" or "NLC"
    output_shape : int or (int,), optional
    activation, algorithm, accuracy, workspace_limit
        See `conv_transpose1d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> up = ConvTranspose1d(np.ones((8, 3, 2), np.float32), stride=2, activation="relu")
    >>> up(np.ones((1, 8, 16), np.float32)).shape
    (1, 3, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
        *,
        layout: str = "NCL",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
        output_shape: Sizes | None = None,
    ) -> None:
        options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=1)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)


class ConvTranspose3d(Layer):
    """A 3-D transposed convolution layer with fixed weights, for NumPy arrays; see `conv_transpose3d` and `Conv2d`.

    Parameters
    ----------
    weight : array_like
        ``(C, O/groups, kD, kH, kW)`` for ``layout="NCDHW"``, ``(kD, kH, kW, O/groups, C)`` for ``"NDHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation, output_padding : int or triple of int
    padding : int, (pd, ph, pw), ((front, back), (top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCDHW" or "NDHWC"
    output_shape : int or triple of int, optional
    activation, algorithm, accuracy, workspace_limit
        See `conv_transpose3d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> up = ConvTranspose3d(np.ones((8, 3, 2, 2, 2), np.float32), stride=2, activation="relu")
    >>> up(np.ones((1, 8, 4, 16, 16), np.float32)).shape
    (1, 3, 8, 32, 32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        stride: Sizes = 1,
        padding: Any = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
        *,
        layout: str = "NCDHW",
        activation: Any = None,
        algorithm: str = "auto",
        accuracy: float | str | None = None,
        workspace_limit: int | None = None,
        output_shape: Sizes | None = None,
    ) -> None:
        options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=3)
        super().__init__(options, weight, bias, activation, algorithm, accuracy, workspace_limit)
