"""ONNX's own backend tests of Conv, ConvTranspose, ConvInteger and QLinearConv: these nodes run here, all others on its reference evaluator."""

import re
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

import cpuconv

onnx = pytest.importorskip("onnx")
from onnx.backend.base import Backend, BackendRep  # noqa: E402
from onnx.backend.test import BackendTest  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

RUNS: Counter[str] = Counter()
"""Nodes that ran here, by operator."""

AUTO_PADS = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}


def options(x: np.ndarray, auto_pad: str, dilations: Any, group: int, pads: Any, strides: Any) -> dict[str, Any]:
    """The attributes that the operators share, as arguments of ours."""
    rank = x.ndim - 2
    padding: Any = AUTO_PADS.get(auto_pad, 0)
    if auto_pad == "NOTSET" and pads:
        padding = tuple(zip(pads[:rank], pads[rank:], strict=True))
    return {"stride": tuple(strides or (1,) * rank), "padding": padding, "dilation": tuple(dilations or (1,) * rank), "groups": group}


class Conv(OpRun):
    def _run(self, x, w, bias=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
        RUNS["Conv"] += 1
        conv = getattr(cpuconv, f"conv{x.ndim - 2}d")
        return (conv(x, w, bias, **options(x, auto_pad, dilations, group, pads, strides)),)


class ConvTranspose(OpRun):
    def _run(
        self, x, w, bias=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None, output_shape=None, pads=None,
        strides=None,
    ):  # fmt: skip
        RUNS["ConvTranspose"] += 1
        conv = getattr(cpuconv, f"conv_transpose{x.ndim - 2}d")
        more = {"output_padding": tuple(output_padding or (0,) * (x.ndim - 2)), "output_shape": output_shape and tuple(output_shape)}
        return (conv(x, w, bias, **options(x, auto_pad, dilations, group, pads, strides), **more),)


class ConvInteger(OpRun):
    def _run(self, x, w, x_zero=None, w_zero=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
        RUNS["ConvInteger"] += 1
        conv = getattr(cpuconv.quantized, f"conv{x.ndim - 2}d_int32")
        zeros = 0 if x_zero is None else x_zero.item(), 0 if w_zero is None else w_zero
        return (conv(x, w, *zeros, **options(x, auto_pad, dilations, group, pads, strides)),)


class QLinearConv(OpRun):
    def _run(
        self, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None,
        pads=None, strides=None,
    ):  # fmt: skip
        RUNS["QLinearConv"] += 1
        conv = getattr(cpuconv.quantized, f"conv{x.ndim - 2}d")
        scales = x_scale, x_zero.item(), w, w_scale, w_zero, y_scale, y_zero.reshape(-1)[0]
        return (conv(x, *scales, bias, **options(x, auto_pad, dilations, group, pads, strides)),)


OURS = (Conv, ConvTranspose, ConvInteger, QLinearConv)


class Rep(BackendRep):
    def __init__(self, model):
        self.evaluator = ReferenceEvaluator(model, new_ops=list(OURS))

    def run(self, inputs, **_):  # old models list their weights among the inputs, behind those that are given
        return tuple(self.evaluator.run(None, dict(zip(self.evaluator.input_names, inputs, strict=False))))


class Ours(Backend):
    @classmethod
    def prepare(cls, model, device="CPU", **_):
        return Rep(model)

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


PATTERN = re.compile(
    r"test_(basic_)?conv_|test_convtranspose|test_convinteger|test_qlinearconv|test_Conv[123]d|test_ConvTranspose|test_operator_conv"
    r"|test_causal_conv_with_state.*_expanded"  # an operator that its definition expands to Conv among others
)


def cases() -> dict[str, type]:
    """The classes of ONNX's suite by the name of each test for CPUs that concerns these operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the data of all operators' tests divides by zero here and there
        suite = BackendTest(Ours, __name__)
    return {name: case for case in suite.test_cases.values() for name in dir(case) if name.endswith("_cpu") and PATTERN.match(name)}


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_backend(name):
    before = RUNS.total()
    getattr(CASES[name](name), name)()
    assert RUNS.total() > before, "no node of the model ran here"


def test_all_of_them_were_found():
    assert len(CASES) >= 60
    for operator in OURS:
        assert any(operator.__name__.lower() in name.replace("_", "").lower() for name in CASES)
