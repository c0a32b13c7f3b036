"""When a loss is not finite: which layer it starts in, and the batch that shows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle


class NotFinite(FloatingPointError):
    """Training cannot go on: losses are no longer finite."""


def explain(
    model: paddle.nn.Layer,
    batch: tuple[paddle.Tensor, paddle.Tensor],
    loss: float,
    step: int,
    rank: int = 0,
    folder: Path | None = None,
    amp: dict[str, Any] | None = None,
) -> str:
    """Return a message: step, rank, first bad layer, and where the batch was written for a closer look.

    Args:
        batch: (images [B, C, H, W], labels or targets) of the loss.
        folder: of the run, for the batch; None: it is not written.
        amp: arguments of `paddle.amp.auto_cast` in which the loss was computed, or None.
    """
    images, targets = batch
    model.eval()  # what is shown does not depend on draws, and changes no running statistics
    lines = [f"loss {loss} at step {step}, rank {rank}; the last checkpoint is kept"]
    if math.isfinite(loss):
        lines.append("this rank's loss is finite: its gradients are not, or another rank's (see errors/)")
    if not bool(np.isfinite(images.astype("float32").numpy()).all()):
        lines.append("the images themselves are not finite")
    bad = [name for name, p in model.named_parameters() if not _finite(p)]
    if bad:
        lines.append(f"weights that are not finite: {', '.join(bad[:5])}")
    layer = first_bad_layer(model, images, amp)
    none = "none" if math.isfinite(loss) else "none, so it is in the loss"
    lines.append(f"first layer whose output is not finite: {layer or none}")
    if folder is not None:
        path = Path(folder) / f"bad_batch_rank{rank}.npz"
        try:
            np.savez(path, images=images.astype("float32").numpy(), targets=targets.numpy())
            lines.append(f"the batch: {path}")
        except OSError as error:
            lines.append(f"the batch could not be written: {error}")
    lines.append("try a lower train.base_lr, a longer train.warmup_epochs, train.clip_grad, or amp.level=O0")
    return "\n  ".join(lines)


@paddle.no_grad()
def first_bad_layer(
    model: paddle.nn.Layer, images: paddle.Tensor, amp: dict[str, Any] | None = None
) -> str | None:
    """The name of the sublayer, in order of completion, whose output is the first not finite."""
    found: list[str] = []
    handles = []

    def watch(name):
        def hook(layer, inputs, output):
            outputs = output if isinstance(output, (list, tuple)) else [output]
            if not found and not all(_finite(o) for o in outputs if isinstance(o, paddle.Tensor)):
                found.append(name)

        return hook

    for name, layer in model.named_sublayers(include_self=True):
        handles.append(layer.register_forward_post_hook(watch(name or "the model")))
    try:
        with paddle.amp.auto_cast(**(amp or {"enable": False})):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(tensor):
    if "float" not in str(tensor.dtype):
        return True
    return tensor.astype("float32").isfinite().all().item()
