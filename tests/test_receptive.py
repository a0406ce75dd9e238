"""The receptive field, against the inputs that outputs are found to depend on."""

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, receptive_field


def layer(kernel, stride=1, padding=0, dilation=1):
    return Conv2d(np.ones((1, 1, *kernel)), None, stride, padding, dilation)


STACKS = {
    "one": [layer((3, 3))],
    "strides and padding": [layer((7, 7), 2, 3), layer((3, 3), 2, 1), layer((3, 3), 1, 1)],
    "axes differ": [layer((3, 5), (2, 1), (1, 2)), layer((1, 3), 1, ((0, 1), (2, 0)), (3, 2)), layer((2, 2), (1, 2))],
    "same": [layer((4, 3), padding="same", dilation=(1, 2)), layer((4, 3), padding="same_lower"), layer((5, 5), padding="valid")],
    "gaps between outputs": [layer((1, 1), 3), layer((2, 2), 2)],
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_against_the_inputs_that_change_an_output(stack, axis):
    """The first and the last row or column of ones that an output with positive weights answers to."""
    size, output = (40, 44), (3, 4)
    lines = np.zeros((size[axis], 1, *size))
    for i, image in enumerate(lines):
        image.swapaxes(1, 1 + axis)[0, i] = 1
    y = lines
    for conv in stack:
        y = conv(y)
    seen = np.flatnonzero(y[:, 0, *output])
    found = receptive_field(stack).region(*output)[axis]
    assert (found.start, found.stop) == (seen[0], seen[-1] + 1)


def test_published_figures():
    """VGG-16's, to the last pooling: Araujo, Norris and Sim's table gives 212, 32 and a padding of 90."""
    stack = [s for convolutions in (2, 2, 3, 3, 3) for s in (*[(3, 1, 1)] * convolutions, (2, 2))]
    assert receptive_field(stack) == ((212, 212), (32, 32), (-90, -90))


def test_forms_agree():
    expected = receptive_field([layer((3, 5), 1, ((1, 0), (2, 4)), 2), layer((3, 3), 2, 1)])
    assert receptive_field([((3, 5), 1, ((1, 0), (2, 4)), 2), {"kernel_size": 3, "stride": 2, "padding": 1}]) == expected
    assert receptive_field([]) == ((1, 1), (1, 1), (0, 0))
    assert receptive_field([((3,), 2, 1), 3 * (3,)]) == ((7,), (6,), (-7,))
    volume = cpuconv.Conv3d(np.ones((1, 1, 3, 4, 5)), padding=((0, 1), (2, 3), (4, 5)), stride=(1, 2, 3))
    assert receptive_field([volume, (2,)]) == ((4, 6, 8), (1, 2, 3), (0, -2, -4))
    assert receptive_field([cpuconv.Conv1d(np.ones((1, 1, 3)), padding="same")]) == ((3,), (1,), (-1,))
    assert str(expected) == "ReceptiveField(size=(7, 11), jump=(2, 2), start=(-2, -3))"


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([3], TypeError, r"layers\[0\]: must be .*got 3"),
        ([(3,), (0, 1)], ValueError, r"layers\[1\] kernel_size: 0 must be at least 1"),
        ([(3, 1.5)], TypeError, r"layers\[0\] stride: .*1.5"),
        ([(3, 2, "same")], ValueError, r"layers\[0\] padding: 'same' with stride 2"),
        ([(3, 1, "full")], ValueError, r"layers\[0\] padding: 'full' is not one of"),
        ([(3, 1, -1)], ValueError, r"layers\[0\] padding: -1 must be at least 0"),
        ([cpuconv.ConvTranspose2d(np.ones((1, 1, 2, 2)), stride=2)], ValueError, r"layers\[0\]: a transposed"),
        ([{"stride": 2}], ValueError, r"layers\[0\]: has no kernel_size"),
        ([{"kernel": 2}], ValueError, r"layers\[0\]: 'kernel' is not one of"),
        ([(3, 1, 1, 1, 1)], ValueError, r"layers\[0\]: .*must be"),
        ([((3, 3),), ((3, 3, 3),)], ValueError, "same number of axes, got 2 and 3"),
        ([(3, 1, ((1, 1, 1), (1, 1)))], ValueError, "a pair"),
    ],
)
def test_mistakes(layers, error, message):
    with pytest.raises(error, match=message):
        receptive_field(layers)


def test_region_wants_an_index_for_each_axis():
    with pytest.raises(ValueError, match="2 axes"):
        cpuconv.receptive_field([(3,)]).region(1)
