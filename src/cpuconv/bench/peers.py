"""One convolution in cpuconv and in each peer library, in its own best steady state: weights packed ahead, the output reused.

A builder takes a problem (float32, NCHW), x, weight and bias, and the number of threads. Libraries are imported in it, so that
those not installed do no harm. Arrays begin at cache lines, as in what the libraries allocate for themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cpuconv.layers import Conv2d
from cpuconv.plan import Array, aligned_empty
from cpuconv.problem import Problem
from cpuconv.threads import set_num_threads


class Unable(Exception):
    """The peer has no such convolution."""


@dataclass(frozen=True)
class Runner:
    """`run` does one inference, `output` does one and returns it as (n, oc, oh, ow).

    `padding`: the (top, bottom, left, right) that the peer can do, where it is not the problem's.
    """

    run: Callable[[], object]
    output: Callable[[], Array]
    padding: tuple[int, int, int, int] | None = None


Builder = Callable[[Problem, Array, Array, Array, int], Runner]


@dataclass(frozen=True)
class Peer:
    """A contestant: what it needs installed (`modules`), the package that its version is read of, and the layout of its arrays."""

    title: str
    build: Builder
    modules: tuple[str, ...]
    package: str
    layout: str = "NCHW"

    @property
    def missing(self) -> list[str]:
        return [name for name in self.modules if find_spec(name) is None]

    @property
    def version(self) -> str:
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return "unknown"


def cpuconv_nchw(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    set_num_threads(threads)
    conv = Conv2d(w, b, p.stride, (p.padding[:2], p.padding[2:]), p.dilation, p.groups)
    y = conv(x)
    return Runner(lambda: conv(x, out=y), lambda: conv(x))


def cpuconv_nhwc(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    set_num_threads(threads)
    data = aligned_empty((p.n, p.ih, p.iw, p.ic), x.dtype)
    data[...] = x.transpose(0, 2, 3, 1)
    conv = Conv2d(w.transpose(2, 3, 1, 0), b, p.stride, (p.padding[:2], p.padding[2:]), p.dilation, p.groups, layout="NHWC")
    y = conv(data)
    return Runner(lambda: conv(data, out=y), lambda: conv(data).transpose(0, 3, 1, 2))


def _torch(p: Problem, x: Array, w: Array, b: Array, threads: int, form: str) -> Runner:
    """Its API has no output to reuse."""
    import torch

    torch.set_num_threads(threads)
    tx, tw = (torch.from_numpy(a).contiguous(memory_format=getattr(torch, form)) for a in (x, w))
    tb = torch.from_numpy(b)

    def run() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(tx, tw, tb, p.stride, (p.padding[0], p.padding[2]), p.dilation, p.groups)

    return Runner(run, lambda: run().numpy())


def torch_nchw(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    return _torch(p, x, w, b, threads, "contiguous_format")


def torch_channels_last(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    return _torch(p, x, w, b, threads, "channels_last")


def _onnx_model(p: Problem, w: Array, b: Array) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    top, bottom, left, right = p.padding
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], kernel_shape=[p.kh, p.kw], strides=list(p.stride), pads=[top, left, bottom, right],
        dilations=list(p.dilation), group=p.groups,
    )  # fmt: skip
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", p.x_shape), ("y", p.y_shape)))
    graph = helper.make_graph([node], "convolution", [x], [y], [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # which releases of all peers read
    return model


def onnxruntime(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(_onnx_model(p, w, b).SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
    y = ort.OrtValue.ortvalue_from_shape_and_type(p.y_shape, np.float32, "cpu")
    binding.bind_ortvalue_output("y", y)

    def run() -> None:
        session.run_with_iobinding(binding)

    def output() -> Array:
        run()
        return np.asarray(y.numpy())

    return Runner(run, output)


def openvino(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model=_onnx_model(p, w, b).SerializeToString()), "CPU", options).create_infer_request()
    y = aligned_empty(p.y_shape, x.dtype)
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(y, shared_memory=True))

    def run() -> None:
        request.start_async()
        request.wait()

    def output() -> Array:
        run()
        return y.copy()

    return Runner(run, output)


def ncnn(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    import ncnn as nn

    net = nn.Net()
    net.opt.num_threads = threads
    for name in ("winograd_convolution", "sgemm_convolution", "packing_layout"):
        setattr(net.opt, f"use_{name}", True)
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage", "vulkan_compute"):
        setattr(net.opt, f"use_{name}", False)
    net.opt.lightmode = True
    top, bottom, left, right = p.padding
    parameters = {
        0: p.oc, 1: p.kw, 11: p.kh, 2: p.dilation[1], 12: p.dilation[0], 3: p.stride[1], 13: p.stride[0],
        4: left, 15: right, 14: top, 16: bottom, 5: 1, 6: w.size, **({7: p.groups} if p.groups > 1 else {}),
    }  # fmt: skip
    kind = "ConvolutionDepthWise" if p.groups > 1 else "Convolution"
    lines = [
        "7767517", "2 2", f"Input in 0 1 in 0={p.iw} 1={p.ih} 2={p.ic}",
        f"{kind} conv 1 1 in out " + " ".join(f"{key}={value}" for key, value in parameters.items()),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        param, weights = Path(directory, "m.param"), Path(directory, "m.bin")
        param.write_text("\n".join([*lines, ""]))
        weights.write_bytes(bytes(4) + w.tobytes() + b.tobytes())  # four zero bytes: plain float32 follows
        if net.load_param(str(param)) or net.load_model(str(weights)):
            raise Unable("ncnn does not load its model")
    images = [nn.Mat(image).clone() for image in x]  # it has no batches

    def run() -> list[Any]:
        return [infer(image) for image in images]

    def infer(image: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("in", image)
        return extractor.extract("out")[1]

    return Runner(run, lambda: np.stack([np.array(y) for y in run()]))


def mnn(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    import MNN
    import onnx

    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "m.onnx"), Path(directory, "m.mnn")
        onnx.save(_onnx_model(p, w, b), str(source))
        converter = str(Path(sys.executable).with_name("mnnconvert"))
        command = [converter, "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "x"]
        offline = os.environ | {"PIP_NO_INDEX": "1"}  # the converter would install a package for its statistics, which takes ONNX's protobuf away
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=offline)
        interpreter = MNN.Interpreter(str(target))
    session = interpreter.createSession({"numThread": threads, "precision": "high", "backend": "CPU", "memory": "high"})

    def tensor(a: Array) -> Any:
        return MNN.Tensor(a.shape, MNN.Halide_Type_Float, a, MNN.Tensor_DimensionType_Caffe)

    interpreter.getSessionInput(session).copyFrom(tensor(x))

    def output() -> Array:
        interpreter.runSession(session)
        host = tensor(np.zeros(p.y_shape, np.float32))
        interpreter.getSessionOutput(session).copyToHostTensor(host)
        return np.array(host.getNumpyData(), copy=True).reshape(p.y_shape)

    return Runner(lambda: interpreter.runSession(session), output)


def _same_padding(p: Problem) -> tuple[int, int, int, int]:
    """TensorFlow's SAME: the extra pixel at the end."""
    pads: list[int] = []
    for size, out, kernel, stride, dilation in zip((p.ih, p.iw), (p.oh, p.ow), (p.kh, p.kw), p.stride, p.dilation, strict=True):
        if out != -(-size // stride):
            raise Unable("TensorFlow Lite has no such padding")
        total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        pads += (total // 2, total - total // 2)
    return pads[0], pads[1], pads[2], pads[3]


def litert(p: Problem, x: Array, w: Array, b: Array, threads: int) -> Runner:
    """LiteRT with its XNNPACK delegate, on a model of one operation."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    if p.groups not in (1, p.ic):
        raise Unable("TensorFlow Lite has no grouped convolution")
    valid, depthwise = not any(p.padding), p.groups > 1
    padding = None if valid else _same_padding(p)
    weight = np.ascontiguousarray(w.transpose(1, 2, 3, 0) if depthwise else w.transpose(0, 2, 3, 1))
    data = np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    buffers = [schema.BufferT() for _ in range(3)]
    for buffer, array in zip(buffers[1:], (weight, b), strict=True):
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
    graph = schema.SubGraphT()
    graph.tensors = []
    for name, shape, index in (("x", data.shape, 0), ("w", weight.shape, 1), ("b", b.shape, 2), ("y", (p.n, p.oh, p.ow, p.oc), 0)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), 0, index
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], [3]
    options = (schema.DepthwiseConv2DOptionsT if depthwise else schema.Conv2DOptionsT)()
    options.padding, options.fusedActivationFunction = int(valid), 0
    (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor) = p.stride, p.dilation
    if depthwise:
        options.depthMultiplier = p.oc // p.ic
    operator, code, model = schema.OperatorT(), schema.OperatorCodeT(), schema.ModelT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    kinds = schema.BuiltinOptions
    operator.builtinOptionsType = kinds.DepthwiseConv2DOptions if depthwise else kinds.Conv2DOptions
    operator.builtinOptions = options
    graph.operators = [operator]
    code.builtinCode = code.deprecatedBuiltinCode = 4 if depthwise else 3
    code.version = 2
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, buffers, [code], [graph]
    packer = flatbuffers.Builder(1 << 20)
    packer.Finish(model.Pack(packer), b"TFL3")

    interpreter = Interpreter(model_content=bytes(packer.Output()), num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, data)
    y = interpreter.get_output_details()[0]["index"]

    def output() -> Array:
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(y)).transpose(0, 3, 1, 2)

    return Runner(interpreter.invoke, output, padding)


OURS = {
    "cpuconv_nchw": Peer("cpuconv NCHW", cpuconv_nchw, ("cpuconv",), "cpuconv"),
    "cpuconv_nhwc": Peer("cpuconv NHWC", cpuconv_nhwc, ("cpuconv",), "cpuconv", "NHWC"),
}
PEERS = {
    "torch": Peer("PyTorch", torch_nchw, ("torch",), "torch"),
    "torch_cl": Peer("PyTorch channels_last", torch_channels_last, ("torch",), "torch", "NHWC"),
    "ort": Peer("ONNX Runtime", onnxruntime, ("onnxruntime", "onnx"), "onnxruntime"),
    "openvino": Peer("OpenVINO", openvino, ("openvino", "onnx"), "openvino"),
    "ncnn": Peer("ncnn", ncnn, ("ncnn",), "ncnn"),
    "mnn": Peer("MNN", mnn, ("MNN", "onnx"), "MNN"),
    "litert": Peer("LiteRT (XNNPACK)", litert, ("ai_edge_litert", "flatbuffers"), "ai-edge-litert", "NHWC"),
}
ALL = OURS | PEERS
