"""The loops of `filters` and `moves`, compiled by Numba on one thread, as workers are forked.

A pixel is one number, of as many bytes as it has channels: four for RGB, of which the last is not used.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit

BITS = 22  # behind the point of a weight
BAND = 64  # lines that are turned at a time: few enough for the processor's cache
int32, uint8, uint32 = np.int32, np.uint8, np.uint32
Weights = tuple[np.ndarray, np.ndarray, np.ndarray]  # as of `weights`

# Without fastmath: the bits are to be Pillow's.
compiled: Any = partial(njit, cache=True, nogil=True, error_model="numpy")


# ---------------------------------------------------------------- filters: fixed point, columns before rows


@compiled
def _bicubic(x):
    """Keys' cubic with a = -1/2."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


@compiled
def weights(start: float, span: float, size: int, count: int, bicubic: bool) -> Weights:
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
                first, second = p * int32(a[j]) + q * int32(b[j]), r * int32(c[j]) + s * int32(d[j])
                sums[j] = int32(sums[j] + first + second)
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
            to[0], to[1], to[2], to[3] = a[x], b[x], c[x], d[x]
            to[4], to[5], to[6], to[7] = e[x], f[x], g[x], h[x]
    for y in range(whole, len(lines)):
        for x in range(lines.shape[1]):
            out[x, y] = lines[y, x]


@compiled
def resample(
    pixels: np.ndarray, left: int, top: int, columns: Weights, rows: Weights, out: np.ndarray
) -> None:
    """Filter pixels [h, w], of which the first is at (left, top), by the `weights` of both directions, into [H, W].

    Lines are combined number by number: columns are turned into lines for that, and back.
    """
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


# ---------------------------------------------------------------- moves: float64


@compiled
def _places(a, b, c, y, size, before, way, inside):
    """Of line y's pixels, along one axis: the pixel before ax + by + c, the way on from its middle, what is inside."""
    for x in range(len(before)):
        at = a * (x + 0.5) + b * (y + 0.5) + c
        inside[x] &= (at >= 0.0) & (at < size)
        at = min(max(at, 0.0), size) - 0.5
        before[x] = int32(np.floor(at))
        way[x] = at - np.floor(at)


@compiled
def _around(before, size, stride, out):
    """Return where the four pixels around each place begin, those beyond the edge at the edge: [4, W]."""
    for k in range(4):
        for x in range(len(before)):
            out[k, x] = int32(min(max(before[x] + k - 1, 0), size - 1) * stride)


@compiled
def _take(pixels, rows, columns, out):
    for i in range(len(out)):
        out[i] = pixels[rows[i] + columns[i]]


@compiled
def _cubic_of_pixels(pixels, shift, way, out):
    """Of one channel of each four pixels [4, W], the cubic between the middle two."""
    p, q, r, s = pixels[0], pixels[1], pixels[2], pixels[3]
    for i in range(len(out)):
        a, b = int32(p[i] >> shift & uint32(255)), int32(q[i] >> shift & uint32(255))
        c, d = int32(r[i] >> shift & uint32(255)), int32(s[i] >> shift & uint32(255))
        t = way[i]
        out[i] = b + t * (int32(c - a) + t * (int32(2 * (a - b) + c - d) + t * int32(b - a - c + d)))


@compiled
def _cubic_of_lines(lines, way, out):
    """The same of each four numbers [4, W]."""
    p, q, r, s = lines[0], lines[1], lines[2], lines[3]
    for i in range(len(out)):
        a, b, c, d, t = p[i], q[i], r[i], s[i], way[i]
        out[i] = b + t * ((c - a) + t * ((2 * (a - b) + c - d) + t * (((b - a) - c) + d)))


@compiled
def _cut(value):
    return uint32(int32(min(max(value, 0.0), 255.0)))


@compiled
def _join(red, green, blue, inside, fill, out):
    for i in range(len(out)):
        pixel = uint32(_cut(red[i]) | _cut(green[i]) << uint32(8) | _cut(blue[i]) << uint32(16))
        out[i] = pixel if inside[i] else fill


@compiled
def move(pixels: np.ndarray, matrix: tuple[float, ...], fill: np.uint32, out: np.ndarray) -> None:
    """Put at (x, y) of `out` what pixels [H, W] have at (ax + by + c, dx + ey + f), by the cubic among 4 x 4.

    Where one of the two is x or y itself, three of the four lines are multiplied by zero and left out.
    """
    height, width = pixels.shape
    flat = pixels.reshape(-1)
    a, b, c, d, e, f = matrix
    lefts, tops = np.empty(width, np.int32), np.empty(width, np.int32)
    right, down, inside = np.empty(width), np.empty(width), np.empty(width, np.bool_)
    columns, rows = np.empty((4, width), np.int32), np.empty((4, width), np.int32)
    near, lines, found = np.empty((4, width), pixels.dtype), np.empty((3, 4, width)), np.empty((3, width))
    across, along = d == 0.0 and e == 1.0 and f == 0.0, a == 1.0 and b == 0.0 and c == 0.0
    for y in range(height):
        inside[:] = True
        _places(a, b, c, y, float(width), lefts, right, inside)
        _places(d, e, f, y, float(height), tops, down, inside)
        _around(lefts, width, 1, columns)
        _around(tops, height, width, rows)
        if across or along:
            for k in range(4):
                _take(flat, rows[1 if across else k], columns[k if across else 1], near[k])
            for channel in range(3):
                _cubic_of_pixels(near, uint32(8 * channel), right if across else down, found[channel])
        else:
            for row in range(4):
                for k in range(4):
                    _take(flat, rows[row], columns[k], near[k])
                for channel in range(3):
                    _cubic_of_pixels(near, uint32(8 * channel), right, lines[channel, row])
            for channel in range(3):
                _cubic_of_lines(lines[channel], down, found[channel])
        _join(found[0], found[1], found[2], inside, fill, out[y])
