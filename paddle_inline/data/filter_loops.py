"""The loops of `filters`, compiled by Numba on one thread, as workers are forked.

Pillow's filters in fixed point: weights are computed in float64 and held as multiples of 2^-22, sums are rounded to the
nearest and cut to 0..255, columns before rows. A pixel is one number, of as many bytes as it has channels (RGB: four,
one unused); lines are combined number by number, for which columns are turned into lines and back.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numba import njit

BITS = 22  # behind the point of a weight
BAND = 64  # lines that are turned at a time: few enough for the processor's cache
int32, uint8 = np.int32, np.uint8

compiled = partial(njit, cache=True, nogil=True, error_model="numpy")  # no fastmath: the bits are to be Pillow's


@compiled
def _bicubic(x):
    """Keys' cubic with a = -1/2."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


@compiled
def weights(start, span, size, count, bicubic):
    """Return what each of `count` places on a line of `size` pixels is made of.

    Args:
        start, span: the part of the line that the places share, in pixels.
        bicubic: else bilinear.

    Returns:
        The first pixel [count] and how many [count]; their weights [count, K], of which the rest is 0.
    """
    scale = span / count
    wide = max(scale, 1.0)
    reach = wide * (2.0 if bicubic else 1.0)
    firsts, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    most = int(np.ceil(reach)) * 2 + 2
    found, values = np.zeros((count, most), np.int32), np.empty(most)
    for i in range(count):
        middle = start + (i + 0.5) * scale
        first = max(int(middle - reach + 0.5), 0)
        n = min(int(middle + reach + 0.5), size) - first
        total = 0.0
        for k in range(n):
            x = (k + first - middle + 0.5) * (1.0 / wide)
            values[k] = _bicubic(x) if bicubic else max(1.0 - abs(x), 0.0)
            total += values[k]
        for k in range(n):
            value = values[k] / total if total != 0.0 else values[k]
            value *= 1 << BITS
            found[i, k] = int(value - 0.5) if value < 0 else int(value + 0.5)
        firsts[i], counts[i] = first, n
    return firsts, counts, found


@compiled
def _combine(lines, base, firsts, counts, factors, out):
    """Make each line of `out` [N, L] of those of `lines` [M, L], both uint8, whose first is number `base`."""
    sums = np.empty(lines.shape[1], np.int32)
    last = len(lines) - 1
    for i in range(len(firsts)):
        sums[:] = 1 << (BITS - 1)
        k = 0
        while k + 4 <= counts[i]:
            at = firsts[i] - base + k
            a, b, c, d = lines[at], lines[at + 1], lines[at + 2], lines[at + 3]
            p, q, r, s = factors[i, k], factors[i, k + 1], factors[i, k + 2], factors[i, k + 3]
            for j in range(len(sums)):
                sums[j] = int32(sums[j] + p * int32(a[j]) + q * int32(b[j]) + r * int32(c[j]) + s * int32(d[j]))
            k += 4
        while k < counts[i]:
            at = firsts[i] - base + k
            a, b = lines[at], lines[min(at + 1, last)]  # whose weight is 0 where it is one too many
            p, q = factors[i, k], factors[i, k + 1]
            for j in range(len(sums)):
                sums[j] = int32(sums[j] + p * int32(a[j]) + q * int32(b[j]))
            k += 2
        line = out[i]
        for j in range(len(sums)):
            line[j] = uint8(min(max(sums[j] >> BITS, 0), 255))


@compiled
def _turn(lines, out):
    """[M, N] -> [N, M], eight lines at a time: what is written lies together."""
    whole = len(lines) // 8 * 8
    for y in range(0, whole, 8):
        a, b, c, d = lines[y], lines[y + 1], lines[y + 2], lines[y + 3]
        e, f, g, h = lines[y + 4], lines[y + 5], lines[y + 6], lines[y + 7]
        for x in range(lines.shape[1]):
            to = out[x, y : y + 8]
            to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7] = a[x], b[x], c[x], d[x], e[x], f[x], g[x], h[x]
    for y in range(whole, len(lines)):
        for x in range(lines.shape[1]):
            out[x, y] = lines[y, x]


@compiled
def resample(pixels, left, top, columns, rows, out):
    """Filter pixels [h, w], of which the first is at (left, top), by the `weights` of both directions: [H, W]."""
    height, width = pixels.shape
    across = len(columns[0])
    between = np.empty((height, across), pixels.dtype)
    for start in range(0, height, BAND):
        band = pixels[start : start + BAND]
        turned = np.empty((width, len(band)), pixels.dtype)
        _turn(band, turned)
        found = np.empty((across, len(band)), pixels.dtype)
        _combine(turned.view(np.uint8), left, columns[0], columns[1], columns[2], found.view(np.uint8))
        _turn(found, between[start : start + BAND])
    _combine(between.view(np.uint8), top, rows[0], rows[1], rows[2], out.view(np.uint8))
