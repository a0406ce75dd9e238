"""Convolutions of 8-bit integers with zero points and scales: exact, as ONNX's ConvInteger and QLinearConv define them.

An integer q stands for the number ``scale (q - zero_point)``.

>>> import numpy as np
>>> x, w = np.full((1, 3, 5, 5), 130, np.uint8), np.full((2, 3, 3, 3), -2, np.int8)
>>> conv2d_int32(x, w, x_zero_point=128)[0, :, 1, 1]            # 27 products of 130 - 128 and -2
array([-108, -108], dtype=int32)
>>> conv2d(x, 0.5, 128, w, 0.25, 0, 0.5, np.uint8(100))[0, :, 1, 1]  # -108 of 0.5 0.25, in steps of 0.5, from 100 on
array([73, 73], dtype=uint8)
"""

from cpuconv.quantized.functional import conv1d, conv1d_int32, conv2d, conv2d_int32, conv3d, conv3d_int32
from cpuconv.quantized.layers import Conv1d, Conv1dInt32, Conv2d, Conv2dInt32, Conv3d, Conv3dInt32

__all__ = [
    "Conv1d",
    "Conv1dInt32",
    "Conv2d",
    "Conv2dInt32",
    "Conv3d",
    "Conv3dInt32",
    "conv1d",
    "conv1d_int32",
    "conv2d",
    "conv2d_int32",
    "conv3d",
    "conv3d_int32",
]
