"""Runs of outputs that share their taps, against a definition that takes them one by one."""

import itertools
import random

import pytest

from cpuconv import Problem
from cpuconv.algorithms import taps


def inside(o: int, stride: int, pad: int, dilation: int, count: int, size: int) -> list[int]:
    return [t for t in range(count) if 0 <= o * stride - pad + t * dilation < size]


@pytest.mark.parametrize("seed", range(8))
def test_runs_are_the_longest_whose_outputs_share_their_taps(seed):
    draw = random.Random(seed)
    for _ in range(500):
        out, stride, pad, dilation, count, size = (draw.randint(*r) for r in ((1, 40), (1, 4), (0, 12), (1, 9), (1, 7), (1, 60)))
        runs = taps.runs(out, stride, pad, dilation, count, size)
        assert [o for run in runs for o in range(run.first, run.end)] == list(range(out))
        for run in runs:
            for o in range(run.first, run.end):
                assert inside(o, stride, pad, dilation, count, size) == list(range(run.first_tap, run.end_tap))
        assert all(a[2:] != b[2:] for a, b in itertools.pairwise(runs))


@pytest.mark.parametrize(
    "spec",
    ["n1_ic1_ih9_iw11_oc1_kh3_kw5_s2_p2_d1_g1", "n1_ic1_ih28_iw28_oc1_kh3_kw3_s1_p36_d36_g1", "n1_ic1_ih5_iw6_oc1_kh2_kw2_s1_p0_d1_g1"],
)
def test_shares(spec):
    p = Problem.parse(spec + "_f32_nchw")
    top, _, left, _ = p.padding
    rows = [inside(o, p.stride[0], top, p.dilation[0], p.kh, p.ih) for o in range(p.oh)]
    columns = [inside(o, p.stride[1], left, p.dilation[1], p.kw, p.iw) for o in range(p.ow)]
    pairs = [(y, x) for row in rows for column in columns for y in row for x in column]
    assert taps.valid_share(p) == pytest.approx(len(pairs) / (p.oh * p.ow * p.kh * p.kw))
    assert taps.read_share(p) == pytest.approx(len(set(pairs)) / (p.kh * p.kw))
