"""The compiled loops behind `pooling`, `fused` and `stem`; loaded when they first run."""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

# Maps are (N, H, W, C) in memory; bf16 numbers travel as the int16 of their bits.
_MAPS = ("float32[:,:,:,::1]", "int16[:,:,:,::1]")


def _compiled(signatures, fastmath=False):
    """Compile for these signatures, once for all processes where a folder can hold the result."""

    def decorate(function):
        try:
            return numba.njit(signatures, cache=True, fastmath=fastmath)(function)
        except RuntimeError:  # no folder to cache in; then it takes 12 s at each start
            return numba.njit(signatures, fastmath=fastmath)(function)

    return decorate


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


def _negated(a, negate):
    """-a where `negate` is 1, a where it is 0."""


@overload(_negated)
def _negated_of(a, negate):
    if isinstance(a, types.Float):
        return lambda a, negate: -a if negate else a
    return lambda a, negate: a ^ np.int16(negate << 15)  # the sign bit


@_compiled([f"void({m}, {m}, uint8[:,:,:,::1], int64)" for m in _MAPS])
def pool(x, y, winner, lowest):
    """x (N, 2H, 2W, C) -> y (N, H, W, C), and which of the window's elements, 0 to 3, it was.

    The largest of the window, NaN above all; where `lowest` is 1, not 0, the smallest.
    """
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                x0, x1 = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                x2, x3 = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                out, which = y[n, i, j], winner[n, i, j]
                for c in range(y.shape[3]):
                    best, index = _negated(x0[c], lowest), np.uint8(0)
                    b, d, e = _negated(x1[c], lowest), _negated(x2[c], lowest), _negated(x3[c], lowest)
                    if _beats(b, best):
                        best, index = b, np.uint8(1)
                    if _beats(d, best):
                        best, index = d, np.uint8(2)
                    if _beats(e, best):
                        best, index = e, np.uint8(3)
                    out[c], which[c] = _negated(best, lowest), index


@_compiled([f"void({m}, {m}, {m}, {m}, uint8[:,:,:,::1], uint8[:,:,:,::1])" for m in _MAPS])
def take_lower(y, low_y, x, low_x, winner, low_winner):
    """Where low_y > y, or is NaN, low_x and low_winner take the places of x and winner; all (N, H, W, C)."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                a, b, target, which = y[n, i, j], low_y[n, i, j], x[n, i, j], winner[n, i, j]
                source, low_which = low_x[n, i, j], low_winner[n, i, j]
                for c in range(target.shape[0]):
                    value = _load(b[c])
                    lower = value > _load(a[c]) or np.isnan(value)
                    target[c] = source[c] if lower else target[c]
                    which[c] = low_which[c] if lower else which[c]


@_compiled([f"void({m}, {m}, uint8[:,:,:,::1])" for m in _MAPS])
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


@_compiled([f"void({m}, {m}, float32[:,::1])" for m in _MAPS])
def scale(x, y, line):
    """y = line[0] + line[1] * (x - line[2]), channel by channel."""
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                source, target = x[n, i, j], y[n, i, j]
                for c in range(source.shape[0]):
                    centred = _load(source[c]) - line[2, c]
                    target[c] = _store(line[0, c] + line[1, c] * centred, source[c])


@_compiled([f"void({m}, {m}, float64[:,::1])" for m in _MAPS])
def sum_gradients(x, dy, sums):
    """`sums` (2, C) is set to the sums of dy and of dy * x over all but the channels."""
    channels = x.shape[3]
    sums[:] = 0
    first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(x.shape[0]):
        first[:] = 0
        second[:] = 0
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                value, gradient = x[n, i, j], dy[n, i, j]
                for c in range(channels):
                    g = _load(gradient[c])
                    first[c] += g
                    second[c] += g * _load(value[c])
        for c in range(channels):  # an image at a time, so that single precision is enough above
            sums[0, c] += first[c]
            sums[1, c] += second[c]


@_compiled([f"void({m}, {m}, {m}, uint8[:,:,:,::1], float32[:,::1])" for m in _MAPS])
def scatter(dx, x, dy, winner, line):
    """dx = line[0] + line[1] * x, and line[2] * dy (N, H, W, C) more where x was the winner."""
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                source, which = dy[n, i, j], winner[n, i, j]
                for k in range(4):
                    target = dx[n, 2 * i + k // 2, 2 * j + k % 2]
                    value = x[n, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(source.shape[0]):
                        more = line[2, c] * _load(source[c]) if which[c] == k else np.float32(0)
                        target[c] = _store(line[0, c] + line[1, c] * _load(value[c]) + more, value[c])


# The first convolution. Images are (N, H + 2, W + 2), with their border of zeros; weights are "taps" (10, C):
# row 3 * i + j is the weight of the pixel at (i, j) of the 3x3 window, row 9 the bias.
_CONTRACT = {"contract"}  # a * b + c in one instruction
_IMAGES, _TAPS = "float32[:,:,::1]", "float32[:,::1]"


@numba.njit(inline="always")
def _pixels(x, n, i, j):
    """The 4x4 pixels that the 2x2 windows from (i, j) on look at."""
    a, b, c, d = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
    first = (a[j], a[j + 1], a[j + 2], a[j + 3], b[j], b[j + 1], b[j + 2], b[j + 3])
    return (*first, c[j], c[j + 1], c[j + 2], c[j + 3], d[j], d[j + 1], d[j + 2], d[j + 3])


@numba.njit(fastmath=_CONTRACT)
def _apply(taps, c, v0, v1, v2, v3, v4, v5, v6, v7, v8):
    upper = taps[9, c] + taps[0, c] * v0 + taps[1, c] * v1 + taps[2, c] * v2 + taps[3, c] * v3
    return upper + taps[4, c] * v4 + taps[5, c] * v5 + taps[6, c] * v6 + taps[7, c] * v7 + taps[8, c] * v8


@numba.njit(fastmath=_CONTRACT)
def _add_gradient(dtaps, c, pixels, p, q, r, s):
    """The gradients p, q, r, s at the 2x2 windows, times what each tap saw there."""
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = pixels
    dtaps[0, c] += p * a0 + q * a1 + r * b0 + s * b1
    dtaps[1, c] += p * a1 + q * a2 + r * b1 + s * b2
    dtaps[2, c] += p * a2 + q * a3 + r * b2 + s * b3
    dtaps[3, c] += p * b0 + q * b1 + r * c0 + s * c1
    dtaps[4, c] += p * b1 + q * b2 + r * c1 + s * c2
    dtaps[5, c] += p * b2 + q * b3 + r * c2 + s * c3
    dtaps[6, c] += p * c0 + q * c1 + r * d0 + s * d1
    dtaps[7, c] += p * c1 + q * c2 + r * d1 + s * d2
    dtaps[8, c] += p * c2 + q * c3 + r * d2 + s * d3
    dtaps[9, c] += (p + q) + (r + s)


@_compiled([f"void({_IMAGES}, {_TAPS}, {m})" for m in _MAPS], _CONTRACT)
def convolve(x, taps, y):
    """Images -> y (N, H, W, C)."""
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                a, b, d = x[n, i], x[n, i + 1], x[n, i + 2]
                v0, v1, v2 = a[j], a[j + 1], a[j + 2]
                v3, v4, v5 = b[j], b[j + 1], b[j + 2]
                v6, v7, v8 = d[j], d[j + 1], d[j + 2]
                out = y[n, i, j]
                for c in range(out.shape[0]):
                    out[c] = _store(_apply(taps, c, v0, v1, v2, v3, v4, v5, v6, v7, v8), out[c])


@_compiled([f"void({_IMAGES}, {m}, float64[:,::1])" for m in _MAPS], _CONTRACT)
def convolve_backward(x, dy, dtaps):
    """dy (N, H, W, C), H and W even -> dtaps (10, C)."""
    part = np.empty(dtaps.shape, np.float32)
    dtaps[:] = 0
    for n in range(dy.shape[0]):
        part[:] = 0
        for i in range(0, dy.shape[1], 2):
            for j in range(0, dy.shape[2], 2):
                pixels = _pixels(x, n, i, j)
                dy0, dy1, dy2, dy3 = dy[n, i, j], dy[n, i, j + 1], dy[n, i + 1, j], dy[n, i + 1, j + 1]
                for c in range(dtaps.shape[1]):
                    p, q, r, s = _load(dy0[c]), _load(dy1[c]), _load(dy2[c]), _load(dy3[c])
                    _add_gradient(part, c, pixels, p, q, r, s)
        dtaps += part


@_compiled([f"void({_IMAGES}, {_TAPS}, {m}, uint8[:,:,:,::1])" for m in _MAPS], _CONTRACT)
def convolve_and_pool(x, taps, y, winner):
    """Images -> y (N, H / 2, W / 2, C), the largest of each 2x2 windows, and which it was, 0 to 3."""
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _pixels(x, n, 2 * i, 2 * j)
                out, which = y[n, i, j], winner[n, i, j]
                for c in range(out.shape[0]):
                    best, index = _apply(taps, c, a0, a1, a2, b0, b1, b2, c0, c1, c2), np.int32(0)
                    q = _apply(taps, c, a1, a2, a3, b1, b2, b3, c1, c2, c3)
                    r = _apply(taps, c, b0, b1, b2, c0, c1, c2, d0, d1, d2)
                    s = _apply(taps, c, b1, b2, b3, c1, c2, c3, d1, d2, d3)
                    if q > best:
                        best, index = q, np.int32(1)
                    if r > best:
                        best, index = r, np.int32(2)
                    if s > best:
                        best, index = s, np.int32(3)
                    out[c] = _store(best, out[c])
                    which[c] = np.uint8(index)


@_compiled([f"void({_IMAGES}, {m}, uint8[:,:,:,::1], float64[:,::1])" for m in _MAPS], _CONTRACT)
def convolve_and_pool_backward(x, dy, winner, dtaps):
    """dy (N, H / 2, W / 2, C), which belongs to the winners alone -> dtaps (10, C)."""
    part, zero = np.empty(dtaps.shape, np.float32), np.float32(0)
    dtaps[:] = 0
    for n in range(dy.shape[0]):
        part[:] = 0
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                pixels = _pixels(x, n, 2 * i, 2 * j)
                source, which = dy[n, i, j], winner[n, i, j]
                for c in range(dtaps.shape[1]):
                    g, k = _load(source[c]), which[c]
                    p = g if k == 0 else zero
                    q = g if k == 1 else zero
                    r = g if k == 2 else zero
                    s = g if k == 3 else zero
                    _add_gradient(part, c, pixels, p, q, r, s)
        dtaps += part


@_compiled([f"void({_IMAGES}, float64[:,::1])"], {"contract", "reassoc"})
def moments(x, found):
    """Sums over all 3x3 windows: found[t, u] of pixel t times pixel u, found[t, 9] of pixel t; (10, 10)."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    stride = -(-width // 16) * 16  # whole vectors, filled up with zeros
    shifted = np.zeros((3, (height + 2) * stride), np.float32)
    found[:] = 0
    for n in range(x.shape[0]):
        for t in range(3):
            for i in range(height + 2):
                for j in range(width):
                    shifted[t, i * stride + j] = x[n, i, j + t]
        for t in range(9):
            a = shifted[t % 3, t // 3 * stride :]
            total = np.float32(0)
            for k in range(height * stride):
                total += a[k]
            found[t, 9] += total
            for u in range(t, 9):
                b = shifted[u % 3, u // 3 * stride :]
                total = np.float32(0)
                for k in range(height * stride):
                    total += a[k] * b[k]
                found[t, u] += total
    for t in range(9):
        for u in range(t):
            found[t, u] = found[u, t]
