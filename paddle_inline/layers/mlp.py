"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from ..ops import eager, kernels
from .basic import GELU, Dropout, Linear, Module, Tensor


class Mlp(Module):
    """Linear, GELU (exact), Linear: [B, N, C] -> [B, N, C] through `hidden_dim` channels."""

    def __init__(self, dim: int, hidden_dim: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = GELU()
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        if eager.suits(x) and self._is_plain(x):
            return eager.perceptron(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))

    def _is_plain(self, x):
        """Whether nothing is dropped, watched or replaced, and `kernels` takes all of it."""
        layers = self.fc1, self.fc2, self.act, self.drop
        return (
            (self.drop.p == 0 or not self.drop.training)
            and [type(layer) for layer in layers] == [Linear, Linear, GELU, Dropout]
            and not eager.watched(*layers)
            and not self.act._approximate
            and self.fc1.bias is not None
            and self.fc2.bias is not None
            and kernels.takes(x, *self.fc1.parameters(), *self.fc2.parameters())
        )
