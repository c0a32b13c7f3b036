"""The layers every model is made of, with the initialisation of the papers' models.

Linear weights: truncated normal, std 0.02; convolutions: PyTorch's default, uniform within
1 / sqrt(fan_in), weight and bias alike (Paddle's own default differs); norms: 1 and 0.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.nn.functional import conv2d  # imported by name: what counts multiply-adds replaces F.conv2d

from ..ops import eager, eager_filters, kernels
from ..ops.tokens import Size, map_to_tokens, tokens_to_map

ModuleList, Sequential, Identity = nn.LayerList, nn.Sequential, nn.Identity
Dropout, ReLU = nn.Dropout, nn.ReLU

# The authors' trunc_normal_ cuts at an absolute 2: a hundred standard deviations away, where there is
# nothing to cut. (Paddle 2.6's TruncatedNormal can only cut at two standard deviations.)
TRUNCATED_NORMAL = nn.initializer.Normal(std=0.02)


class Module(nn.Layer):
    """The base of every layer and model. `to(dtype=...)` casts floating tensors alone, as in PyTorch:
    Paddle's own would turn an index into floats, and into wrong ones in bfloat16."""

    def _apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        def cast_floating(tensor, device, dtype, blocking):
            return func(tensor, device, dtype if tensor.is_floating_point() else None, blocking)

        return super()._apply(cast_floating, *args, **kwargs)


def meta_init() -> AbstractContextManager:
    """Return a context in which models are built in no time, their parameters with shapes and without values."""
    return paddle.LazyGuard()


def set_mode(module: Any, training: bool) -> None:
    """Put a module and all in it into train or eval mode, past a `train` of its own."""
    (nn.Layer.train if training else nn.Layer.eval)(module)


def freeze(part: Any) -> None:
    """Take the gradients off a parameter or off all of a module's."""
    for parameter in part.parameters() if isinstance(part, nn.Layer) else [part]:
        parameter.stop_gradient = True


def rest(part: Any) -> None:
    """Put a module and all in it into eval mode; a parameter has none."""
    # (Layer.eval tells the whole program too that it evaluates)
    for layer in part.sublayers(include_self=True) if isinstance(part, nn.Layer) else ():
        layer.training = False


def token_parameter(*shape: int) -> Tensor:
    """Return a learned token, position embedding or bias table: truncated normal, std 0.02."""
    return paddle.create_parameter(
        list(shape), paddle.get_default_dtype(), default_initializer=TRUNCATED_NORMAL
    )


def learned(values: np.ndarray) -> Tensor:
    """Return a parameter that begins with the given values."""
    return paddle.create_parameter(
        list(values.shape),
        paddle.get_default_dtype(),
        default_initializer=nn.initializer.Assign(values.astype(paddle.get_default_dtype())),
    )


class GELU(nn.GELU):
    """The exact GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return eager.gelu(x, self._approximate) if eager.suits(x) else nn.GELU.forward(self, x)


class TanhGELU(nn.GELU):
    """GELU by its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate=True)

    def forward(self, x: Tensor) -> Tensor:
        if paddle.in_dynamic_mode():
            return GELU.forward(self, x)
        # written out: paddle2onnx 2.1 takes the approximation for the exact GELU
        return 0.5 * x * (1 + paddle.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


class Linear(nn.Linear):
    """x W + b over the last dimension; Paddle stores W as [in, out], PyTorch as [out, in]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(
            in_features,
            out_features,
            weight_attr=paddle.ParamAttr(initializer=TRUNCATED_NORMAL),
            bias_attr=None if bias else False,
        )

    def forward(self, x: Tensor) -> Tensor:
        if eager.suits(x):
            return eager.affine(x, self.weight, self.bias)
        return nn.Linear.forward(self, x)


def linear_like(like: Tensor | None, in_features: int, out_features: int) -> Linear:
    """Return a Linear of the precision of a parameter and on its device; None: as any other."""
    layer = Linear(in_features, out_features)
    return layer if like is None or like.dtype == layer.weight.dtype else layer.to(dtype=like.dtype)


class Conv1d(nn.Conv1D):
    """1-d convolution over [B, C, N]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        attr = _uniform(in_channels // groups * kernel_size)
        super().__init__(
            in_channels, out_channels, kernel_size, groups=groups, weight_attr=attr, bias_attr=attr
        )

    def forward(self, x: Tensor) -> Tensor:
        if eager.suits(x) and x.shape[2] == 1 and self.weight.shape[2] == 1:
            return eager.grouped_affine(x, self.weight, self.bias)
        return nn.Conv1D.forward(self, x)


class Conv2d(nn.Conv2D):
    """2-d convolution over [B, C, H, W]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        attr = _uniform(in_channels // groups * kernel_size**2)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            weight_attr=attr,
            bias_attr=attr if bias else False,
        )

    def forward(self, x: Tensor) -> Tensor:
        if eager.suits(x) and is_depthwise(self):
            return eager_filters.depthwise_conv2d(lambda x: nn.Conv2D.forward(self, x), x, self.weight)
        if self._is_product(x):
            return tokens_to_map(self._tokens(x), kernels.grid_of(x.shape, *self._geometry()))
        if eager.suits(x) and self.bias is not None:
            out = conv2d(x, self.weight, None, self._stride, self._updated_padding, 1, self._groups)
            return eager.add_bias(out, self.bias)
        return nn.Conv2D.forward(self, x)

    def tokens(self, x: Tensor) -> Tensor:
        """Take a map to tokens, [B, C, H, W] -> [B, N, C']."""
        at_once = eager.is_plain_convolution(self) and self._is_product(x)
        return self._tokens(x) if at_once else map_to_tokens(self(x))

    def _is_product(self, x: Tensor) -> bool:
        """Whether it is a matrix product of what it sees, which is then at most four times the image."""
        side, stride, _ = self._geometry()
        whole = self._groups == 1 and side <= 2 * stride and x.ndim == 4 and x.shape[1] == self._in_channels
        return (
            whole and min(x.shape[2:]) >= side and eager.suits(x) and kernels.takes(x, self.weight, self.bias)
        )

    def _geometry(self) -> tuple[int, int, int]:
        return self.weight.shape[2], self._stride[0], self._updated_padding[0]

    def _tokens(self, x: Tensor) -> Tensor:
        return eager.affine(
            eager.patches(x, *self._geometry()),
            eager.swap(self.weight.reshape([self._out_channels, -1]), 0),
            self.bias,
        )


eager.PLAIN_FORWARDS.append(Conv2d.forward)


def is_depthwise(convolution: nn.Conv2D) -> bool:
    """Return whether a convolution filters each channel by itself and keeps the grid."""
    return eager_filters.is_depthwise(
        convolution.weight, convolution._groups, convolution._stride, convolution._updated_padding
    )


def convolve_to_tokens(convolution: Conv2d, x: Tensor) -> Tensor:
    """Take a map through a convolution to tokens, [B, C, H, W] -> [B, N, C']."""
    return convolution.tokens(x) if isinstance(convolution, Conv2d) else map_to_tokens(convolution(x))


def filter_tokens(convolution: Any, x: Tensor, size: Size) -> Tensor:
    """Take tokens through a convolution that keeps their grid (H, W): [B, H * W, C] -> [B, H * W, C]."""
    if is_filter(convolution, x):
        weight = convolution.weight.reshape([1, x.shape[2], *convolution.weight.shape[2:]])
        return eager_filters.filter_tokens(x, weight, convolution.bias, size)
    return map_to_tokens(convolution(tokens_to_map(x, size)))


def is_filter(convolution: Any, x: Tensor) -> bool:
    """Return whether `kernels` does what a convolution does to tokens x."""
    return (
        eager.suits(x)
        and isinstance(convolution, nn.Conv2D)
        and eager.is_plain_convolution(convolution)
        and is_depthwise(convolution)
        and kernels.takes(x, convolution.weight, convolution.bias)
    )


class SequenceConv(nn.Conv2D):
    """Filters heads [B, h, N, d] along their tokens: one filter of so many taps per head, zero padding, no bias."""

    def __init__(self, num_heads: int, taps: int) -> None:
        super().__init__(
            num_heads,
            num_heads,
            (taps, 1),
            padding=(taps // 2, 0),
            groups=num_heads,
            weight_attr=_uniform(taps),
            bias_attr=False,
        )


def exact_epsilon_scale(epsilon: float) -> float:
    """Return what to multiply a norm's input by for an exact epsilon in float64.

    Paddle's kernels round epsilon to float32 whatever the input is; to scale the input by s is to divide
    epsilon by s^2, and changes nothing else.
    """
    return math.sqrt(float(np.float32(epsilon)) / epsilon)


class LayerNorm(nn.LayerNorm):
    """Normalises the last dimension."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, epsilon=eps)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == paddle.float64:
            x = x * exact_epsilon_scale(self._epsilon)
        if eager.suits(x):
            return eager.layer_norm(x, self.weight, self.bias, self._epsilon)
        if self.weight.stop_gradient and paddle.in_dynamic_mode() and not x.stop_gradient:
            # Paddle's CPU kernel forgets a frozen weight in the input's gradient: it is told that it is not frozen.
            weight = self.weight.detach()
            weight.stop_gradient = False
            return F.layer_norm(x, self._normalized_shape, weight, self.bias, self._epsilon)
        return nn.LayerNorm.forward(self, x)  # Paddle 2.6 traces no super()


def _uniform(fan_in: int) -> paddle.ParamAttr:
    bound = 1 / math.sqrt(fan_in)
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))
