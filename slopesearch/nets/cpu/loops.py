"""The compiled loops behind `steps`, all in this one file: numba's cache follows the file of each function.

Maps are (N, H, W, C) in memory, C contiguous, or (N*H*W, C) for what treats every place alike; bf16 numbers
travel as the int16 of their bits, and all arithmetic is in float32. H and W of a map that is pooled are
even. A window is 2x2 numbers of a channel; its winner, 0 to 3, is the one that a pool takes: row by row, the
first of equal ones, NaN above all.
"""

import logging

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise RuntimeError("NUMBA_DISABLE_JIT is set, and uncompiled these loops are none")

_MAPS = ("float32[:,:,:,::1]", "int16[:,:,:,::1]")
_ROWS = ("float32[:,::1]", "int16[:,::1]")
_FLAT = ("float32[::1]", "int16[::1]")
_PLACES, _IMAGES, _BY_CHANNEL = "uint8[:,:,:,::1]", "float32[:,:,::1]", "float32[:,::1]"
_POOLED = f"{{m}}, {_PLACES}, {{m}}, {_PLACES}"
_is_told = False  # that they are compiled
_CONTRACT = {"contract"}  # a * b + c in one instruction


def _compiled(signatures, fastmath=_CONTRACT):
    """Compile for these signatures, once for all processes where a folder can hold the result."""

    def decorate(function):
        try:
            compiled = numba.njit(signatures, cache=True, fastmath=fastmath)(function)
        except RuntimeError:  # no folder to cache in: then each start compiles, which takes 12 s
            return numba.njit(signatures, fastmath=fastmath)(function)
        _tell_if_new(compiled)
        return compiled

    return decorate


def _tell_if_new(compiled):
    """Log, once, that the loops are compiled: at the first one that is not in the cache."""
    global _is_told
    if compiled.stats.cache_misses and not _is_told:
        _is_told = True
        logging.getLogger("slopesearch").info("compiling the fast loops once (about 15 s)")


def _load(value):
    """A number of a map as float32."""


def _store(value, like):
    """A float32 as a number of a map: itself, or rounded to the nearest bf16."""


@overload(_load)
def _load_of(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: np.int32(np.int32(value) << 16).view(np.float32)


@overload(_store)
def _store_of(value, like):
    if isinstance(like, types.Float):
        return lambda value, like: value

    def bf16(value, like):
        bits = np.float32(value).view(np.int32)
        rounded = np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
        return rounded if value == value else np.int16(0x7FC0)  # rounding a NaN may give a number

    return bf16


@numba.njit(inline="always")
def _winner(a, b, c, d):
    """The largest of a window, and which it is."""
    best, index = a, np.int32(0)
    if (b > best) | (b != b):
        best, index = b, np.int32(1)
    if (c > best) | (c != c):
        best, index = c, np.int32(2)
    if (d > best) | (d != d):
        best, index = d, np.int32(3)
    return best, index


# Pools, and BatchNorm before one.


def _pool(both):
    @_compiled(
        [f"void({m}, float32[::1], float32[::1], {_POOLED.format(m=m)}, float64[:,::1])" for m in _MAPS]
    )
    def pool(x, sign, pivot, high, winner, low, low_winner, sums):
        """x (N, 2H, 2W, C) -> high (N, H, W, C), of each window the number with the largest sign[c] * x.

        And, where `both` is true, low, the one with the smallest. `sums` (2, C) is set to the sums of
        x - pivot[c] and of its square over all but the channels.
        """
        channels = x.shape[3]
        sums[:] = 0
        first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
        for n in range(high.shape[0]):
            first[:] = 0
            second[:] = 0
            for i in range(high.shape[1]):
                for j in range(high.shape[2]):
                    x0, x1 = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                    x2, x3 = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                    out, which = high[n, i, j], winner[n, i, j]
                    low_out, low_which = low[n, i, j], low_winner[n, i, j]
                    for c in range(channels):
                        p, q, r, s = _load(x0[c]), _load(x1[c]), _load(x2[c]), _load(x3[c])
                        best, index = _winner(p * sign[c], q * sign[c], r * sign[c], s * sign[c])
                        out[c], which[c] = _store(best * sign[c], x0[c]), np.uint8(index)
                        if both:
                            best, index = _winner(-p * sign[c], -q * sign[c], -r * sign[c], -s * sign[c])
                            low_out[c], low_which[c] = _store(-best * sign[c], x0[c]), np.uint8(index)
                        p, q, r, s = p - pivot[c], q - pivot[c], r - pivot[c], s - pivot[c]
                        first[c] += (p + q) + (r + s)
                        second[c] += (p * p + q * q) + (r * r + s * s)
            for c in range(channels):  # an image at a time, so that single precision is enough above
                sums[0, c] += first[c]
                sums[1, c] += second[c]

    return pool


pool_high, pool_ends = _pool(False), _pool(True)


@_compiled([f"void({f}, {f}, {f}, {f}, uint8[::1], uint8[::1])" for f in _FLAT])
def take_larger(of_high, of_low, high, low, winner, low_winner):
    """Where of_low > of_high, or is NaN, low and low_winner take the places of high and winner; all flat."""
    is_lower = np.empty(1024, np.bool_)  # so many at a time, that all six arrays stay in the first cache
    for start in range(0, high.shape[0], 1024):
        a, b = of_high[start : start + 1024], of_low[start : start + 1024]
        value, other = high[start : start + 1024], low[start : start + 1024]
        place, other_place = winner[start : start + 1024], low_winner[start : start + 1024]
        # A loop for each target, and both numbers read before one is taken: nothing else vectorises here.
        for i in range(a.shape[0]):
            is_lower[i] = (_load(b[i]) > _load(a[i])) | (_load(b[i]) != _load(b[i]))
        for i in range(a.shape[0]):
            here, there = value[i], other[i]
            value[i] = there if is_lower[i] else here
        for i in range(a.shape[0]):
            at, there_at = place[i], other_place[i]
            place[i] = there_at if is_lower[i] else at


@_compiled([f"void({r}, {_BY_CHANNEL}, {r})" for r in _ROWS])
def scale(x, affine, y):
    """y = affine[0] + affine[1] * (x - affine[2]), channel by channel."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[m, c] = _store(affine[0, c] + affine[1, c] * (_load(x[m, c]) - affine[2, c]), x[m, c])


@_compiled([f"void({r}, float32[::1], {r}, float64[:,::1])" for r in _ROWS])
def sum_gradients(x, pivot, dy, sums):
    """`sums` (2, C) is set to the sums of dy and of dy * (x - pivot[c])."""
    part = np.zeros(sums.shape, np.float32)
    sums[:] = 0
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            g = _load(dy[m, c])
            part[0, c] += g
            part[1, c] += g * (_load(x[m, c]) - pivot[c])
        if m % 64 == 63 or m == x.shape[0] - 1:  # not for long, so that single precision is enough
            sums += part
            part[:] = 0


@_compiled([f"void({m}, {_BY_CHANNEL}, {m}, {_PLACES}, {m})" for m in _MAPS])
def scatter(x, affine, dy, winner, dx):
    """dx = affine[0] + affine[1] * (x - affine[2]), and affine[3] * dy (N, H, W, C) more at the winners."""
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                source, which = dy[n, i, j], winner[n, i, j]
                # One loop per target: stores to four places in one loop do not vectorise.
                for k in range(4):
                    target = dx[n, 2 * i + k // 2, 2 * j + k % 2]
                    value = x[n, 2 * i + k // 2, 2 * j + k % 2]
                    for c in range(source.shape[0]):
                        gradient = affine[3, c] * _load(source[c])
                        more = gradient if which[c] == k else np.float32(0)
                        there = affine[0, c] + affine[1, c] * (_load(value[c]) - affine[2, c])
                        target[c] = _store(there + more, value[c])


# Activations of bf16 maps by table: an elementwise function of 16 bits has no more than 65,536 values.


@_compiled(["void(int16[::1], int16[::1], int16[::1])"])
def look_up(x, table, y):
    """y = table[x], flat, x by its bits."""
    for i in range(x.shape[0]):
        y[i] = table[np.uint16(x[i])]


@_compiled(["void(int16[::1], float32[::1], int16[::1], int16[::1])"])
def look_up_backward(x, slopes, dy, dx):
    """dx = slopes[x] * dy, flat, x by its bits."""
    found = np.empty(64, np.float32)  # looking up does not vectorise, the rest does
    for start in range(0, x.shape[0], 64):
        source, gradient, target = x[start : start + 64], dy[start : start + 64], dx[start : start + 64]
        for i in range(source.shape[0]):
            found[i] = slopes[np.uint16(source[i])]
        for i in range(source.shape[0]):
            target[i] = _store(found[i] * _load(gradient[i]), gradient[i])


# Leaky ReLU with learned slopes, one per channel.


@_compiled([f"void({r}, float32[::1], {r})" for r in _ROWS])
def bend(x, slope, y):
    """y = x where x > 0, slope[c] * x elsewhere."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            value = _load(x[m, c])
            y[m, c] = _store(value if value > 0 else slope[c] * value, x[m, c])


@_compiled([f"void({r}, float32[::1], {r}, {r}, float64[::1])" for r in _ROWS])
def bend_backward(x, slope, dy, dx, dslope):
    """dy -> dx, and dslope (C,), the sums of dy * x where x <= 0."""
    part = np.zeros(x.shape[1], np.float32)
    dslope[:] = 0
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            value, g = _load(x[m, c]), _load(dy[m, c])
            part[c] += np.float32(0) if value > 0 else g * value
            dx[m, c] = _store(g if value > 0 else slope[c] * g, x[m, c])
        if m % 64 == 63 or m == x.shape[0] - 1:
            dslope += part
            part[:] = 0


# The first convolution. Images are (N, H + 2, W + 2), with their border of zeros; weights are "taps" (10, C):
# row 3 * i + j is the weight of the pixel at (i, j) of the 3x3 window, row 9 the bias.


@numba.njit(inline="always")
def _pixels(x, n, i, j):
    """The 4x4 pixels that the 3x3 windows of a 2x2 window of the map look at."""
    a, b, c, d = x[n, i], x[n, i + 1], x[n, i + 2], x[n, i + 3]
    first = (a[j], a[j + 1], a[j + 2], a[j + 3], b[j], b[j + 1], b[j + 2], b[j + 3])
    return (*first, c[j], c[j + 1], c[j + 2], c[j + 3], d[j], d[j + 1], d[j + 2], d[j + 3])


@numba.njit(fastmath=_CONTRACT)
def _apply(taps, c, v0, v1, v2, v3, v4, v5, v6, v7, v8):
    upper = taps[9, c] + taps[0, c] * v0 + taps[1, c] * v1 + taps[2, c] * v2 + taps[3, c] * v3
    return upper + taps[4, c] * v4 + taps[5, c] * v5 + taps[6, c] * v6 + taps[7, c] * v7 + taps[8, c] * v8


@numba.njit(fastmath=_CONTRACT)
def _window(taps, c, pixels):
    """What the convolution gives at the four places of a window."""
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = pixels
    return (
        _apply(taps, c, a0, a1, a2, b0, b1, b2, c0, c1, c2),
        _apply(taps, c, a1, a2, a3, b1, b2, b3, c1, c2, c3),
        _apply(taps, c, b0, b1, b2, c0, c1, c2, d0, d1, d2),
        _apply(taps, c, b1, b2, b3, c1, c2, c3, d1, d2, d3),
    )


@numba.njit(fastmath=_CONTRACT)
def _add_gradient(dtaps, c, pixels, p, q, r, s):
    """The gradients p, q, r, s at the four places of a window, times what each tap saw there."""
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


def _convolve_and_pool(both):
    @_compiled([f"void({_IMAGES}, {_BY_CHANNEL}, {_POOLED.format(m=m)})" for m in _MAPS])
    def convolve_and_pool(x, taps, high, winner, low, low_winner):
        """Images -> high (N, H / 2, W / 2, C), the largest number of each window of the map; see `pool`."""
        for n in range(high.shape[0]):
            for i in range(high.shape[1]):
                for j in range(high.shape[2]):
                    pixels = _pixels(x, n, 2 * i, 2 * j)
                    out, which = high[n, i, j], winner[n, i, j]
                    low_out, low_which = low[n, i, j], low_winner[n, i, j]
                    for c in range(out.shape[0]):
                        p, q, r, s = _window(taps, c, pixels)
                        best, index = _winner(p, q, r, s)
                        out[c], which[c] = _store(best, out[c]), np.uint8(index)
                        if both:
                            best, index = _winner(-p, -q, -r, -s)
                            low_out[c], low_which[c] = _store(-best, out[c]), np.uint8(index)

    return convolve_and_pool


convolve_and_pool_high, convolve_and_pool_ends = _convolve_and_pool(False), _convolve_and_pool(True)


@_compiled([f"void({_IMAGES}, {m}, {_PLACES}, float64[:,::1])" for m in _MAPS])
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
                    p, q = g if k == 0 else zero, g if k == 1 else zero
                    r, s = g if k == 2 else zero, g if k == 3 else zero
                    _add_gradient(part, c, pixels, p, q, r, s)
        dtaps += part


@_compiled([f"void({_IMAGES}, float64[:,::1])"], {"contract", "reassoc"})
def moments(x, found):
    """Sums over all 3x3 windows, (9, 10): [t, u] of pixel t times pixel u for t <= u, [t, 9] of pixel t."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    stride = -(-width // 16) * 16  # whole vectors, filled up with zeros
    shifted = np.zeros((3, (height + 2) * stride), np.float32)
    found[:] = 0
    for n in range(x.shape[0]):
        for t in range(3):
            for i in range(height + 2):
                shifted[t, i * stride : i * stride + width] = x[n, i, t : t + width]
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


# The backward of a 3x3 convolution whose map is pooled at once. Only winners have a gradient, so both
# gradients are sums of a few patches times a number each: patches of the images for the weights, patches of
# the weights for the images. A patch is what a 3x3 window holds of a block of 32 channels: 3 rows of 96.

BLOCK = 32
_ROW = 3 * BLOCK
_LANES = 16


@intrinsic
def _add_rows(typingctx, target, place, weights, source, starts, offset, count):
    """Add weights[i] * source[starts[i] + offset :][:96], i < count, to target[place:][:96]; flat float32.

    Written with vectors, because numba keeps such a sum in memory, not in registers: the gradient of the
    weights of the CNN's second convolution takes 4.7 instead of 3.3 ms so (Zen 4, 2026-11-25).
    """
    vector = ir.VectorType(ir.FloatType(), _LANES)

    def codegen(context, builder, signature, arguments):
        def element(array, index):
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.gep(data, [index])

        def vectors(first):
            at = [ir.IntType(64)(i) for i in range(0, _ROW, _LANES)]
            return [builder.bitcast(builder.gep(first, [i]), vector.as_pointer()) for i in at]

        targets = vectors(element(0, arguments[1]))
        # 6 sums, which AVX2's 16 registers of half the width hold too.
        sums = [cgutils.alloca_once_value(builder, builder.load(t, align=4)) for t in targets]
        with cgutils.for_range(builder, arguments[6]) as loop:
            number = builder.load(element(2, loop.index))
            lane = builder.insert_element(vector(ir.Undefined), number, ir.IntType(32)(0))
            weight = builder.shuffle_vector(lane, lane, ir.VectorType(ir.IntType(32), _LANES)(None))
            row = element(3, builder.add(builder.load(element(4, loop.index)), arguments[5]))
            for total, pointer in zip(sums, vectors(row), strict=True):
                more = builder.fmul(weight, builder.load(pointer, align=4), flags=("contract",))
                builder.store(builder.fadd(builder.load(total), more, flags=("contract",)), total)
        for total, pointer in zip(sums, targets, strict=True):
            builder.store(builder.load(total), pointer, align=4)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(target, whole, weights, source, starts, whole, whole), codegen


@_compiled([f"void({m}, {m}, {_PLACES}, float32[:,:,::1], float32[:,::1])" for m in _MAPS])
def gradient_of_weights(x, dy, winner, padded, dw):
    """x (N, 2H, 2W, C), dy and its winners (N, H, W, K) -> dw (C/32, K*3*3*32).

    `padded` (2H + 2, 2W + 2, 32) is room for a block of an image with a border, which has to be zero.
    """
    height, width, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    stride, flat, windows = (2 * width + 2) * BLOCK, padded.reshape(padded.size), height * width
    places = np.empty((windows, channels), np.int32)
    weights, starts = np.empty(windows + 1, np.float32), np.empty(windows + 1, np.int64)
    dw[:] = 0
    for n in range(x.shape[0]):
        gradients = dy[n].reshape((windows, channels))
        for i in range(height):
            for j in range(width):
                which, place = winner[n, i, j], places[i * width + j]
                corner = 2 * i * stride + 2 * j * BLOCK
                for k in range(channels):
                    place[k] = corner + np.int32(which[k] >> 1) * stride + np.int32(which[k] & 1) * BLOCK
        for block in range(dw.shape[0]):
            for i in range(x.shape[1]):
                for j in range(x.shape[2]):
                    source, target = x[n, i, j, block * BLOCK :], padded[i + 1, j + 1]
                    for c in range(BLOCK):
                        target[c] = _load(source[c])
            for k in range(channels):
                count = 0
                for t in range(windows):
                    g = _load(gradients[t, k])
                    weights[count], starts[count] = g, places[t, k]
                    count += g != 0  # else the next one takes its place
                for row in range(3):
                    goal = (3 * k + row) * _ROW
                    _add_rows(dw[block], goal, weights, flat, starts, row * stride, count)  # type: ignore[call-arg]


@_compiled([f"void({m}, {_PLACES}, float32[:,:,::1], float32[:,:,::1], {m})" for m in _MAPS])
def gradient_of_maps(dy, winner, w, padded, dx):
    """dy and its winners (N, H, W, K), w (C/32, 3, K*3*32) -> dx (N, 2H, 2W, C).

    `padded` (2H + 2, 2W + 2, 32) is room for a block of an image with a border.
    """
    height, width, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    stride = (2 * width + 2) * BLOCK
    flat = padded.reshape(padded.size)
    shape = (height * width, 4, channels + 1)  # for each window, by the place of the winner
    weights, starts = np.empty(shape, np.float32), np.empty(shape, np.int64)
    counts = np.empty((height * width, 4), np.int64)
    for n in range(dy.shape[0]):
        counts[:] = 0
        for i in range(height):
            for j in range(width):
                t = i * width + j
                gradient, which = dy[n, i, j], winner[n, i, j]
                for k in range(channels):
                    place, g = which[k], _load(gradient[k])
                    slot = counts[t, place]
                    weights[t, place, slot], starts[t, place, slot] = g, k * _ROW
                    counts[t, place] = slot + (g != 0)  # else the next one takes its place
        for block in range(w.shape[0]):
            flat[:] = 0
            for row in range(3):  # outermost, since one row of all patches fits into the first cache
                for i in range(height):
                    for j in range(width):
                        t = i * width + j
                        for p in range(4):
                            goal = (2 * i + (p >> 1) + row) * stride + (2 * j + (p & 1)) * BLOCK
                            lists = weights[t, p], w[block, row], starts[t, p], 0, counts[t, p]
                            _add_rows(flat, goal, *lists)  # type: ignore[call-arg]
            for i in range(dx.shape[1]):
                for j in range(dx.shape[2]):
                    source, target = padded[i + 1, j + 1], dx[n, i, j, block * BLOCK :]
                    for c in range(BLOCK):
                        target[c] = _store(source[c], target[c])
