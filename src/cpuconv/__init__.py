"""Convolution on CPUs, as fast as the CPU can do it, for NumPy arrays.

>>> import numpy as np, cpuconv
>>> x = np.ones((1, 3, 8, 8), np.float32)
>>> w = np.ones((4, 3, 3, 3), np.float32)
>>> cpuconv.conv2d(x, w, padding=1, activation="relu").shape
(1, 4, 8, 8)
"""

from cpuconv import grad, quantized, wisdom
from cpuconv.calibration import calibrate
from cpuconv.config import show_config
from cpuconv.cpu import Rates
from cpuconv.errors import UnsupportedError
from cpuconv.functional import conv1d, conv2d, conv3d
from cpuconv.involution import involution2d
from cpuconv.layers import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from cpuconv.planner import CacheInfo, algorithms, cache_info, clear_cache, explain
from cpuconv.problem import Problem
from cpuconv.receptive import ReceptiveField, receptive_field
from cpuconv.separable import SeparableConv2d, separable_conv2d
from cpuconv.shapes import flops, output_shape
from cpuconv.stencils import stencil
from cpuconv.threads import get_num_threads, set_num_threads, threads
from cpuconv.transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d
from cpuconv.tuning import Tuned, tune
from cpuconv.version import __version__

__all__ = [
    "CacheInfo",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Problem",
    "Rates",
    "ReceptiveField",
    "SeparableConv2d",
    "Tuned",
    "UnsupportedError",
    "__version__",
    "algorithms",
    "cache_info",
    "calibrate",
    "clear_cache",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "explain",
    "flops",
    "get_num_threads",
    "grad",
    "involution2d",
    "output_shape",
    "quantized",
    "receptive_field",
    "separable_conv2d",
    "set_num_threads",
    "show_config",
    "stencil",
    "threads",
    "tune",
    "wisdom",
]
