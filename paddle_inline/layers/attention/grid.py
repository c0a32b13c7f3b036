"""What forms of attention do on the grid of the patches, beyond the prefix tokens.

B batch, N = P + H * W tokens, P prefix tokens (class token), H x W token grid, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ops.tokens import concat_tokens
from ..basic import Tensor


def on_patches(x: Tensor, prefix: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the patches of tokens [B, P + H * W, C], and leave the prefix as it is."""
    return concat_tokens(x[:, :prefix], change(x[:, prefix:])) if prefix else change(x)


def patches_of(x: Tensor, prefix: int) -> Tensor:
    """Return the patches of tokens, [B, P + H * W, C] -> [B, H * W, C]."""
    return x[:, prefix:] if prefix else x
