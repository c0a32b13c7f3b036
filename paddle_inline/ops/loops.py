"""The loops of `kernels`, compiled by Numba for the processor that runs them, over all cores.

Every array is the address of contiguous float32 numbers; those with a stride are some columns of wider ones. Results
do not depend on the number of threads: work is cut into blocks by its own size, and what blocks sum is added in their
order.

(Above 300 lines: one short loop after another, which share a few lines of arithmetic.)

M rows, C channels; I images of H x W with D numbers at each place, kernels of k x k; B batch, N tokens, h heads of d.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np
from numba import carray, njit, prange, types
from numba.extending import intrinsic

f = np.float32
BLOCK = 4096  # numbers of a block of element-wise work
ROWS = 64  # rows of a block whose sums are added up: few enough for float32, many enough to be quick
STRIP = 32  # rows and columns of a block that is transposed at a time

# Not a number and infinity are kept as they are: none of what Numba may assume here is about them.
compiled = partial(
    njit, parallel=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"}
)
exact = partial(njit, parallel=True, cache=True, error_model="numpy")  # every operation as it is written
inlined = partial(njit, cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """Take an address for that of float32 numbers."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _multiply_add(context: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once."""

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _float_of_bits(context: Any, bits: Any) -> Any:
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@inlined
def _array(address, shape):
    return carray(_pointer(address), shape)


@inlined
def _row(address, start, count):
    return carray(_pointer(address + 4 * start), (count,))


@inlined
def _exp(x):
    """e^x within 2 units of the last place; 0 below the smallest normal number, capped above the largest.

    2^n e^r with n the nearest integer to x / ln 2 and |r| <= ln(2) / 2, e^r by a polynomial (Cody and Waite, 1980).
    """
    held = min(max(x, f(-87.0)), f(88.0))
    n = (held * f(1.44269504) + f(12582912.0)) - f(
        12582912.0
    )  # to the nearest integer: 1.5 * 2^23 leaves no fraction
    r = (held - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4) * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    power = (p * r * r + r + f(1.0)) * _float_of_bits((numba.int32(n) + numba.int32(127)) << numba.int32(23))
    return (power if x >= f(-87.0) else f(0.0)) if x == x else x


@njit(inline="always")
def _normal(x, bell):
    """The standard normal distribution up to x, given bell = exp(-x^2 / 2).

    bell t P(t) / 2 with t = 1 / (1 + 0.35 |x|) is its tail; P was fitted to the scaled complementary error function by
    least squares, to 4e-8 of it.
    """
    t = f(1.0) / (f(1.0) + f(0.35) * abs(x))
    p = f(-0.0295607037) * t + f(0.145931365)
    p = p * t + f(-0.25962625)
    p = p * t + f(0.163466822)
    p = p * t + f(-0.0259295061)
    p = p * t + f(0.106638066)
    p = p * t + f(0.119564268)
    p = p * t + f(0.139896338)
    p = p * t + f(0.139619582)
    tail = p * t * bell
    return f(1.0) - tail if x > f(0.0) else tail


@njit(inline="always")
def _gelu(x):
    return x * _normal(x, _exp(f(-0.5) * x * x))


@njit(inline="always")
def _gelu_slope(x):
    bell = _exp(f(-0.5) * x * x)
    return _normal(x, bell) + x * f(0.398942280) * bell


@njit(inline="always")
def _tanh_gelu(x):
    """x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    power = f(-1.59576912) * (x + f(0.044715) * x * x * x)
    return f(0.0) if power > f(80.0) else x / (f(1.0) + _exp(power))


@njit(inline="always")
def _tanh_gelu_slope(x):
    power = f(-1.59576912) * (x + f(0.044715) * x * x * x)
    if abs(power) > f(80.0):
        return f(0.0) if power > f(0.0) else f(1.0)
    rest = _exp(power)
    s = f(1.0) / (f(1.0) + rest)
    return s + x * s * (rest * s) * f(1.59576912) * (f(1.0) + f(0.134145) * x * x)


@compiled
def gelu(x, out, size, tanh):
    a, b = _array(x, (size,)), _array(out, (size,))
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, end = block * BLOCK, min(size, (block + 1) * BLOCK)
        if tanh:
            for i in range(start, end):
                b[i] = _tanh_gelu(a[i])
        else:
            for i in range(start, end):
                b[i] = _gelu(a[i])


@compiled
def gelu_backward(x, grad, out, size, tanh):
    a, g, b = _array(x, (size,)), _array(grad, (size,)), _array(out, (size,))
    for block in prange((size + BLOCK - 1) // BLOCK):
        start, end = block * BLOCK, min(size, (block + 1) * BLOCK)
        if tanh:
            for i in range(start, end):
                b[i] = g[i] * _tanh_gelu_slope(a[i])
        else:
            for i in range(start, end):
                b[i] = g[i] * _gelu_slope(a[i])


@compiled
def gelu_of_sum(x, bias, out, rows, channels):
    """[M, C], [C] -> the exact GELU of their sum."""
    a, o, b = _array(x, (rows, channels)), _array(out, (rows, channels)), _array(bias, (channels,))
    for row in prange(rows):
        for c in range(channels):
            o[row, c] = _gelu(a[row, c] + b[c])


@compiled
def gelu_of_sum_backward(x, bias, grad, biases, rows, channels):
    """The gradient of x is written over `grad`."""
    a, g, b = _array(x, (rows, channels)), _array(grad, (rows, channels)), _array(bias, (channels,))
    blocks = (rows + ROWS - 1) // ROWS
    parts = np.zeros((blocks, channels), np.float32)
    for block in prange(blocks):
        part = parts[block]
        for row in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            for c in range(channels):
                g[row, c] *= _gelu_slope(a[row, c] + b[c])
            for c in range(channels):
                part[c] += g[row, c]
    _add_up(parts, _array(biases, (channels,)))


@compiled
def layer_norm(x, weight, bias, out, moments, rows, channels, epsilon):
    """moments [2, M]: each row's mean and 1 / standard deviation."""
    a, o, m = _array(x, (rows, channels)), _array(out, (rows, channels)), _array(moments, (2, rows))
    w, b = _array(weight, (channels,)), _array(bias, (channels,))
    for row in prange(rows):
        mean = f(0.0)
        for c in range(channels):
            mean += a[row, c]
        mean /= f(channels)
        variance = f(0.0)
        for c in range(channels):
            variance += (a[row, c] - mean) * (a[row, c] - mean)
        scale = f(1.0) / np.sqrt(variance / f(channels) + f(epsilon))
        for c in range(channels):
            o[row, c] = (a[row, c] - mean) * scale * w[c] + b[c]
        m[0, row], m[1, row] = mean, scale


@compiled
def layer_norm_backward(x, weight, moments, grad, along, weights, biases, rows, channels):
    a, g, d = _array(x, (rows, channels)), _array(grad, (rows, channels)), _array(along, (rows, channels))
    w, m = _array(weight, (channels,)), _array(moments, (2, rows))
    blocks = (rows + ROWS - 1) // ROWS
    parts = np.zeros((blocks, 2, channels), np.float32)
    for block in prange(blocks):
        for row in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            mean, scale = m[0, row], m[1, row]
            first, second = f(0.0), f(0.0)
            for c in range(channels):
                normed, weighted = (a[row, c] - mean) * scale, g[row, c] * w[c]
                first += weighted
                second += weighted * normed
                parts[block, 0, c] += g[row, c] * normed
                parts[block, 1, c] += g[row, c]
            first, second = first / f(channels), second / f(channels)
            for c in range(channels):
                d[row, c] = scale * (g[row, c] * w[c] - first - (a[row, c] - mean) * scale * second)
    _add_up(parts[:, 0], _array(weights, (channels,)))
    _add_up(parts[:, 1], _array(biases, (channels,)))


@inlined
def _add_up(parts, total):
    """Sum over the first dimension, [blocks, C] -> [C], in blocks of blocks, over what they were."""
    count = parts.shape[0]
    while count > 1:
        blocks = (count + ROWS - 1) // ROWS
        for block in range(blocks):
            for part in range(block * ROWS, min(count, (block + 1) * ROWS)):
                for c in range(parts.shape[1]):
                    parts[block, c] = parts[part, c] + (parts[block, c] if part > block * ROWS else f(0.0))
        count = blocks
    for c in range(parts.shape[1]):
        total[c] = parts[0, c]


@compiled
def sum_rows(x, out, groups, rows, channels, factor):
    """[G, M, C] -> [G, C], times a factor."""
    a, o = _array(x, (groups, rows, channels)), _array(out, (groups, channels))
    blocks = (rows + ROWS - 1) // ROWS
    parts = np.zeros((groups, blocks, channels), np.float32)
    for task in prange(groups * blocks):
        group, block = task // blocks, task % blocks
        part = parts[group, block]
        for row in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            for c in range(channels):
                part[c] += a[group, row, c]
    for group in prange(groups):
        _add_up(parts[group], o[group])
        for c in range(channels):
            o[group, c] *= f(factor)


@compiled
def add_row(x, row, out, groups, rows, channels, row_factor, factor):
    """([G, M, C] + row_factor [G, 1, C]) factor -> [G, M, C]."""
    a, o = _array(x, (groups, rows, channels)), _array(out, (groups, rows, channels))
    r = _array(row, (groups, channels))
    step = max(1, BLOCK // channels)
    blocks = (rows + step - 1) // step
    for task in prange(groups * blocks):
        group, block = task // blocks, task % blocks
        added = r[group]
        for i in range(block * step, min(rows, (block + 1) * step)):
            for c in range(channels):
                o[group, i, c] = (a[group, i, c] + f(row_factor) * added[c]) * f(factor)


@compiled
def centre_rows(x, out, groups, rows, channels, factor):
    """(x - its mean row) factor: [G, M, C] -> [G, M, C]."""
    a, o = _array(x, (groups, rows, channels)), _array(out, (groups, rows, channels))
    blocks = (rows + ROWS - 1) // ROWS
    for group in prange(groups):
        parts, mean = np.zeros((blocks, channels), np.float32), np.empty(channels, np.float32)
        for block in range(blocks):
            for row in range(block * ROWS, min(rows, (block + 1) * ROWS)):
                for c in range(channels):
                    parts[block, c] += a[group, row, c]
        _add_up(parts, mean)
        for c in range(channels):
            mean[c] /= f(rows)
        for row in range(rows):
            for c in range(channels):
                o[group, row, c] = (a[group, row, c] - mean[c]) * f(factor)


@compiled
def repeat_row(row, out, groups, rows, channels, factor):
    """[G, 1, C] factor -> [G, M, C]."""
    r, o = _array(row, (groups, channels)), _array(out, (groups, rows, channels))
    blocks = (rows + ROWS - 1) // ROWS
    for task in prange(groups * blocks):
        group, block = task // blocks, task % blocks
        for i in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            for c in range(channels):
                o[group, i, c] = r[group, c] * f(factor)


@compiled
def copy_columns(parts, starts, whole, rows, columns, join):
    """Parts of [M, columns] from `starts` on, side by side: from the whole to them, or back (`join`)."""
    for row in prange(rows):
        for part in range(len(parts)):
            width = starts[part + 1] - starts[part]
            own = _row(parts[part], row * width, width)
            there = _row(whole, row * columns + starts[part], width)
            if join:
                for c in range(width):
                    there[c] = own[c]
            else:
                for c in range(width):
                    own[c] = there[c]


@compiled
def move_heads(parts, strides, heads, onto, images, rows, columns, height, width, num_heads, channels, merge):
    """Tokens [B, N, h d] of a grid to heads [B * windows, h, n, d] in each of its windows, or back (`merge`).

    Args:
        parts, strides, heads: where each part's tokens begin, how far one lies from the next, where its heads begin.
        onto: tokens [B, N, h d] that are added to the last part's, side by side; 0: none.
        rows, columns: of windows; height, width: of a window; channels: d.
    """
    windows, tokens = rows * columns, height * width
    for task in prange(len(parts) * images * windows * height):
        part, rest = task // (images * windows * height), task % (images * windows * height)
        cut, y = rest // height, rest % height
        image, r, column = cut // windows, cut % windows // columns, cut % columns
        for x in range(width):
            token = (image * rows * height + r * height + y) * columns * width + column * width + x
            line = _row(parts[part], token * strides[part], num_heads * channels)
            for head in range(num_heads):
                place = ((cut * num_heads + head) * tokens + y * width + x) * channels
                own, there = line[head * channels : (head + 1) * channels], _row(heads[part], place, channels)
                if not merge:
                    for c in range(channels):
                        there[c] = own[c]
                elif onto == 0 or part < len(parts) - 1:
                    for c in range(channels):
                        own[c] = there[c]
                else:
                    more = _row(onto, (token * num_heads + head) * channels, channels)
                    for c in range(channels):
                        own[c] = there[c] + more[c]


@compiled
def square_sums(addresses, sizes, out):
    """The sum of the squares of each tensor, in float64."""
    for i in prange(len(addresses)):
        a, total = _array(addresses[i], (sizes[i],)), 0.0
        for start in range(0, sizes[i], BLOCK):
            part = f(0.0)
            for j in range(start, min(sizes[i], start + BLOCK)):
                part += a[j] * a[j]
            total += part
        out[i] = total


@compiled
def scale(addresses, sizes, factor_at):
    """Multiply tensors in place by the number in `factor`, of which only what is not 1 does anything."""
    factor = _array(factor_at, (1,))
    if factor[0] != f(1.0):
        for i in prange(len(addresses)):
            a = _array(addresses[i], (sizes[i],))
            for j in range(sizes[i]):
                a[j] *= factor[0]


@exact
def adamw(
    weights, grads, firsts, seconds, powers1, powers2, sizes, rate_at, go_at, beta1, beta2, epsilon, decay
):
    """A step of AdamW where `go` is not 0, by the operations of Paddle's kernel; each list has a place per tensor."""
    rate, go = _array(rate_at, (1,))[0], _array(go_at, (1,))[0]
    b1, b2 = f(beta1), f(beta2)
    rest1, rest2, shrink = f(1.0) - b1, f(1.0) - b2, rate * f(decay)
    count = len(sizes) if go != f(0.0) else 0  # (a condition in `prange` itself would leave one core to it)
    for i in prange(count):
        w, g = _array(weights[i], (sizes[i],)), _array(grads[i], (sizes[i],))
        m, v = _array(firsts[i], (sizes[i],)), _array(seconds[i], (sizes[i],))
        p1, p2 = _array(powers1[i], (1,)), _array(powers2[i], (1,))
        root = np.sqrt(f(1.0) - p2[0])
        step, floor = rate * (root / (f(1.0) - p1[0])), f(epsilon) * root
        for j in range(sizes[i]):
            first = _multiply_add(m[j], b1, rest1 * g[j])
            second = _multiply_add(v[j], b2, rest2 * (g[j] * g[j]))
            m[j], v[j] = first, second
            kept = _multiply_add(w[j], -shrink, w[j])
            w[j] = _multiply_add(first / (np.sqrt(second) + floor), -step, kept)
        p1[0] *= b1
        p2[0] *= b2


@compiled
def softmax(x, out, rows, channels, factor):
    a, o = _array(x, (rows, channels)), _array(out, (rows, channels))
    for row in prange(rows):
        largest = f(factor) * a[row, 0]
        for c in range(channels):
            largest = max(largest, f(factor) * a[row, c])
        total = f(0.0)
        for c in range(channels):
            power = _exp(f(factor) * a[row, c] - largest)
            o[row, c] = power
            total += power
        total = f(1.0) / total
        for c in range(channels):
            o[row, c] *= total


@compiled
def softmax_backward(y, grad, out, rows, channels, factor):
    a, g, o = _array(y, (rows, channels)), _array(grad, (rows, channels)), _array(out, (rows, channels))
    for row in prange(rows):
        mean = f(0.0)
        for c in range(channels):
            mean += a[row, c] * g[row, c]
        for c in range(channels):
            o[row, c] = f(factor) * a[row, c] * (g[row, c] - mean)


@compiled
def gaussian(a, b, product, groups, rows, columns, width):
    """exp(min(a_i . b_j - |a_i|^2 / 2 - |b_j|^2 / 2, 0)) over the products: [G, N, d], [G, M, d], [G, N, M]."""
    p, q = _array(a, (groups, rows, width)), _array(b, (groups, columns, width))
    o = _array(product, (groups, rows, columns))
    for group in prange(groups):
        norms = np.empty(columns, np.float32)
        for j in range(columns):
            norms[j] = _half_square(q[group, j])
        for i in range(rows):
            norm = _half_square(p[group, i])
            for j in range(columns):
                o[group, i, j] = _exp(min(o[group, i, j] - norm - norms[j], f(0.0)))


@inlined
def _half_square(x):
    total = f(0.0)
    for i in range(len(x)):
        total += x[i] * x[i]
    return f(0.5) * total


@compiled
def gaussian_backward(a, b, y, grad, slope, along_a, along_b, groups, rows, columns, width):
    """slope [G, N, M], the gradient of the products; of a [G, N, d] and b [G, M, d] through their norms alone."""
    p, q = _array(a, (groups, rows, width)), _array(b, (groups, columns, width))
    o, g = _array(y, (groups, rows, columns)), _array(grad, (groups, rows, columns))
    s = _array(slope, (groups, rows, columns))
    p_slope, q_slope = _array(along_a, (groups, rows, width)), _array(along_b, (groups, columns, width))
    blocks = (rows + ROWS - 1) // ROWS
    for group in prange(groups):
        parts, sums = np.zeros((blocks, columns), np.float32), np.empty(columns, np.float32)
        for block in range(blocks):
            for i in range(block * ROWS, min(rows, (block + 1) * ROWS)):
                for j in range(columns):
                    value = o[group, i, j]
                    s[group, i, j] = g[group, i, j] * value if value != f(1.0) else f(0.0)
                total = f(0.0)
                for j in range(columns):
                    total += s[group, i, j]
                    parts[block, j] += s[group, i, j]
                for c in range(width):
                    p_slope[group, i, c] = -total * p[group, i, c]
        _add_up(parts, sums)
        for j in range(columns):
            for c in range(width):
                q_slope[group, j, c] = -sums[j] * q[group, j, c]


@compiled
def swap(x, out, outer, first, second, inner):
    """[A, M, N, D] -> [A, N, M, D]."""
    a, o = _array(x, (outer, first, second, inner)), _array(out, (outer, second, first, inner))
    if inner > 1:
        for task in prange(outer * second):
            i, n = task // second, task % second
            for m in range(first):
                for c in range(inner):
                    o[i, n, m, c] = a[i, m, n, c]
    else:
        strips = (second + STRIP - 1) // STRIP
        for task in prange(outer * strips):
            i, start = task // strips, task % strips * STRIP
            for block in range(0, first, STRIP):
                for n in range(start, min(second, start + STRIP)):
                    for m in range(block, min(first, block + STRIP)):
                        o[i, n, m, 0] = a[i, m, n, 0]


@compiled
def add_channels(x, bias, out, images, channels, places):
    """[B, C, H * W] + [C] -> [B, C, H * W]."""
    a, o, b = (
        _array(x, (images * channels, places)),
        _array(out, (images * channels, places)),
        _array(bias, (channels,)),
    )
    for plane in prange(images * channels):
        for i in range(places):
            o[plane, i] = a[plane, i] + b[plane % channels]


@compiled
def sum_channels(x, out, images, channels, places):
    """[B, C, H * W] -> [C]."""
    a, o = _array(x, (images, channels, places)), _array(out, (channels,))
    for c in prange(channels):
        o[c] = f(0.0)
        for image in range(images):
            part = f(0.0)
            for i in range(places):
                part += a[image, c, i]
            o[c] += part


@inlined
def _spread(kernel, width, turned, out):
    """One image's filters [k * k, D] -> for every place of a row, [k * k, W * D]; turned: last tap first."""
    taps, channels = kernel.shape
    for tap in range(taps):
        for place in range(width):
            part, source = (
                out[tap, place * channels : (place + 1) * channels],
                kernel[taps - 1 - tap if turned else tap],
            )
            for c in range(channels):
                part[c] = source[c]


@inlined
def _taps(tap, side, y, height, width, channels):
    """What a filter's tap sees of row y: (row, first number of the output, of the input, how many); 0 outside."""
    at, step = y + tap // side - side // 2, tap % side - side // 2
    if at < 0 or at >= height:
        return 0, 0, 0, 0
    return at, max(0, -step) * channels, max(0, step) * channels, max(0, width - abs(step)) * channels


@inlined
def _read(address, token, stride, width, channels, out):
    """Copy a row of a window, `width` tokens of which one lies `stride` numbers from the next."""
    for place in range(width):
        part, source = (
            out[place * channels : (place + 1) * channels],
            _row(address, (token + place) * stride, channels),
        )
        for c in range(channels):
            part[c] = source[c]


@inlined
def _write(line, onto, onto_stride, address, stride, token, width, channels):
    """Copy a row of a window to where it stands, and add what stands there in `onto`, if there is one."""
    for place in range(width):
        part = line[place * channels : (place + 1) * channels]
        out = _row(address, (token + place) * stride, channels)
        if onto == 0:
            for c in range(channels):
                out[c] = part[c]
        else:
            more = _row(onto, (token + place) * onto_stride, channels)
            for c in range(channels):
                out[c] = more[c] + part[c]


@inlined
def _first_token(window, images, rows, columns, height, width, prefix):
    """Where a window begins: (its image's first token, its own first, from one of its rows to the next)."""
    image, r, column = window // (rows * columns), window % (rows * columns) // columns, window % columns
    start = image * (prefix + rows * height * columns * width)
    return start, start + prefix + r * height * columns * width + column * width, columns * width


@compiled
def filter_channels(
    x,
    kernels,
    bias,
    onto,
    out,
    stride,
    onto_stride,
    out_stride,
    images,
    rows,
    columns,
    height,
    width,
    channels,
    prefix,
    side,
    groups,
    turned,
):
    """Filter each channel, zero padded at the border of each window: [B, P + N, D], [G, k * k, D] -> [B, P + N, D].

    Args:
        bias: [D]; onto: [B, P + N, D] that is added; 0: none. The P tokens before the grid are 0, plus that.
        stride: from one token of x to the next; onto_stride, out_stride: of theirs.
        rows, columns: of windows in the grid; height, width: of a window.
        groups: window i is filtered by those of i mod G; turned: by what makes the output's gradient the input's.
    """
    row, half = width * channels, side // 2
    w = _array(kernels, (groups, side * side, channels))
    for window in prange(images * rows * columns):
        spread = np.empty((side * side, row), np.float32)
        _spread(w[window % groups], width, turned, spread)
        seen, line = np.empty((side, row), np.float32), np.empty(row, np.float32)  # row y of x is at y mod k
        start, first_token, step = _first_token(window, images, rows, columns, height, width, prefix)
        if first_token == start + prefix:
            zeros = np.zeros(channels, np.float32)
            for token in range(start, start + prefix):
                _write(zeros, onto, onto_stride, out, out_stride, token, 1, channels)
        for y in range(min(half, height)):
            _read(x, first_token + y * step, stride, width, channels, seen[y % side])
        for y in range(height):
            if y + half < height:
                _read(x, first_token + (y + half) * step, stride, width, channels, seen[(y + half) % side])
            if bias == 0:
                for i in range(row):
                    line[i] = f(0.0)
            else:
                _read(bias, 0, 0, width, channels, line)
            for tap in range(side * side):
                at, first, begin, count = _taps(tap, side, y, height, width, channels)
                if count == 0:
                    continue
                part, source = line[first : first + count], seen[at % side, begin : begin + count]
                factors = spread[tap, first : first + count]
                for i in range(count):
                    part[i] += factors[i] * source[i]
            _write(line, onto, onto_stride, out, out_stride, first_token + y * step, width, channels)


@compiled
def filter_channels_backward(
    x, grad, out, stride, grad_stride, images, rows, columns, height, width, channels, prefix, side
):
    """The filters' gradient for each window of `filter_channels`: [B, P + N, D] twice -> [I, k * k, D]."""
    row, half = width * channels, side // 2
    o = _array(out, (images * rows * columns, side * side, channels))
    for window in prange(images * rows * columns):
        sums, seen = np.zeros((side * side, row), np.float32), np.empty((side, row), np.float32)
        line = np.empty(row, np.float32)
        _, first_token, step = _first_token(window, images, rows, columns, height, width, prefix)
        for y in range(min(half, height)):
            _read(x, first_token + y * step, stride, width, channels, seen[y % side])
        for y in range(height):
            if y + half < height:
                _read(x, first_token + (y + half) * step, stride, width, channels, seen[(y + half) % side])
            _read(grad, first_token + y * step, grad_stride, width, channels, line)
            for tap in range(side * side):
                at, first, begin, count = _taps(tap, side, y, height, width, channels)
                if count == 0:
                    continue
                part, source = line[first : first + count], seen[at % side, begin : begin + count]
                total = sums[tap, first : first + count]
                for i in range(count):
                    total[i] += part[i] * source[i]
        for tap in range(side * side):
            total = o[window, tap]
            total[:] = f(0.0)
            for place in range(width):
                part = sums[tap, place * channels : (place + 1) * channels]
                for c in range(channels):
                    total[c] += part[c]


@compiled
def cut_patches(x, out, images, channels, height, width, side, stride, padding, rows, columns):
    """What a convolution sees from each place, zero padded: [B, C, H, W] -> [B, rows * columns, C * k * k]."""
    a = _array(x, (images, channels, height, width))
    o = _array(out, (images, rows, columns, channels, side, side))
    for task in prange(images * rows):
        image, row = task // rows, task % rows
        for column in range(columns):
            left = column * stride - padding
            first, last = max(0, -left), min(side, width - left)
            for c in range(channels):
                for y in range(side):
                    line, at = o[image, row, column, c, y], row * stride + y - padding
                    if 0 <= at < height:
                        source = a[image, c, at]
                        for z in range(side):
                            line[z] = source[left + z] if first <= z < last else f(0.0)
                    else:
                        line[:] = f(0.0)


@compiled
def join_patches(grad, out, images, channels, height, width, side, stride, padding, rows, columns):
    """The gradient of `cut_patches`' images: [B, rows * columns, C * k * k] -> [B, C, H, W]."""
    g = _array(grad, (images, rows, columns, channels, side, side))
    o = _array(out, (images, channels, height, width))
    for image in prange(images):
        o[image] = f(0.0)
        for row in range(rows):
            for column in range(columns):
                left = column * stride - padding
                first, last = max(0, -left), min(side, width - left)
                for c in range(channels):
                    for y in range(side):
                        at = row * stride + y - padding
                        if 0 <= at < height:
                            line, source = o[image, c, at], g[image, row, column, c, y]
                            for z in range(first, last):
                                line[left + z] += source[z]
