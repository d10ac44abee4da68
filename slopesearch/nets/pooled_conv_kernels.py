"""The compiled loops behind `pooled_conv`; loaded when they first run.

Both gradients of a pooled 3x3 convolution are sums of a few patches times a number each: those of the images
for the weights, those of the weights for the images. A patch is what a 3x3 window holds of a block of 32
channels: three runs of 96 numbers. numba makes no loop of it that keeps the sum in registers, so the sum is
written in LLVM's terms.
"""

from itertools import product

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from slopesearch.nets.kernels import _MAPS, _compiled, _store

BLOCK = 32  # channels of a patch
RUN = 3 * BLOCK
# Whether what numba compiles for multiplies bf16 itself: the processor that it is on, unless told otherwise.
BF16 = "+avx512bf16" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")

_FLOAT, _INT16, _INT32, _INT64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_LANES = 16
_FLOATS, _INTS = ir.VectorType(_FLOAT, _LANES), ir.VectorType(_INT32, _LANES)
_HALVES = ir.VectorType(_INT16, 2 * _LANES)

# Two vectors of bf16 are multiplied pair by pair, so two patches are interleaved first; the processor does
# that within quarters of a vector, which leaves the first and the second half of every eight apart.
_FIRST = [8 * (lane // 4) + lane % 4 for lane in range(_LANES)]
_SECOND = [place + 4 for place in _FIRST]
# Where channel c of a block is after that. float32 stays in order.
BF16_ORDER = np.argsort(_FIRST + _SECOND)


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


def _constants(numbers):
    return ir.Constant(ir.VectorType(_INT32, len(numbers)), numbers)


def _broadcast(builder, number):
    lane = ir.Constant(ir.VectorType(number.type, _LANES), ir.Undefined)
    lane = builder.insert_element(lane, number, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(lane, lane, _constants([0] * _LANES))


def _vectors(builder, patch, step, rows, vector):
    """Pointers to the vectors of these rows of a patch, row by row."""
    pointers = []
    for row, i in product(rows, range(0, RUN, vector.count)):
        offset = builder.add(builder.mul(step, ir.Constant(_INT64, row)), ir.Constant(_INT64, i))
        pointers.append(builder.bitcast(builder.gep(patch, [offset]), vector.as_pointer()))
    return pointers


def _float32_loop(builder, sums, rows, weights, source, step, starts, count):
    """sums += weight times patch, one patch at a time."""
    with cgutils.for_range(builder, count) as loop:
        weight = _broadcast(builder, builder.load(builder.gep(weights, [loop.index])))
        patch = builder.gep(source, [builder.load(builder.gep(starts, [loop.index]))])
        for total, pointer in zip(sums, _vectors(builder, patch, step, rows, _FLOATS), strict=True):
            more = builder.fmul(weight, builder.load(pointer, align=4), flags=("contract",))
            builder.store(builder.fadd(builder.load(total), more, flags=("contract",)), total)


def _bf16_loop(builder, sums, rows, weights, source, step, starts, count):
    """sums += weight times patch, two patches at a time; the list ends in a weight of 0."""
    bf16 = ir.VectorType(_BFloat(), 2 * _LANES)
    signature = ir.FunctionType(_FLOATS, [_FLOATS, bf16, bf16])
    name = "llvm.x86.avx512bf16.dpbf16ps.512"  # as LLVM has it since 16
    multiply = cgutils.get_or_insert_function(builder.module, signature, name)
    one = ir.Constant(_INT64, 1)
    with cgutils.for_range(builder, builder.lshr(builder.add(count, one), one)) as loop:
        first = builder.shl(loop.index, one)
        pair = builder.bitcast(builder.gep(weights, [first]), _INT32.as_pointer())
        weight = builder.bitcast(_broadcast(builder, builder.load(pair, align=2)), bf16)
        patches = []
        for index in (first, builder.add(first, one)):
            patch = builder.gep(source, [builder.load(builder.gep(starts, [index]))])
            patches.append(_vectors(builder, patch, step, rows, _HALVES))
        for i, pointers in enumerate(zip(*patches, strict=True)):
            a, b = (builder.load(pointer, align=2) for pointer in pointers)
            for half, places in enumerate((_FIRST, _SECOND)):
                mask = _constants([place + other for place in places for other in (0, 2 * _LANES)])
                both = builder.bitcast(builder.shuffle_vector(a, b, mask), bf16)
                total = sums[2 * i + half]
                builder.store(builder.call(multiply, [builder.load(total), both, weight]), total)


@intrinsic
def _add_patches(typingctx, target, start, target_step, weights, source, source_step, starts, count):
    """Add weights[i] times the patch of `source` at starts[i], i < count, to that of `target` at `start`.

    Flat arrays: `target` float32, `source` and `weights` both float32 or both the bits of bf16; the steps
    lie between the rows of a patch. bf16 looks at weights[count], which must be 0, and at starts[count].
    """
    is_bf16 = source.dtype == types.int16

    def codegen(context, builder, signature, arguments):
        def data(i):
            return context.make_array(signature.args[i])(context, builder, arguments[i]).data

        add = _bf16_loop if is_bf16 else _float32_loop
        patch = builder.gep(data(0), [arguments[1]])
        # 18 sums fit into AVX-512's 32 registers; float32 has to run with AVX2's 16 of half the width too.
        for rows in [(0, 1, 2)] if is_bf16 else [(0,), (1,), (2,)]:
            targets = _vectors(builder, patch, arguments[2], rows, _FLOATS)
            sums = [cgutils.alloca_once(builder, _FLOATS) for _ in targets]
            for total, pointer in zip(sums, targets, strict=True):
                builder.store(builder.load(pointer, align=4), total)
            add(builder, sums, rows, data(3), data(4), arguments[5], data(6), arguments[7])
            for total, pointer in zip(sums, targets, strict=True):
                builder.store(builder.load(total), pointer, align=4)
        return context.get_dummy_value()

    integer = types.int64
    given = (target, integer, integer, weights, source, integer, starts, integer)
    return types.void(*given), codegen


def _signatures(pattern):
    """For float32 maps, and for bf16 where the processor multiplies it."""
    numbers = ("float32", "int16") if BF16 else ("float32",)
    return [pattern.format(m=m, v=v) for m, v in zip(_MAPS, numbers, strict=False)]


@_compiled(_signatures("void({m}, {m}, uint8[:,:,:,::1], {v}[:,:,::1], float32[:,::1])"))
def gradient_of_weights(x, dy, winner, padded, dw):
    """x (N, 2H, 2W, C), dy and its winners (N, H, W, K) -> dw (C/32, K*3*3*32).

    `padded` (2H + 2, 2W + 2, 32) is room for a block of an image with a border, which has to be zero.
    """
    height, width, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    row = (2 * width + 2) * BLOCK
    flat, windows = padded.reshape(padded.size), height * width
    places = np.empty((windows, channels), np.int32)
    weights, starts = np.empty(windows + 1, padded.dtype), np.empty(windows + 1, np.int64)
    dw[:] = 0
    for n in range(x.shape[0]):
        gradients = dy[n].reshape((windows, channels))
        for i in range(height):
            for j in range(width):
                which, place = winner[n, i, j], places[i * width + j]
                corner = 2 * i * row + 2 * j * BLOCK
                for k in range(channels):
                    place[k] = corner + np.int32(which[k] >> 1) * row + np.int32(which[k] & 1) * BLOCK
        for block in range(dw.shape[0]):
            for i in range(x.shape[1]):
                for j in range(x.shape[2]):
                    source, target = x[n, i, j, block * BLOCK :], padded[i + 1, j + 1]
                    for c in range(BLOCK):
                        target[c] = source[c]
            for k in range(channels):
                count = 0
                for t in range(windows):
                    weights[count], starts[count] = gradients[t, k], places[t, k]
                    count += gradients[t, k] != 0  # else the next one takes its place
                weights[count], starts[count] = 0, starts[count - 1]  # partner of an odd one: the same patch
                patches = weights, flat, row, starts, count
                _add_patches(dw[block], k * 3 * RUN, RUN, *patches)  # type: ignore[call-arg]


@_compiled(_signatures("void({m}, uint8[:,:,:,::1], {v}[:,::1], float32[:,:,::1], {m})"))
def gradient_of_maps(dy, winner, w, padded, dx):
    """dy and its winners (N, H, W, K), w (C/32, K*3*3*32) -> dx (N, 2H, 2W, C).

    `padded` (2H + 2, 2W + 2, 32) is room for a block of an image with a border. K is below 2**16.
    """
    height, width, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    row = (2 * width + 2) * BLOCK
    flat = padded.reshape(padded.size)
    shape = (height * width, 4, channels + 1)  # for each window, by the place of the winner
    weights, starts = np.empty(shape, w.dtype), np.empty(shape, np.int64)
    counts, most = np.empty(height * width, np.uint64), np.uint64(0xFFFF)
    shifts = np.arange(0, 64, 16).astype(np.uint64)
    for n in range(dy.shape[0]):
        for i in range(height):
            for j in range(width):
                t = i * width + j
                gradient, which = dy[n, i, j], winner[n, i, j]
                filled = np.uint64(0)  # the four counts in one number, which stays in a register
                for k in range(channels):
                    shift = shifts[which[k]]
                    slot = (filled >> shift) & most
                    weights[t, which[k], slot], starts[t, which[k], slot] = gradient[k], k * 3 * RUN
                    filled += np.uint64(gradient[k] != 0) << shift  # else the next one takes its place
                for place in range(4):
                    slot = (filled >> shifts[place]) & most
                    weights[t, place, slot], starts[t, place, slot] = 0, 0
                counts[t] = filled
        for block in range(w.shape[0]):
            flat[:] = 0
            for i in range(height):
                for j in range(width):
                    t = i * width + j
                    for place in range(4):
                        start = (2 * i + (place >> 1)) * row + (2 * j + (place & 1)) * BLOCK
                        count = np.int64((counts[t] >> shifts[place]) & most)
                        lists = weights[t, place], w[block], RUN, starts[t, place]
                        _add_patches(flat, start, row, *lists, count)  # type: ignore[call-arg]
            for i in range(dx.shape[1]):
                for j in range(dx.shape[2]):
                    source, target = padded[i + 1, j + 1], dx[n, i, j, block * BLOCK :]
                    for c in range(BLOCK):
                        target[c] = _store(source[c], target[c])
