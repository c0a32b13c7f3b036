"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its inside."""

from __future__ import annotations

from typing import Any

from .basic import Module, Tensor


def run_block(block: Module, *inputs: Any, recompute: bool = False) -> Tensor:
    """Return block(*inputs); with `recompute` and in train mode, its activations are not kept."""
    if recompute and block.training:
        from paddle.distributed.fleet.utils import recompute as checkpoint

        return checkpoint(block, *inputs)
    return block(*inputs)
