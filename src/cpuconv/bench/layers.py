"""The distinct convolutions of standard networks at batch 1, as their papers, torchvision and Ultralytics define them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from cpuconv.problem import Problem, output_size

CLASSES = ("1x1", "3x3 stride 1", "depthwise", "grouped", "other")
"""What layers are sorted by; "other" is strided, dilated, with other kernels, or in one dimension."""


def class_of(p: Problem) -> str:
    if p.groups > 1:
        return "depthwise" if p.groups == p.ic else "grouped"
    if (p.kh, p.kw) == (1, 1):
        return "1x1"
    plain = (p.kh, p.kw, p.stride, p.dilation) == (3, 3, (1, 1), (1, 1))
    return "3x3 stride 1" if plain else "other"


@dataclass(frozen=True)
class Layer:
    """A convolution (float32, NCHW, with bias) and how often its network contains it."""

    network: str
    problem: Problem
    count: int

    @property
    def label(self) -> str:
        """Such as ``3x3/2 64-128 @56``: kernel, stride, channels and size of the input."""
        p = self.problem
        stride = f"/{p.stride[0]}" if p.stride != (1, 1) else ""
        dilation = f" d{p.dilation[0]}" if p.dilation != (1, 1) else ""
        channels = f"dw {p.ic}" if class_of(p) == "depthwise" else f"{p.ic}-{p.oc}" + (f" g{p.groups}" if p.groups > 1 else "")
        return f"{p.kh}x{p.kw}{stride}{dilation} {channels} @{p.ih}" + (f"x{p.iw}" if p.iw != p.ih else "")

    @property
    def name(self) -> str:
        return f"{self.network} {self.label}"


@dataclass
class _Network:
    """Counts the layers that are added to it; each addition returns its output's height."""

    counts: dict[Problem, int] = field(default_factory=dict)

    def add(
        self, ic: int, ih: int, oc: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | None = None, dilation: int = 1,
        groups: int = 1, *, iw: int | None = None, count: int = 1,
    ) -> int:  # fmt: skip
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        p = kh // 2 * dilation if padding is None else padding
        problem = Problem(
            n=1, ic=ic, ih=ih, iw=ih if iw is None else iw, oc=oc, kh=kh, kw=kw,
            stride=(stride, stride), padding=(p,) * 4, dilation=(dilation, dilation), groups=groups,
        )  # fmt: skip
        self.counts[problem] = self.counts.get(problem, 0) + count
        return output_size(ih, kh, stride, p, p, dilation)


def _resnet50(net: _Network) -> None:
    net.add(3, 224, 64, 7, 2)
    size, ic = 56, 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            net.add(ic, size, width, 1)
            after = net.add(width, size, width, 3, stride)
            net.add(width, after, 4 * width, 1)
            if block == 0:
                net.add(ic, size, 4 * width, 1, stride)
            size, ic = after, 4 * width


def _vgg16(net: _Network) -> None:
    size, ic = 224, 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            net.add(ic, size, width, 3)
            ic = width
        size //= 2


def _inverted_residuals(net: _Network, blocks: tuple[tuple[int, int, int, int, int], ...]) -> None:
    """Blocks of (expansion, output channels, repeats, first stride, kernel), from an image to the last layer of 1280 channels."""
    size, ic = net.add(3, 224, 32, 3, 2), 32
    for expansion, oc, repeats, first, kernel in blocks:
        for i in range(repeats):
            width = ic * expansion
            if expansion > 1:
                net.add(ic, size, width, 1)
            size = net.add(width, size, width, kernel, first if i == 0 else 1, groups=width)
            net.add(width, size, oc, 1)
            ic = oc
    net.add(ic, size, 1280, 1)


def _mobilenet_v2(net: _Network) -> None:
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    _inverted_residuals(net, tuple((*block, 3) for block in blocks))


def _efficientnet_b0(net: _Network) -> None:
    """Without the squeeze-and-excitation layers, which see one pixel."""
    blocks = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    _inverted_residuals(net, blocks)


def _yolov8n(net: _Network) -> None:
    def c2f(ic: int, oc: int, size: int, repeats: int) -> None:
        half = oc // 2
        net.add(ic, size, oc, 1)
        net.add(half, size, half, 3, count=2 * repeats)
        net.add((2 + repeats) * half, size, oc, 1)

    size, ic = net.add(3, 640, 16, 3, 2), 16
    sizes = []
    for oc, repeats in ((32, 1), (64, 2), (128, 2), (256, 1)):
        size = net.add(ic, size, oc, 3, 2)
        c2f(oc, oc, size, repeats)
        sizes.append(size)
        ic = oc
    _, p3, p4, p5 = sizes
    net.add(256, p5, 128, 1)  # pyramid pooling
    net.add(512, p5, 256, 1)
    c2f(256 + 128, 128, p4, 1)  # the neck, down and up again
    c2f(128 + 64, 64, p3, 1)
    net.add(64, p3, 64, 3, 2)
    c2f(64 + 128, 128, p4, 1)
    net.add(128, p4, 128, 3, 2)
    c2f(128 + 256, 256, p5, 1)
    for channels, size in ((64, p3), (128, p4), (256, p5)):  # the heads: boxes in 64 channels, 80 classes
        for width in (64, 80):
            net.add(channels, size, width, 3)
            net.add(width, size, width, 3)
            net.add(width, size, width, 1)
    net.add(16, 4, 1, 1, iw=p3 * p3 + p4 * p4 + p5 * p5)


def _unet(net: _Network) -> None:
    """At 256 x 256; its transposed convolutions are left out."""
    ic, size, width = 3, 256, 64
    for _ in range(5):
        net.add(ic, size, width, 3)
        net.add(width, size, width, 3)
        ic, width, size = width, 2 * width, size // 2
    size, width = 32, 512
    for _ in range(4):
        net.add(2 * width, size, width, 3)
        net.add(width, size, width, 3)
        size, width = 2 * size, width // 2


def _deeplab_v3(net: _Network) -> None:
    """The dilated layers of ResNet-101 at output stride 8, and of the pyramid pooling."""
    for dilation in (12, 24, 36):
        net.add(2048, 28, 256, 3, dilation=dilation)
    net.add(256, 28, 256, 3, dilation=2, count=22)
    net.add(512, 28, 512, 3, dilation=4, count=2)


def _convnext_t(net: _Network) -> None:
    """Its 1x1 layers are matrix products of other libraries' linear layers, and left out."""
    net.add(3, 224, 96, 4, 4, 0)
    for channels, size, count in ((96, 56, 3), (192, 28, 3), (384, 14, 9), (768, 7, 3)):
        net.add(channels, size, channels, 7, groups=channels, count=count)
        if channels < 768:
            net.add(channels, size, 2 * channels, 2, 2, 0)


def _textcnn(net: _Network) -> None:
    for width in (3, 4, 5):
        net.add(300, 1, 100, (1, width), padding=0, iw=128)


def _resnext50(net: _Network) -> None:
    """32x4d; its grouped layers, as in the networks below."""
    for i, (width, size) in enumerate(((128, 56), (256, 28), (512, 14), (1024, 7))):
        if i:
            net.add(width, 2 * size, width, 3, 2, groups=32)
        net.add(width, size, width, 3, groups=32, count=(3, 3, 5, 2)[i])


def _regnet(net: _Network) -> None:
    """X of 400 million and 800 million, Y of 400 million operations: groups of 16, 16 and 8 channels."""
    for widths, depths, group in (
        ((32, 64, 160, 400), (1, 2, 7, 12), 16),
        ((64, 128, 288, 672), (1, 3, 7, 5), 16),
        ((48, 104, 208, 440), (1, 3, 6, 6), 8),
    ):
        for width, depth, size in zip(widths, depths, (56, 28, 14, 7), strict=True):
            net.add(width, 2 * size, width, 3, 2, groups=width // group)
            if depth > 1:
                net.add(width, size, width, 3, groups=width // group, count=depth - 1)


def _shufflenet(net: _Network) -> None:
    """Of three groups, its 1x1 layers."""
    for width, size, count in ((240, 28, 4), (480, 14, 8), (960, 7, 4)):
        net.add(width, size, width // 4, 1, groups=3, count=count - 1)
        net.add(width // 4, size, width, 1, groups=3, count=count - 1)


_NETWORKS: dict[str, Callable[[_Network], None]] = {
    "ResNet-50": _resnet50,
    "VGG-16": _vgg16,
    "MobileNetV2": _mobilenet_v2,
    "EfficientNet-B0": _efficientnet_b0,
    "YOLOv8n": _yolov8n,
    "U-Net": _unet,
    "DeepLabV3": _deeplab_v3,
    "ConvNeXt-T": _convnext_t,
    "TextCNN": _textcnn,
}
NETWORKS = tuple(_NETWORKS)
_GROUPED: dict[str, Callable[[_Network], None]] = {"ResNeXt-50": _resnext50, "RegNet": _regnet, "ShuffleNet": _shufflenet}
GROUPED_NETWORKS = tuple(_GROUPED)
"""Networks of grouped layers, which are not among the standard ones."""


@cache
def layers_of(network: str) -> tuple[Layer, ...]:
    """The distinct layers of one of `NETWORKS` or `GROUPED_NETWORKS`, in the order in which data first meets them."""
    net = _Network()
    (_NETWORKS | _GROUPED)[network](net)
    return tuple(Layer(network, problem, count) for problem, count in net.counts.items())


def all_layers() -> tuple[Layer, ...]:
    return tuple(layer for network in NETWORKS for layer in layers_of(network))
