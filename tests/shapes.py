"""The problems that tests and benchmarks share, as specs (f32, nchw; `both_layouts` and `with_dtype` make the others)."""

from dataclasses import replace

from cpuconv import Problem

POINTWISE = """
n1_ic1_ih1_iw1_oc1_kh1_kw1_s1_p0_d1_g1
n2_ic3_ih5_iw7_oc5_kh1_kw1_s1_p0_d1_g1
n1_ic16_ih14_iw14_oc32_kh1_kw1_s1_p0_d1_g1
n1_ic64_ih7_iw7_oc65_kh1_kw1_s1_p0_d1_g1
n1_ic130_ih6_iw6_oc17_kh1_kw1_s1_p0_d1_g1
n1_ic900_ih3_iw5_oc24_kh1_kw1_s1_p0_d1_g1
n1_ic8_ih1_iw1_oc200_kh1_kw1_s1_p0_d1_g1
n1_ic5_ih3_iw301_oc7_kh1_kw1_s1_p0_d1_g1
n1_ic24_ih13_iw13_oc40_kh1_kw1_s2_p0_d1_g1
n1_ic4_ih5_iw5_oc6_kh1_kw1_s1_p2_d1_g1
n1_ic4_ih9_iw11_oc6_kh1_kw1_s3x4_p1_d1_g1
n2_ic12_ih6_iw32_oc18_kh1_kw1_s1_p0_d1_g3
n2_ic32_ih5_iw21_oc1_kh1_kw1_s1_p0_d1_g1
n1_ic32_ih1_iw1_oc33_kh1_kw1_s1_p0_d1_g1
n2_ic48_ih2_iw2_oc20_kh1_kw1_s1_p0_d1_g1
n1_ic400_ih13_iw13_oc24_kh1_kw1_s2_p0_d1_g1
"""

THREE_BY_THREE = """
n1_ic1_ih1_iw1_oc1_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih2_iw2_oc4_kh3_kw3_s1_p1_d1_g1
n1_ic4_ih3_iw3_oc4_kh3_kw3_s1_p0_d1_g1
n1_ic8_ih4_iw4_oc8_kh3_kw3_s1_p1_d1_g1
n1_ic16_ih5_iw5_oc16_kh3_kw3_s1_p1_d1_g1
n2_ic17_ih6_iw6_oc15_kh3_kw3_s1_p1_d1_g1
n3_ic32_ih7_iw7_oc33_kh3_kw3_s1_p1_d1_g1
n1_ic31_ih8_iw18_oc64_kh3_kw3_s1_p0_d1_g1
n1_ic7_ih9_iw13_oc9_kh3_kw3_s1_p1_d1_g1
n1_ic65_ih12_iw12_oc66_kh3_kw3_s1_p1_d1_g1
n5_ic16_ih14_iw14_oc48_kh3_kw3_s1_p1_d1_g1
n1_ic20_ih17_iw23_oc12_kh3_kw3_s1_p2_d1_g1
n1_ic9_ih28_iw28_oc16_kh3_kw3_s1_p1_d1_g1
n1_ic4_ih61_iw67_oc8_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih1_iw70_oc5_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih70_iw1_oc5_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih12_iw48_oc17_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih3_iw200_oc5_kh3_kw3_s1_p0_d1_g1
n1_ic6_ih10_iw11_oc7_kh3_kw3_s1_p0x1x2x3_d1_g1
n1_ic6_ih5_iw6_oc7_kh3_kw3_s1_p3_d1_g1
n1_ic2_ih3_iw4_oc3_kh3_kw3_s1_p5x4_d1_g1
n1_ic100_ih6_iw6_oc20_kh3_kw3_s1_p1_d1_g1
n1_ic370_ih4_iw4_oc9_kh3_kw3_s1_p1_d1_g1
n1_ic730_ih3_iw3_oc5_kh3_kw3_s1_p1_d1_g1
n1_ic12_ih9_iw9_oc16_kh3_kw3_s1_p1_d1_g4
n1_ic15_ih8_iw10_oc9_kh3_kw3_s1_p1_d1_g3
n1_ic64_ih8_iw8_oc32_kh3_kw3_s1_p1_d1_g2
n1_ic16_ih9_iw23_oc2_kh3_kw3_s1_p1_d1_g1
n1_ic64_ih11_iw9_oc2_kh3_kw3_s2_p1_d1_g2
"""

STRIDED_AND_DILATED = """
n1_ic3_ih15_iw15_oc8_kh3_kw3_s2_p1_d1_g1
n2_ic16_ih14_iw14_oc20_kh3_kw3_s2_p1_d1_g1
n1_ic5_ih11_iw12_oc6_kh3_kw3_s2x1_p1_d1_g1
n1_ic5_ih11_iw12_oc6_kh3_kw3_s1x3_p1_d1_g1
n1_ic3_ih17_iw19_oc4_kh3_kw3_s5_p1_d1_g1
n1_ic3_ih17_iw19_oc4_kh2_kw2_s7x6_p0_d1_g1
n1_ic3_ih32_iw33_oc16_kh7_kw7_s2_p3_d1_g1
n1_ic3_ih21_iw37_oc20_kh4_kw4_s4_p0_d1_g1
n1_ic1_ih9_iw96_oc7_kh5_kw5_s2_p2_d1_g1
n1_ic8_ih12_iw12_oc8_kh3_kw3_s1_p2_d2_g1
n1_ic8_ih13_iw9_oc10_kh3_kw3_s1_p3x2_d3x2_g1
n1_ic4_ih14_iw14_oc6_kh3_kw3_s1_p12_d12_g1
n1_ic4_ih10_iw10_oc6_kh3_kw3_s1_p24_d24_g1
n1_ic4_ih16_iw16_oc6_kh3_kw3_s2_p2_d2_g1
n1_ic4_ih21_iw22_oc6_kh3_kw2_s2x3_p2x1x0x3_d2x3_g2
"""

OTHER_KERNELS = """
n1_ic6_ih12_iw12_oc10_kh5_kw5_s1_p2_d1_g1
n2_ic16_ih9_iw9_oc16_kh5_kw5_s1_p2_d1_g1
n1_ic4_ih9_iw9_oc4_kh4_kw4_s1_p1_d1_g1
n1_ic3_ih9_iw9_oc4_kh2_kw2_s1_p1_d1_g1
n1_ic8_ih7_iw7_oc24_kh7_kw7_s1_p3_d1_g1
n1_ic8_ih7_iw7_oc24_kh7_kw7_s1_p0_d1_g1
n1_ic5_ih1_iw40_oc7_kh1_kw3_s1_p0x1_d1_g1
n1_ic16_ih6_iw20_oc16_kh1_kw7_s1_p0x3_d1_g1
n1_ic16_ih20_iw6_oc16_kh7_kw1_s1_p3x0_d1_g1
n1_ic5_ih8_iw30_oc7_kh1_kw5_s1x2_p0x2_d1_g1
n1_ic5_ih30_iw3_oc7_kh3_kw1_s1_p1x0_d1_g1
n1_ic2_ih4_iw600_oc3_kh2_kw31_s1_p0_d1_g1
n0_ic4_ih6_iw6_oc5_kh3_kw3_s1_p1_d1_g1
n0_ic4_ih6_iw6_oc4_kh3_kw3_s1_p1_d1_g4
n0_ic4_ih6_iw6_oc5_kh1_kw1_s1_p0_d1_g1
"""

GROUPED = """
n1_ic1_ih8_iw8_oc5_kh3_kw3_s1_p1_d1_g1
n2_ic32_ih9_iw9_oc32_kh3_kw3_s1_p1_d1_g32
n1_ic33_ih7_iw7_oc33_kh3_kw3_s1_p1_d1_g33
n1_ic5_ih14_iw15_oc5_kh3_kw3_s2_p1_d1_g5
n1_ic6_ih9_iw10_oc12_kh3_kw3_s1_p1_d1_g6
n1_ic17_ih10_iw10_oc34_kh3_kw3_s2_p1_d1_g17
n1_ic19_ih12_iw13_oc19_kh5_kw5_s1_p2_d1_g19
n1_ic8_ih20_iw20_oc8_kh7_kw7_s1_p3_d1_g8
n1_ic16_ih11_iw12_oc16_kh3_kw3_s1_p2_d2_g16
n1_ic3_ih2_iw60_oc3_kh3_kw3_s1_p1_d1_g3
n1_ic3_ih1_iw1_oc3_kh3_kw3_s1_p1_d1_g3
n1_ic70_ih6_iw5_oc70_kh3_kw3_s1_p0_d1_g70
n2_ic5_ih16_iw16_oc5_kh3_kw3_s2_p1_d1_g5
n1_ic9_ih5_iw4_oc9_kh3_kw3_s1_p1_d1_g9
n3_ic2_ih3_iw3_oc2_kh3_kw3_s1_p1x2x2x1_d1_g2
n1_ic16_ih9_iw9_oc16_kh1_kw5_s1_p0x2_d1_g16
n1_ic7_ih9_iw9_oc7_kh1_kw1_s1_p0_d1_g7
n1_ic4_ih9_iw10_oc4_kh3_kw3_s1x3_p0x4x5x1_d3x1_g4
n1_ic18_ih8_iw8_oc12_kh3_kw3_s2_p1_d1_g6
n1_ic35_ih5_iw6_oc25_kh2_kw3_s1_p1_d1_g5
n1_ic32_ih9_iw11_oc32_kh3_kw3_s1_p1_d1_g8
n2_ic32_ih10_iw9_oc32_kh3_kw3_s2_p1_d1_g4
n1_ic40_ih7_iw7_oc40_kh3_kw3_s1_p1_d1_g5
n1_ic72_ih6_iw6_oc72_kh3_kw3_s1_p1_d1_g3
n1_ic32_ih5_iw6_oc32_kh1_kw1_s1_p0_d1_g4
n1_ic18_ih8_iw9_oc36_kh3_kw3_s1_p1_d1_g9
n1_ic20_ih9_iw9_oc40_kh3_kw3_s1_p1_d1_g20
n1_ic32_ih12_iw17_oc32_kh5_kw3_s1x2_p2x1_d2x1_g8
"""

PICTURES = """
n1_ic1_ih20_iw64_oc1_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih9_iw64_oc1_kh3_kw3_s1_p1_d1_g1
n2_ic3_ih18_iw53_oc3_kh5_kw5_s1_p2_d1_g3
n1_ic4_ih9_iw70_oc4_kh3_kw3_s1_p1_d1_g2
n1_ic3_ih19_iw101_oc2_kh3_kw3_s2_p1_d1_g1
n1_ic1_ih6_iw48_oc1_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih13_iw77_oc1_kh3_kw3_s1_p0_d1_g1
n2_ic2_ih20_iw90_oc2_kh5_kw5_s1_p2_d1_g2
n1_ic2_ih23_iw60_oc1_kh9_kw4_s1_p4x1_d1_g1
n1_ic3_ih14_iw130_oc3_kh7_kw3_s1x2_p3x1_d1_g3
n1_ic40_ih11_iw55_oc1_kh3_kw3_s1_p1_d1x3_g1
n1_ic2_ih6_iw5_oc1_kh3_kw3_s1_p1x30_d1_g1
n1_ic12_ih9_iw50_oc12_kh6_kw3_s1_p2x1_d1_g12
"""

LAYERS = """
n1_ic3_ih224_iw224_oc64_kh7_kw7_s2_p3_d1_g1
n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1
n1_ic128_ih28_iw28_oc128_kh3_kw3_s1_p1_d1_g1
n1_ic256_ih14_iw14_oc256_kh3_kw3_s1_p1_d1_g1
n1_ic512_ih7_iw7_oc512_kh3_kw3_s1_p1_d1_g1
n1_ic256_ih56_iw56_oc128_kh3_kw3_s2_p1_d1_g1
n1_ic64_ih56_iw56_oc256_kh1_kw1_s1_p0_d1_g1
n1_ic1024_ih14_iw14_oc256_kh1_kw1_s1_p0_d1_g1
n1_ic2048_ih7_iw7_oc512_kh1_kw1_s1_p0_d1_g1
n1_ic64_ih224_iw224_oc64_kh3_kw3_s1_p1_d1_g1
n1_ic32_ih112_iw112_oc32_kh3_kw3_s1_p1_d1_g32
n1_ic144_ih56_iw56_oc144_kh3_kw3_s2_p1_d1_g144
n1_ic192_ih28_iw28_oc64_kh1_kw1_s1_p0_d1_g1
n1_ic512_ih28_iw28_oc256_kh3_kw3_s1_p12_d12_g1
"""
"""Layers of real networks: for what is read off estimates, and for benchmarks; too large for the contract tests."""


def _problems(*texts: str) -> list[Problem]:
    return [Problem.parse(f"{line}_f32_{'ncdhw' if '_kd' in line else 'nchw'}") for text in texts for line in text.split()]


def other_images(problem: Problem) -> list[Problem]:
    """The problem on images of other sizes, such as give one row or column of outputs."""
    (sh, sw), (dh, dw), (top, bottom, left, right) = problem.stride, problem.dilation, problem.padding
    least = (problem.kh - 1) * dh + 1 - top - bottom, (problem.kw - 1) * dw + 1 - left - right
    sizes = (1, 1), (1, 6), (7, 1), (2, 2), (5, 5), (19, 23)
    return [replace(problem, n=1, ih=max(1, least[0] + (h - 1) * sh), iw=max(1, least[1] + (w - 1) * sw)) for h, w in sizes]


def both_layouts(problems: list[Problem]) -> list[Problem]:
    return [replace(p, layout=layout) for p in problems for layout in ("nchw", "nhwc")]


def with_dtype(problems: list[Problem], *dtypes: str) -> list[Problem]:
    return [replace(p, dtype=dtype) for p in problems for dtype in dtypes]


PROBLEMS = _problems(POINTWISE, THREE_BY_THREE, STRIDED_AND_DILATED, OTHER_KERNELS, GROUPED, PICTURES)
FEW = _problems("""
n2_ic17_ih6_iw6_oc15_kh3_kw3_s1_p1_d1_g1
n1_ic20_ih17_iw23_oc12_kh3_kw3_s1_p2_d1_g1
n1_ic12_ih9_iw9_oc16_kh3_kw3_s1_p1_d1_g4
n2_ic3_ih5_iw7_oc5_kh1_kw1_s1_p0_d1_g1
n1_ic3_ih32_iw33_oc16_kh7_kw7_s2_p3_d1_g1
n1_ic4_ih14_iw14_oc6_kh3_kw3_s1_p12_d12_g1
n2_ic32_ih9_iw9_oc32_kh3_kw3_s1_p1_d1_g32
n1_ic6_ih9_iw10_oc12_kh3_kw3_s1_p1_d1_g6
n1_ic32_ih9_iw11_oc32_kh3_kw3_s1_p1_d1_g8
""")
"""One of each kind, for tests that vary something else."""
LAYER_PROBLEMS = _problems(LAYERS)

THREE_D = """
n1_ic3_id4_ih5_iw6_oc4_kd3_kh3_kw3_s1_p1_d1_g1
n2_ic5_id6_ih7_iw8_oc7_kd3_kh3_kw3_s1_p1_d1_g1
n1_ic4_id7_ih8_iw9_oc6_kd2_kh3_kw1_s2x1x3_p1x0x0_d1_g1
n2_ic6_id9_ih9_iw7_oc4_kd3_kh2_kw3_s3x2x1_p2x1x0x0x1x2_d2x1x1_g2
n1_ic3_id5_ih4_iw4_oc3_kd3_kh3_kw3_s1_p1_d1_g3
n1_ic8_id3_ih6_iw6_oc9_kd1_kh1_kw1_s1_p0_d1_g1
n1_ic2_id1_ih3_iw3_oc2_kd3_kh1_kw1_s1_p4x0x0_d3_g1
n0_ic2_id3_ih3_iw3_oc2_kd3_kh3_kw3_s1_p1_d1_g1
"""

# The forward convolution of a transposed one or an input's gradient: strides with fewer and more taps than the stride has phases, outputs out
# of all reach, dilation that shares a factor with the stride or does not, cropping and padding past the image.
BACKWARD = """
n2_ic5_ih8_iw9_oc6_kh3_kw3_s1_p1_d1_g1
n1_ic16_ih14_iw14_oc24_kh3_kw3_s1_p0_d1_g1
n1_ic4_ih8_iw8_oc6_kh2_kw2_s2_p0_d1_g1
n2_ic5_ih9_iw10_oc7_kh2_kw2_s2_p0_d1_g1
n2_ic3_ih16_iw12_oc5_kh4_kw4_s2_p1_d1_g1
n1_ic1_ih13_iw14_oc6_kh9_kw9_s3_p4_d1_g1
n1_ic3_ih21_iw20_oc4_kh7_kw5_s4x3_p3x2_d1_g1
n1_ic4_ih11_iw12_oc6_kh1_kw1_s2x3_p0_d1_g1
n1_ic4_ih12_iw13_oc6_kh2_kw3_s5x4_p1x0x0x2_d1_g1
n1_ic4_ih16_iw15_oc6_kh3_kw3_s2_p2_d2_g1
n1_ic4_ih16_iw17_oc6_kh3_kw4_s2x4_p3x1_d3x2_g1
n1_ic4_ih5_iw6_oc6_kh3_kw3_s1_p4_d1_g1
n2_ic12_ih9_iw9_oc16_kh3_kw3_s2_p1_d1_g4
n1_ic8_ih9_iw10_oc8_kh3_kw3_s2_p1_d1_g8
n1_ic6_ih1_iw21_oc5_kh1_kw5_s1x2_p0x2_d1_g1
n0_ic4_ih6_iw6_oc5_kh3_kw3_s2_p1_d1_g1
"""
FORMS = [
    *(replace(p, pass_=pass_) for p in _problems(BACKWARD) for pass_ in ("input", "weight")),
    *(replace(p, pass_=pass_) for p in _problems(THREE_D) for pass_ in ("forward", "input", "weight")),
    Problem.parse("n1_ic4_ih9_iw12_oc6_kh3_kw3_s2_p0x-1x1x-3_d1_g1_f32_nchw_input"),
]
"""What is not a forward convolution in two dimensions."""
LONG_SUMS = _problems("""
n3_ic5_ih40_iw37_oc9_kh3_kw3_s1_p1_d1_g1
n1_ic2_ih3_iw700_oc3_kh3_kw5_s1_p1x2_d1_g1
n40_ic18_ih5_iw5_oc20_kh3_kw3_s2_p1_d1_g1
n2_ic150_ih8_iw9_oc270_kh1_kw1_s1_p0_d1_g1
n2_ic3_ih61_iw50_oc70_kh7_kw7_s2_p3_d1_g1
n3_ic33_ih20_iw21_oc33_kh3_kw3_s1_p1_d1_g33
""")
"""Problems whose weight gradient is summed in pieces: of some rows, of parts of a row, in chunks that are added up."""
