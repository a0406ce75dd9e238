"""The tasks of direct convolution, as C callbacks `int task(const Context *, intp index)` for the native pool.

Each task computes a block of outputs tile by tile: a tile is summed in registers, then bias and residual are added on its way
to y, where the activation is applied while it is in L1. An element's sum is formed alike wherever its tile begins, so results
depend neither on the number of threads nor on the batch.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, njit, types
from numba.core.caching import FunctionCache

from cpuconv._jit.vectors import CHANNELS, DEPTHWISE, PIXELS, activate, arena, copy, finish, move, multiply, peek, poke, stack, zero

CONTEXT = np.dtype(
    [(name, np.int64) for name in (
        "x", "weight", "bias", "residual", "y", "split", "activation", "arena",
        "n", "ic", "ih", "iw", "oc", "kh", "kw", "sh", "sw", "pt", "pl", "dh", "dw", "groups", "oh", "ow",
        "blocks", "count", "scratch", "rows", "columns", "pitch", "plane", "flat",
    )] + [("a", np.float64), ("b", np.float64)]
)  # fmt: skip
"""What differs from call to call: the arrays' addresses and `split`, the parts of the output channels. Addresses of functions.
The geometry. The blocking: blocks: address of PIXELS' blocks; count: blocks or bands of an image;
scratch: bytes of a task; rows: output rows of a band; columns: row pitch of the padded input, in elements;
pitch: rows of a (phase of a) padded plane; plane: bytes of a channel; flat: a tile may go on in the next row."""

BLOCK_FIELDS = 9
SEGMENT = 24  # bytes
FAILED, NO_MEMORY = 1, 2
"""What a task returns: an activation that raised, no scratch."""

TASK = types.int32(types.CPointer(numba.from_dtype(CONTEXT)), types.intp)


def compile_callback(signature: Any, function: Any, *parameters: int, cached: bool = True) -> Any:
    """A C callback, from Numba's disk cache if that works: one that is damaged, full or out of reach costs a compilation and no more.

    `parameters` tell functions of one name apart: Numba's files for each name are safe against several processes at once only while they hold
    one entry.
    """
    function.__qualname__ = "_".join([function.__qualname__, *map(str, parameters)])
    if cached:
        try:
            return cfunc(signature, cache=True, error_model="numpy")(function)
        except Exception:  # an error of the compiler comes again below
            with suppress(Exception):
                FunctionCache(function).flush()  # what cannot be read now could not be read later
    return cfunc(signature, error_model="numpy")(function)


@njit(error_model="numpy")
def part(total, parts, i):
    """Where part i begins when [0, total) is divided as evenly as can be."""
    return total // parts * i + min(i, total % parts)


@njit(error_model="numpy")
def first_tap(o, stride, pad, dilation, taps):
    """First tap of output o that does not fall before the image."""
    return min(taps, max(0, (pad - o * stride + dilation - 1) // dilation))


@njit(error_model="numpy")
def last_tap(o, stride, pad, dilation, taps, size):
    """One past the last tap of output o that does not fall behind the image."""
    return min(taps, max(0, (size - 1 - o * stride + pad + dilation) // dilation))


@functools.cache
def pixels(size: int, vl: int, mr: int, nv: int) -> Any:
    """NHWC: rows of a tile are pixels, read in place; taps that fall on padding are skipped, as a block's pixels share theirs."""
    nr = nv * vl
    tile_bytes, table_bytes = mr * nr * size, 8 * mr

    def task(context, index):
        c = carray(context, 1)[0]
        icg, ocg = c.ic // c.groups, c.oc // c.groups
        k, panels = c.kh * c.kw * icg, (ocg + nr - 1) // nr
        block = c.blocks + index % c.count * 8 * BLOCK_FIELDS
        which = index // c.count % c.split
        group = index // (c.count * c.split) % c.groups
        image = index // (c.count * c.split * c.groups)
        oy0, ox0, ox1, p0, p1 = peek(block), peek(block + 8), peek(block + 16), peek(block + 24), peek(block + 32)
        ky0, ky1, kx0, kx1 = peek(block + 40), peek(block + 48), peek(block + 56), peek(block + 64)

        segments = arena(c.arena, c.scratch)
        if segments == 0:
            return NO_MEMORY
        count = 0
        for ky in range(ky0, ky1):
            for kx in range(kx0, kx1):
                at = segments + count * SEGMENT
                if kx > kx0 and c.dw == 1 and c.groups == 1:  # contiguous with the tap before
                    poke(at - 8, peek(at - 8) + icg)
                else:
                    poke(at, (ky * c.dh * c.iw + kx * c.dw) * c.ic * size)
                    poke(at + 8, (ky * c.kw + kx) * icg * nr * size)
                    poke(at + 16, icg)
                    count += 1

        tile, rows, outputs = stack(tile_bytes), stack(table_bytes), stack(table_bytes)
        x = c.x + ((image * c.ih - c.pt) * c.iw - c.pl) * c.ic * size + group * icg * size
        for panel in range(part(panels, c.split, which), part(panels, c.split, which + 1)):
            index = group * panels + panel
            weight, bias = c.weight + index * k * nr * size, c.bias + index * nr * size
            lanes = min(nr, ocg - panel * nr)
            start = (image * c.oh * c.ow * c.oc + group * ocg + panel * nr) * size
            oy, ox = oy0 + p0 // (ox1 - ox0), ox0 + p0 % (ox1 - ox0)
            for p in range(p0, p1, mr):
                height = min(mr, p1 - p)
                for i in range(height):
                    poke(rows + 8 * i, x + (oy * c.sh * c.iw + ox * c.sw) * c.ic * size)
                    poke(outputs + 8 * i, start + (oy * c.ow + ox) * c.oc * size)
                    ox += 1
                    if ox == ox1:
                        ox = ox0
                        oy += 1
                for i in range(height, mr):
                    poke(rows + 8 * i, peek(rows))
                if height <= 2:
                    multiply(PIXELS, size, vl, 2, nv, segments, count, rows, weight, nr * size, tile)
                else:
                    multiply(PIXELS, size, vl, mr, nv, segments, count, rows, weight, nr * size, tile)
                for i in range(height):
                    at = peek(outputs + 8 * i)
                    residual = c.residual + at if c.residual else 0
                    finish(PIXELS, size, vl, tile + i * nr * size, bias, residual, c.y + at, lanes)
                    if c.activation and not activate(c.activation, c.y + at, lanes, c.a, c.b):
                        return FAILED
        return 0

    return compile_callback(TASK, task, size, vl, mr, nv)


@functools.cache
def channels(size: int, vl: int, mr: int, nv: int) -> Any:
    """NCHW: rows of a tile are output channels, its columns pixels.

    The input of a band is copied into planes with zeros around, one for each phase of the stride, so that a tap is a plane
    shifted and pixels are neighbours at any stride. Where few elements are padding, tiles run on from row to row.
    """
    nr = nv * vl
    tile_bytes = mr * nr * size

    def task(context, index):
        c = carray(context, 1)[0]
        icg, ocg = c.ic // c.groups, c.oc // c.groups
        k, panels = c.kh * c.kw * icg, (ocg + mr - 1) // mr
        which = index % c.split
        band = index // c.split % c.count
        group = index // (c.split * c.count) % c.groups
        image = index // (c.split * c.count * c.groups)
        phases_y, phases_x = min(c.sh, (c.kh - 1) * c.dh + 1), min(c.sw, (c.kw - 1) * c.dw + 1)
        oy0 = band * c.rows
        height = min(c.rows, c.oh - oy0)

        segments = arena(c.arena, c.scratch)
        if segments == 0:
            return NO_MEMORY
        planes = segments + (c.kh * c.kw * SEGMENT + 63) // 64 * 64
        for tap in range(c.kh * c.kw):
            y, x = tap // c.kw * c.dh, tap % c.kw * c.dw
            poke(segments + tap * SEGMENT, tap * icg * mr * size)
            poke(segments + tap * SEGMENT + 8, (((y % c.sh * phases_x + x % c.sw) * c.pitch + y // c.sh) * c.columns + x // c.sw) * size)
            poke(segments + tap * SEGMENT + 16, icg)
        for channel in range(icg):
            source = c.x + ((image * c.groups + group) * icg + channel) * c.ih * c.iw * size
            to = planes + channel * c.plane
            for phase in range(phases_y * phases_x):
                x0 = phase % phases_x - c.pl
                j0 = min(c.columns, max(0, (c.sw - 1 - x0) // c.sw))
                j1 = max(j0, min(c.columns, (c.sw - 1 + c.iw - x0) // c.sw))
                for row in range(c.pitch):
                    iy = (oy0 + row) * c.sh + phase // phases_x - c.pt
                    if iy < 0 or iy >= c.ih:
                        zero(size, vl, to, c.columns)
                    else:
                        zero(size, vl, to, j0)
                        at = source + (iy * c.iw + j0 * c.sw + x0) * size
                        if c.sw == 1:
                            copy(size, vl, to + j0 * size, at, j1 - j0)
                        else:
                            for j in range(j1 - j0):
                                move(size, to + (j0 + j) * size, at + j * c.sw * size)
                        zero(size, vl, to + j1 * size, c.columns - j1)
                    to += c.columns * size

        tile = stack(tile_bytes)
        lines, length = (1, (height - 1) * c.columns + c.ow) if c.flat else (height, c.ow)
        for line in range(lines):
            for line_x in range(0, length, nr):
                first = line * c.columns + line_x
                last = line * c.columns + min(length, line_x + nr)
                first_y, first_x = first // c.columns, first % c.columns
                ky0 = first_tap(oy0 + (last - 1) // c.columns, c.sh, c.pt, c.dh, c.kh)
                ky1 = max(ky0, last_tap(oy0 + first_y, c.sh, c.pt, c.dh, c.kh, c.ih))
                taps, count = segments + ky0 * c.kw * SEGMENT, (ky1 - ky0) * c.kw
                for panel in range(part(panels, c.split, which), part(panels, c.split, which + 1)):
                    weight = c.weight + (group * panels + panel) * mr * k * size
                    multiply(CHANNELS, size, vl, mr, nv, taps, count, weight, planes + first * size, c.plane, tile)
                    o0 = group * ocg + panel * mr
                    for i in range(min(mr, ocg - panel * mr)):
                        plane = ((image * c.oc + o0 + i) * c.oh + oy0) * c.ow
                        p, y, x = first, first_y, first_x
                        while p < last:
                            run = min(c.ow - x, last - p)
                            if run > 0:
                                at = (plane + y * c.ow + x) * size
                                residual = c.residual + at if c.residual else 0
                                values = tile + (i * nr + p - first) * size
                                finish(CHANNELS, size, vl, values, c.bias + (o0 + i) * size, residual, c.y + at, run)
                                if c.activation and not activate(c.activation, c.y + at, run, c.a, c.b):
                                    return FAILED
                            p, y, x = p + c.columns - x, y + 1, 0
        return 0

    return compile_callback(TASK, task, size, vl, mr, nv)


@functools.cache
def depthwise(size: int, vl: int, mr: int, nv: int) -> Any:
    """NHWC with one input channel a group: rows of a tile are pixels, its columns channels of as many groups.

    The input of a band is copied with zeros around, a channel as often as it has output channels.
    """
    nr = nv * vl
    tile_bytes, table_bytes = mr * nr * size, 8 * mr

    def task(context, index):
        c = carray(context, 1)[0]
        times = c.oc // c.ic
        panels = (c.oc + nr - 1) // nr
        panel = index % panels
        band = index // panels % c.count
        image = index // (panels * c.count)
        oy0 = band * c.rows
        height = min(c.rows, c.oh - oy0)
        lanes = min(nr, c.oc - panel * nr)
        pixel = nr * size

        segments = arena(c.arena, c.scratch)
        if segments == 0:
            return NO_MEMORY
        padded = segments + (c.kh * c.kw * SEGMENT + 63) // 64 * 64
        for tap in range(c.kh * c.kw):
            poke(segments + tap * SEGMENT, (tap // c.kw * c.dh * c.columns + tap % c.kw * c.dw) * pixel)
            poke(segments + tap * SEGMENT + 8, tap * pixel)
            poke(segments + tap * SEGMENT + 16, 1)
        to = padded
        j0 = min(c.columns, c.pl)
        j1 = max(j0, min(c.columns, c.iw + c.pl))
        for row in range((height - 1) * c.sh + (c.kh - 1) * c.dh + 1):
            iy = oy0 * c.sh + row - c.pt
            if iy < 0 or iy >= c.ih:
                zero(size, vl, to, c.columns * nr)
            else:
                zero(size, vl, to, j0 * nr)
                at = c.x + ((image * c.ih + iy) * c.iw + j0 - c.pl) * c.ic * size
                for j in range(j0, j1):
                    if times == 1:
                        copy(size, vl, to + j * pixel, at + panel * pixel, lanes)
                    else:
                        for lane in range(lanes):
                            move(size, to + j * pixel + lane * size, at + (panel * nr + lane) // times * size)
                    at += c.ic * size
                zero(size, vl, to + j1 * pixel, (c.columns - j1) * nr)
            to += c.columns * pixel

        tile, rows = stack(tile_bytes), stack(table_bytes)
        weight, bias = c.weight + panel * c.kh * c.kw * pixel, c.bias + panel * pixel
        for p in range(0, height * c.ow, mr):
            valid = min(mr, height * c.ow - p)
            for i in range(mr):
                y, x = (p + min(i, valid - 1)) // c.ow, (p + min(i, valid - 1)) % c.ow
                poke(rows + 8 * i, padded + (y * c.sh * c.columns + x * c.sw) * pixel)
            multiply(DEPTHWISE, size, vl, mr, nv, segments, c.kh * c.kw, rows, weight, pixel, tile)
            for i in range(valid):
                at = (((image * c.oh + oy0) * c.ow + p + i) * c.oc + panel * nr) * size
                residual = c.residual + at if c.residual else 0
                finish(DEPTHWISE, size, vl, tile + i * pixel, bias, residual, c.y + at, lanes)
                if c.activation and not activate(c.activation, c.y + at, lanes, c.a, c.b):
                    return FAILED
        return 0

    return compile_callback(TASK, task, size, vl, mr, nv)


KERNELS = {"pixels": pixels, "channels": channels, "depthwise": depthwise}
