"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its inside."""

from __future__ import annotations

from torch.utils.checkpoint import checkpoint


def run_block(block, *inputs, recompute=False):
    """block(*inputs); with `recompute` and gradients wanted, its activations are not kept."""
    if recompute and block.training:
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
