"""Cook-Toom interpolation: the weight transform G of F(m,r) for the points +-p, ..., infinity and, if m + r - 1 is even, 0.

Toom-Cook in the form of Winograd, "Arithmetic Complexity of Computations", 1980, ch. IV; Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2016. With points a_i and N_i the product of (a_i - a_j) over the other finite points, row i of G
is (a_i^0, ..., a_i^(r-1)) / N_i and its last row (0, ..., 0, 1). The input and output transforms (B^T, A^T) that belong to it
are in the C code, which is given the points.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

from cpuconv.plan import Array

Points = tuple[Fraction, ...]

POINTS: dict[int, Points] = {
    1: (),
    4: (Fraction(1),),
    6: (Fraction(3, 4), Fraction(3, 2)),
    7: (Fraction(5, 16), Fraction(7, 8), Fraction(13, 8)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}
"""Positive points by tile size n = m + r - 1, chosen for accuracy: with 3/4 and 3/2 F(4,3) errs a quarter as much as with 1 and 2."""


@functools.cache
def weight_transform(n: int, r: int) -> Array:
    """G, of shape (n, r), in float64; the identity for n = r = 1."""
    if n == 1:
        return np.ones((1, 1))
    finite = [Fraction(0)] * (n % 2 == 0) + [s * p for p in POINTS[n] for s in (1, -1)]
    rows = []
    for i, a in enumerate(finite):
        scale = math.prod((a - b for j, b in enumerate(finite) if j != i), start=Fraction(1))
        rows.append([float(a**j / scale) for j in range(r)])
    return np.array([*rows, [0.0] * (r - 1) + [1.0]])
