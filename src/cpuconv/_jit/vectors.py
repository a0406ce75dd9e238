"""What Numba has no word for: vectors, stack memory, addresses and calls through them, as LLVM IR.

Addresses are integers (intp), sizes and offsets in bytes unless said otherwise. `size` is the element's: 4 is float32, 8 is
float64. The intrinsics are at module level and take what the code is specialised on as literal integers, as one that is made
inside a function would keep its callers out of Numba's disk cache. That cache looks at the file of the caller only: after a
change here, touch `direct.py`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
INT = types.intp

PIXELS, CHANNELS, DEPTHWISE = 0, 1, 2
"""Forms of `multiply`: what its rows are, and that both factors are vectors in the last."""


def _element(size: int) -> Any:
    return {4: ir.FloatType(), 8: ir.DoubleType()}[size]


def _load(builder: Any, kind: Any, address: Any, align: int) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def _store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = align


def _splat(builder: Any, scalar: Any, vl: int) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, vl), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vl), [0] * vl))


def _tail(builder: Any, count: Any, vl: int) -> tuple[Any, Any, Any]:
    """How many of `count` elements make whole vectors, whether some are left, and the mask of these."""
    whole = builder.and_(count, I64(-vl))
    left = builder.sub(count, whole)
    lanes = ir.Constant(ir.VectorType(I64, vl), list(range(vl)))
    return whole, builder.icmp_signed(">", left, I64(0)), builder.icmp_signed("<", lanes, _splat(builder, left, vl))


def _masked(builder: Any, operation: str, vector: Any, size: int, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.masked.{operation}.v{vector.count}f{8 * size}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _masked_load(builder: Any, vector: Any, address: Any, size: int, mask: Any) -> Any:
    pointer, zeros = builder.inttoptr(address, vector.as_pointer()), ir.Constant(vector, [0.0] * vector.count)
    return _masked(builder, "load", vector, size, vector, [pointer, I32(size), mask, zeros])


def _masked_store(builder: Any, value: Any, address: Any, size: int, mask: Any) -> None:
    pointer = builder.inttoptr(address, value.type.as_pointer())
    _masked(builder, "store", value.type, size, ir.VoidType(), [value, pointer, I32(size), mask])


@intrinsic(prefer_literal=True)
def stack(typing, size):
    """Address of so many bytes, 64-byte aligned, that live until the function returns."""
    array = ir.ArrayType(I8, size.literal_value)

    def codegen(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, array)
        memory.align = 64
        return builder.ptrtoint(memory, I64)

    return INT(size), codegen


@intrinsic
def peek(typing, address):
    """The integer at an address."""
    return INT(INT), lambda context, builder, signature, args: _load(builder, I64, args[0], 8)


@intrinsic
def poke(typing, address, value):
    """Store an integer."""

    def codegen(context, builder, signature, args):
        _store(builder, args[1], args[0], 8)
        return context.get_dummy_value()

    return types.void(INT, INT), codegen


@intrinsic(prefer_literal=True)
def move(typing, size, to, source):
    """Copy one element."""
    SIZE = size.literal_value

    def codegen(context, builder, signature, args):
        _store(builder, _load(builder, _element(SIZE), args[2], SIZE), args[1], SIZE)
        return context.get_dummy_value()

    return types.void(size, INT, INT), codegen


@intrinsic(prefer_literal=True)
def copy(typing, size, vl, to, source, count):
    """Copy `count` elements. Reads nothing beyond them, but stores whole vectors."""
    SIZE, VL = size.literal_value, vl.literal_value
    vector = ir.VectorType(_element(SIZE), VL)

    def codegen(context, builder, signature, args):
        to, source, count = args[2:]
        whole, left, mask = _tail(builder, count, VL)
        with cgutils.for_range_slice(builder, I64(0), builder.mul(whole, I64(SIZE)), I64(VL * SIZE), I64) as (i, _):
            _store(builder, _load(builder, vector, builder.add(source, i), SIZE), builder.add(to, i), SIZE)
        with builder.if_then(left):
            i = builder.mul(whole, I64(SIZE))
            _store(builder, _masked_load(builder, vector, builder.add(source, i), SIZE, mask), builder.add(to, i), SIZE)
        return context.get_dummy_value()

    return types.void(size, vl, *[INT] * 3), codegen


@intrinsic(prefer_literal=True)
def zero(typing, size, vl, to, count):
    """Set `count` elements, rounded up to whole vectors, to zero."""
    SIZE, VL = size.literal_value, vl.literal_value
    zeros = ir.Constant(ir.VectorType(_element(SIZE), VL), [0.0] * VL)

    def codegen(context, builder, signature, args):
        with cgutils.for_range_slice(builder, I64(0), builder.mul(args[3], I64(SIZE)), I64(VL * SIZE), I64) as (i, _):
            _store(builder, zeros, builder.add(args[2], i), SIZE)
        return context.get_dummy_value()

    return types.void(size, vl, INT, INT), codegen


@intrinsic
def arena(typing, function, length):
    """Call the pool's `void *arena(size_t)`: scratch of this thread, or 0."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I64, [I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return INT(INT, INT), codegen


@intrinsic
def activate(typing, function, y, count, a, b):
    """Call `int activation(T *y, intp count, double a, double b)`; 0 means that it failed."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I32, [I64, I64, ir.DoubleType(), ir.DoubleType()])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int32(INT, INT, INT, types.float64, types.float64), codegen


@intrinsic(prefer_literal=True)
def multiply(typing, form, size, vl, mr, nv, segments, count, rows, b, b_step, tile):
    """tile[mr][nv * vl] = sum of products over segments, the accumulators in registers all the way.

    `segments`: `count` triples of integers (offset into A, offset into B, length). Each step multiplies a column of A with a
    row of B of nv vectors, then advances B by `b_step` bytes. A's rows: PIXELS: at the mr addresses in the table `rows`,
    advancing by an element; CHANNELS: interleaved from address `rows` on, so advancing by mr elements; DEPTHWISE: at the
    addresses in `rows`, each of nv vectors that are multiplied element by element.
    """
    FORM, SIZE, VL, MR, NV = (literal.literal_value for literal in (form, size, vl, mr, nv))
    element = _element(SIZE)
    vector = ir.VectorType(element, VL)

    def codegen(context, builder, signature, args):
        segments, count, rows, b, b_step, tile = args[5:]
        name = f"llvm.fmuladd.v{VL}f{8 * SIZE}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        row = [builder.add(rows, I64(i * SIZE)) if FORM == CHANNELS else _load(builder, I64, builder.add(rows, I64(8 * i)), 8) for i in range(MR)]
        begin = builder.block
        outer, inner, latch, done = (builder.append_basic_block(label) for label in ("segment", "step", "next", "done"))

        def accumulators(before: Any, initial: list[Any]) -> list[Any]:
            phis = [builder.phi(vector) for _ in initial]
            for phi, value in zip(phis, initial, strict=True):
                phi.add_incoming(value, before)
            return phis

        zeros = [ir.Constant(vector, [0.0] * VL)] * (MR * NV)
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), outer, done)

        builder.position_at_end(outer)
        s = builder.phi(I64)
        s.add_incoming(I64(0), begin)
        outer_sums = accumulators(begin, zeros)
        segment = builder.add(segments, builder.mul(s, I64(24)))
        a_first, b_first, length = (_load(builder, I64, builder.add(segment, I64(8 * i)), 8) for i in range(3))
        b_first = builder.add(b, b_first)
        builder.branch(inner)

        builder.position_at_end(inner)
        k, a_offset, b_at = (builder.phi(I64) for _ in range(3))
        sums = accumulators(outer, outer_sums)
        factors = [_load(builder, vector, builder.add(b_at, I64(j * VL * SIZE)), SIZE) for j in range(NV)]
        new = []
        for i in range(MR):
            address = builder.add(row[i], a_offset)
            if FORM == DEPTHWISE:
                left = [_load(builder, vector, builder.add(address, I64(j * VL * SIZE)), SIZE) for j in range(NV)]
            else:
                left = [_splat(builder, _load(builder, element, address, SIZE), VL)] * NV
            new += [builder.call(fma, [left[j], factors[j], sums[i * NV + j]]) for j in range(NV)]
        step = MR * SIZE if FORM == CHANNELS else SIZE
        following = builder.add(k, I64(1))
        for phi, first, value in (
            (k, I64(0), following),
            (a_offset, a_first, builder.add(a_offset, I64(step))),
            (b_at, b_first, builder.add(b_at, b_step)),
        ):
            phi.add_incoming(first, outer)
            phi.add_incoming(value, inner)
        for phi, value in zip(sums, new, strict=True):
            phi.add_incoming(value, inner)
        builder.cbranch(builder.icmp_signed("<", following, length), inner, latch)

        builder.position_at_end(latch)
        next_segment = builder.add(s, I64(1))
        s.add_incoming(next_segment, latch)
        for phi, value in zip(outer_sums, new, strict=True):
            phi.add_incoming(value, latch)
        builder.cbranch(builder.icmp_signed("<", next_segment, count), outer, done)

        builder.position_at_end(done)
        results = accumulators(begin, zeros)
        for i, (phi, value) in enumerate(zip(results, new, strict=True)):
            phi.add_incoming(value, latch)
            _store(builder, phi, builder.add(tile, I64(i * VL * SIZE)), SIZE)
        return context.get_dummy_value()

    return types.void(form, size, vl, mr, nv, *[INT] * 6), codegen


@intrinsic(prefer_literal=True)
def finish(typing, form, size, vl, tile, bias, residual, y, count):
    """y[:count] = tile + bias (+ residual, unless its address is 0). CHANNELS: one bias for all, else one for each element."""
    FORM, SIZE, VL = (literal.literal_value for literal in (form, size, vl))
    element = _element(SIZE)
    vector = ir.VectorType(element, VL)

    def codegen(context, builder, signature, args):
        tile, bias, residual, y, count = args[3:]
        has_residual = builder.icmp_signed("!=", residual, I64(0))
        single_bias = _splat(builder, _load(builder, element, bias, SIZE), VL) if FORM == CHANNELS else None

        def part(offset: Any, mask: Any) -> None:
            """One vector, whole or, with a mask, the elements left: nothing beyond them is touched."""
            at = [builder.add(address, offset) for address in (tile, bias, residual, y)]
            value = builder.fadd(_load(builder, vector, at[0], SIZE), single_bias or _load(builder, vector, at[1], SIZE))
            before = builder.block
            with builder.if_then(has_residual):
                more = _masked_load(builder, vector, at[2], SIZE, mask) if mask else _load(builder, vector, at[2], SIZE)
                total, within = builder.fadd(value, more), builder.block
            result = builder.phi(vector)
            result.add_incoming(value, before)
            result.add_incoming(total, within)
            if mask:
                _masked_store(builder, result, at[3], SIZE, mask)
            else:
                _store(builder, result, at[3], SIZE)

        whole, left, mask = _tail(builder, count, VL)
        with cgutils.for_range_slice(builder, I64(0), builder.mul(whole, I64(SIZE)), I64(VL * SIZE), I64) as (i, _):
            part(i, None)
        with builder.if_then(left):
            part(builder.mul(whole, I64(SIZE)), mask)
        return context.get_dummy_value()

    return types.void(form, size, vl, *[INT] * 5), codegen
