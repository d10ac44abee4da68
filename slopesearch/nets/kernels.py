"""The compiled loops behind `pooling` and `fused`; imported when they first run: loading takes a second."""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

# Maps are (N, H, W, C) in memory; bf16 numbers travel as the int16 of their bits.
_SIGNATURES = [f"void({m}, {m}, uint8[:,:,:,::1])" for m in ("float32[:,:,:,::1]", "int16[:,:,:,::1]")]


def _compiled(signatures):
    """Compile for these signatures, once for all processes where a folder can hold the result."""

    def decorate(function):
        try:
            return numba.njit(signatures, cache=True)(function)
        except RuntimeError:  # no folder to cache in; then it takes 2 s at each start
            return numba.njit(signatures)(function)

    return decorate


def _beats(a, b):
    """Whether a takes the place of b, as in torch: when it is larger, or NaN."""


@overload(_beats)
def _beats_of(a, b):
    if isinstance(a, types.Float):
        return lambda a, b: a > b or np.isnan(a)

    def bf16(a, b):
        # Sign and magnitude as one integer that sorts like the number; -0 equals 0, NaN is above all.
        a_size, b_size = np.int16(a & 0x7FFF), np.int16(b & 0x7FFF)
        a_key = a_size if a >= 0 or a_size > 0x7F80 else np.int16(-a_size)
        b_key = b_size if b >= 0 or b_size > 0x7F80 else np.int16(-b_size)
        return a_key > b_key

    return bf16


@_compiled(_SIGNATURES)
def pool(x, y, winner):
    """x (N, 2H, 2W, C) -> y (N, H, W, C), and which of the window's elements, 0 to 3, it was."""
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                x0, x1 = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                x2, x3 = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                out, which = y[n, i, j], winner[n, i, j]
                for c in range(y.shape[3]):
                    best, index = x0[c], np.uint8(0)
                    if _beats(x1[c], best):
                        best, index = x1[c], np.uint8(1)
                    if _beats(x2[c], best):
                        best, index = x2[c], np.uint8(2)
                    if _beats(x3[c], best):
                        best, index = x3[c], np.uint8(3)
                    out[c], which[c] = best, index


@_compiled(_SIGNATURES)
def unpool(dx, dy, winner):
    """dy (N, H, W, C) goes to the winners in dx (N, 2H, 2W, C), zero to the others."""
    zero = dx.dtype.type(0)
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                source, which = dy[n, i, j], winner[n, i, j]
                # One loop per target: stores to four places in one loop do not vectorise.
                for k in range(4):
                    target = dx[n, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(source.shape[0]):
                        target[c] = source[c] if which[c] == k else zero


_MAPS = ("float32[:,:,:,::1]", "int16[:,:,:,::1]")  # bf16 numbers travel as the int16 of their bits


@intrinsic
def _float_of_bits(typingctx, bits):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@intrinsic
def _bits_of_float(typingctx, value):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


def _load(value):
    """A number of the map as float32."""


def _store(value, like):
    """A float32 as a number of a map: itself, or rounded to the nearest bf16."""


@overload(_load)
def _load_of(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: _float_of_bits(np.int32(value) << 16)  # type: ignore[call-arg]


@overload(_store)
def _store_of(value, like):
    if isinstance(like, types.Float):
        return lambda value, like: value

    def bf16(value, like):
        bits: Any = _bits_of_float(value)  # type: ignore[call-arg]
        return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    return bf16


@_compiled([f"void({m}, {m}, uint8[:,:,:,::1], float32[::1], float64[:,::1])" for m in _MAPS])
def pool_and_sum(x, y, winner, sign, sums):
    """x (N, 2H, 2W, C) -> y (N, H, W, C), the winner of each window by sign * x, and where it was, 0 to 3.

    `sums` (2, C) is set to the sums of x and of its square over all but the channels.
    """
    channels = x.shape[3]
    sums[:] = 0
    first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(y.shape[0]):
        first[:] = 0
        second[:] = 0
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                x0, x1 = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                x2, x3 = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                out, which = y[n, i, j], winner[n, i, j]
                for c in range(channels):
                    a, b = _load(x0[c]), _load(x1[c])
                    d, e = _load(x2[c]), _load(x3[c])
                    first[c] += (a + b) + (d + e)
                    second[c] += (a * a + b * b) + (d * d + e * e)
                    best, index = a * sign[c], np.uint8(0)
                    if b * sign[c] > best:
                        best, index = b * sign[c], np.uint8(1)
                    if d * sign[c] > best:
                        best, index = d * sign[c], np.uint8(2)
                    if e * sign[c] > best:
                        best, index = e * sign[c], np.uint8(3)
                    out[c] = _store(best * sign[c], x0[c])
                    which[c] = index
        for c in range(channels):  # an image at a time, so that single precision is enough above
            sums[0, c] += first[c]
            sums[1, c] += second[c]


@_compiled([f"void({m}, {m}, float32[:,:,:,::1], uint8[:,:,:,::1], float32[:,::1])" for m in _MAPS])
def scatter(dx, x, g, winner, line):
    """dx = line[0] + line[1] * x, and g (N, H, W, C) more where it was the winner."""
    for n in range(g.shape[0]):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                source, which = g[n, i, j], winner[n, i, j]
                for k in range(4):
                    target = dx[n, 2 * i + k // 2, 2 * j + k % 2]
                    value = x[n, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(source.shape[0]):
                        more = source[c] if which[c] == k else np.float32(0)
                        target[c] = _store(line[0, c] + line[1, c] * _load(value[c]) + more, value[c])
