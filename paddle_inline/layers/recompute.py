"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its inside."""

from __future__ import annotations


def run_block(block, *inputs, recompute=False):
    """block(*inputs); with `recompute` and gradients wanted, its activations are not kept."""
    if recompute and block.training:
        from paddle.distributed.fleet.utils import recompute as checkpoint

        return checkpoint(block, *inputs)
    return block(*inputs)
