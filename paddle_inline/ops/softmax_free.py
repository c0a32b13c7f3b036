"""Softmax-free attention with a Gaussian kernel and landmarks (SOFT, NeurIPS 2021; SOFT-Norm, IJCV 2024).

B batch, h heads, N tokens, m landmarks, d head width.

    K1 = kappa(q, l)  [N, m]     K2 = kappa(l, l)  [m, m]     kappa(a, b) = exp(-|a - b|^2 / 2)
    out = K1 inv(K2) K1^T v                                    O(N m d), linear in N for a fixed m

`inv` is twenty steps of Newton's iteration V <- 2 V - V P V, which need not have converged then:
`inverse_residual` measures how far it came. All of it runs in float32 at least, whatever autocasting says.
"""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from . import eager, eager_filters, kernels
from .tokens import Size, subtract_row

RIDGE = 0.01  # what SOFT adds to the kernel's diagonal
NEWTON_STEPS = 20
MAX_HALVINGS = 10


def head_images(x: Tensor, size: Size) -> Tensor:
    """[B, h, N, d] -> [B * h, d, H, W]: each head as an image of d channels."""
    return x.transpose([0, 1, 3, 2]).reshape([-1, x.shape[3], size[0], size[1]])


def heads_of_images(x: Tensor, num_heads: int) -> Tensor:
    """Tokens [B * h, m, d] of `head_images` -> [B, h, m, d]."""
    return x.reshape([-1, num_heads, x.shape[1], x.shape[2]])


def filter_heads(filter: Callable[[Tensor], Tensor], x: Tensor, size: Size) -> Tensor:
    """Run `filter` over [B, h, N, d] seen as images whose channels are the heads, one for each of the d."""
    _, num_heads, num_tokens, head_dim = x.shape
    if eager.suits(x) and _is_filter(filter, x):
        weight = filter.weight  # type: ignore[attr-defined]
        taps = weight.expand([num_heads, head_dim, *weight.shape[2:]])
        return eager_filters.filter_tokens(x.reshape([-1, num_tokens, head_dim]), taps, None, size).reshape(
            x.shape
        )
    images = x.transpose([0, 3, 1, 2]).reshape([-1, num_heads, size[0], size[1]])  # [B * d, h, H, W]
    return filter(images).reshape([-1, head_dim, num_heads, num_tokens]).transpose([0, 2, 3, 1])


def _is_filter(filter, x):
    """Whether `kernels` does what a layer does to each head."""
    weight = getattr(filter, "weight", None)
    return (
        weight is not None
        and getattr(filter, "bias", None) is None
        and weight.shape[-1] % 2 == 1
        and eager.is_plain_convolution(filter)
        and kernels.takes(x, weight)
    )


def gaussian_kernel(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a_i - b_j|^2 / 2): [B, h, N, d], [B, h, m, d] -> [B, h, N, m], every entry in (0, 1].

    One matrix product; no N x m x d tensor exists. Only differences matter, so both sides are first
    moved to where b lies: |a|^2 + |b|^2 - 2 a.b would otherwise lose the digits that a common offset
    takes up. What rounding leaves below a squared distance of 0 is put back to 0.
    """
    centre = b.mean(axis=2, keepdim=True).detach()
    a, b = subtract_row(a, centre), subtract_row(b, centre)
    if eager.suits(a) and kernels.takes(a, b):
        return eager.gaussian(a, b)
    half_norms_a = 0.5 * (a * a).sum(axis=3, keepdim=True)  # [B, h, N, 1]
    half_norms_b = 0.5 * (b * b).sum(axis=3).unsqueeze(2)  # [B, h, 1, m]
    exponent = subtract_row(paddle.matmul(a, b, transpose_y=True) - half_norms_a, half_norms_b)
    return paddle.exp(paddle.clip(exponent, max=0.0))


def newton_inverse(kernel: Tensor) -> Tensor:
    """Return SOFT's inverse of P = kernel + 0.01 I: [B, h, m, m] -> [B, h, m, m].

    The iteration starts at V = alpha P, alpha = 1.8 / (the kernel's largest row sum)^2 for each matrix.
    Its gradient is the true inverse's, -V^T G V^T, taken at the V that was reached.
    """
    if paddle.in_dynamic_mode():
        return eager.once(_NewtonInverse.apply(kernel))
    return _newton_inverse(kernel)


def _newton_inverse(kernel):
    matrix = kernel + RIDGE * paddle.eye(kernel.shape[3], dtype=kernel.dtype)
    largest = _largest(kernel.sum(axis=3, keepdim=True), [2])  # [B, h, 1, 1]
    return _newton(matrix, 1.8 * paddle.reciprocal(largest**2) * matrix)  # paddle2onnx knows no 1.8 / tensor


class _NewtonInverse(PyLayer):
    @staticmethod
    def forward(ctx, kernel):
        inverse = _newton_inverse(kernel)
        ctx.save_for_backward(kernel, inverse.detach())  # as in eager's `_Softmax`
        return inverse

    @staticmethod
    def backward(ctx, grad):
        kernel, inverse = ctx.saved_tensor()
        if paddle.is_grad_enabled():
            inverse = newton_inverse(kernel)
        grad = paddle.matmul(inverse, grad, transpose_x=True)
        return -paddle.matmul(grad, inverse, transpose_y=True)


def normalised_newton_inverse(kernel: Tensor, per_matrix_alpha: bool = False) -> Tensor:
    """Return SOFT-Norm's inverse of the kernel, symmetrically normalised: [B, h, m, m] -> [B, h, m, m].

    The iteration starts at V = alpha kernel, alpha = 2 / (largest row sum)^2, halved while the largest column
    sum of |I - kernel V| exceeds 1.01, at most ten times. Both maxima are taken over the whole tensor, so
    a sample's result depends slightly on its batch; with `per_matrix_alpha` over each matrix, so it does
    not. Entry ij of the result is divided by sqrt(row sum i * row sum j) of the kernel. The gradient
    is the unrolled one; only the number of halvings is a constant.

    The bound of 1.01 lets a start at the very edge of convergence pass: the kernel of landmarks that are
    all far apart, the identity, is "inverted" to nearly 0.
    """
    row_sums = kernel.sum(axis=3, keepdim=True)  # [B, h, m, 1]
    over = [2, 3] if per_matrix_alpha else [0, 1, 2, 3]
    alpha = 2.0 * paddle.reciprocal(_largest(row_sums, over) ** 2)
    alpha = alpha * _halvings(kernel.detach(), alpha.detach(), over)
    inverse = _newton(kernel, alpha * kernel)
    scale = paddle.rsqrt(row_sums)
    return inverse * scale * scale.transpose([0, 1, 3, 2])


def _halvings(kernel: Tensor, alpha: Tensor, over: list[int]) -> Tensor:
    """Return the power of 1/2 that `alpha` needs, as a tensor of alpha's shape.

    A loop of fixed length that stops changing: it can be traced and waits for no number from the device.
    Halving is exact, so the product is taken once.
    """
    square = paddle.matmul(kernel, kernel)
    eye = paddle.eye(kernel.shape[3], dtype=kernel.dtype)
    factor = paddle.ones_like(alpha)
    for _ in range(MAX_HALVINGS):
        column_sums = (eye - factor * alpha * square).abs().sum(axis=2, keepdim=True)
        too_large = _largest(column_sums, over) > 1.01
        factor = paddle.where(too_large, 0.5 * factor, factor)
    return factor


def _largest(x: Tensor, axis: list[int]) -> Tensor:
    """Return the maximum over some axes, which stay. Eagerly by `amax`, whose gradient is shared by equal elements
    as PyTorch's is; for programs by `max`, the same number, which paddle2onnx can translate."""
    largest = paddle.amax if paddle.in_dynamic_mode() else paddle.max
    return largest(x, axis=axis, keepdim=True)


def _newton(matrix: Tensor, inverse: Tensor) -> Tensor:
    for _ in range(NEWTON_STEPS):
        inverse = 2 * inverse - paddle.matmul(inverse, paddle.matmul(matrix, inverse))
    return inverse


def inverse_residual(kernel: Tensor, inverse: Tensor, normed: bool = False) -> Tensor:
    """Measure how far from inverted each matrix is: the largest column sum of |I - P V|, [B, h].

    Near 0 where Newton's iteration has converged, about 1 and more where a direction of P is still to be
    inverted, not a number where a number of the kernel is not.

    Args:
        kernel, inverse: what was given to and returned by `newton_inverse`, or with `normed` by
            `normalised_newton_inverse`, whose normalisation is undone first.
    """
    eye = paddle.eye(kernel.shape[3], dtype=kernel.dtype)
    matrix = kernel + RIDGE * eye
    if normed:
        roots = kernel.sum(axis=3, keepdim=True).sqrt()
        matrix, inverse = kernel, inverse * roots * roots.transpose([0, 1, 3, 2])
    return (eye - paddle.matmul(matrix, inverse)).abs().sum(axis=2).amax(axis=2)


def softmax_free_attention(
    q: Tensor, landmarks: Tensor, v: Tensor, invert: Callable[[Tensor], Tensor]
) -> Tensor:
    """Attention through the landmarks.

    Args:
        q, v: [B, h, N, d], landmarks: [B, h, m, d]; keys are the queries.
        invert: `newton_inverse` or `normalised_newton_inverse`.

    Returns:
        [B, h, N, d] in v's dtype.
    """
    dtype = v.dtype
    with paddle.amp.auto_cast(enable=False):
        q, landmarks, v = _full(q), _full(landmarks), _full(v)
        to_landmarks = gaussian_kernel(q, landmarks)  # [B, h, N, m]
        gathered = paddle.matmul(to_landmarks, v, transpose_x=True)  # [B, h, m, d]
        inverse = invert(gaussian_kernel(landmarks, landmarks))  # [B, h, m, m]
        return paddle.matmul(to_landmarks, paddle.matmul(inverse, gathered)).astype(dtype)


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == paddle.float64 else x.astype("float32")
