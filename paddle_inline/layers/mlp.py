"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

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
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
