"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its inside."""

from __future__ import annotations

from typing import Any

import paddle

from .basic import Module, Tensor


def run_block(block: Module, *inputs: Any, recompute: bool = False) -> Tensor:
    """Return block(*inputs); with `recompute` and in train mode, its activations are not kept."""
    if recompute and block.training:
        from paddle.distributed.fleet.utils import recompute as checkpoint

        if all(getattr(x, "stop_gradient", True) for x in inputs):
            # Behind frozen layers, Paddle would give the block's own parameters no gradients.
            inputs = tuple(x.detach() if isinstance(x, paddle.Tensor) else x for x in inputs)
            for x in inputs:
                if isinstance(x, paddle.Tensor):
                    x.stop_gradient = False
        return checkpoint(block, *inputs)
    return block(*inputs)
