"""Distinct convolution layers of well-known networks at batch 1, as problem specs (torchvision's and Ultralytics' definitions)."""

from cpuconv import Problem


def _layer(ic: int, size: int, oc: int, kernel: int, stride: int = 1, groups: int = 1, padding: int | None = None) -> Problem:
    p = kernel // 2 if padding is None else padding
    return Problem(n=1, ic=ic, ih=size, iw=size, oc=oc, kh=kernel, kw=kernel, stride=(stride, stride), padding=(p,) * 4, groups=groups)


def resnet50() -> list[Problem]:
    layers = [_layer(3, 224, 64, 7, 2)]
    size, ic = 56, 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            layers += [_layer(ic, size, width, 1), _layer(width, size, width, 3, stride), _layer(width, size // stride, 4 * width, 1)]
            if block == 0:
                layers.append(_layer(ic, size, 4 * width, 1, stride))
            size, ic = size // stride, 4 * width
    return layers


def vgg16() -> list[Problem]:
    layers, size, ic = [], 224, 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers.append(_layer(ic, size, width, 3))
            ic = width
        size //= 2
    return layers


def mobilenet_v2() -> list[Problem]:
    layers, size, ic = [_layer(3, 224, 32, 3, 2)], 112, 32
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, oc, repeats, first_stride in blocks:
        for i in range(repeats):
            stride, width = first_stride if i == 0 else 1, ic * expand
            if expand > 1:
                layers.append(_layer(ic, size, width, 1))
            layers += [_layer(width, size, width, 3, stride, width), _layer(width, size // stride, oc, 1)]
            size, ic = size // stride, oc
    return [*layers, _layer(320, 7, 1280, 1)]


def yolov8n() -> list[Problem]:
    """The backbone's layers at 640 x 640."""
    layers, size, ic = [_layer(3, 640, 16, 3, 2)], 320, 16
    for oc, repeats in ((32, 1), (64, 2), (128, 2), (256, 1)):
        layers.append(_layer(ic, size, oc, 3, 2))
        size //= 2
        layers += [_layer(oc, size, oc, 1), _layer(oc // 2, size, oc // 2, 3), _layer((2 + repeats) * oc // 2, size, oc, 1)]
        ic = oc
    return layers


NETWORKS = {
    name: list(dict.fromkeys(layers()))
    for name, layers in {"ResNet-50": resnet50, "VGG-16": vgg16, "MobileNetV2": mobilenet_v2, "YOLOv8n": yolov8n}.items()
}
