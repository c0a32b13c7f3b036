"""A short training run in both frameworks, float64: Paddle with our own training step, PyTorch with timm's parts.

AdamW with the family's decay groups, clipping and schedule (Recipe), every step on a batch of its own. The warm-up
takes a fourth of the run and its last fifth is at the lowest rate, so that every part of a schedule occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_inline.utils.errors import UserError

from ..families.adapter import Recipe

if TYPE_CHECKING:
    import paddle
    import torch

Batch = tuple[np.ndarray, np.ndarray]  # images [B, C, H, W], labels [B]


def phases(steps: int) -> tuple[int, int]:
    """Return (steps of the warm-up, steps until the lowest rate) of a run."""
    return steps // 4, max(1, steps - steps // 5)


def train_paddle(model: paddle.nn.Layer, batches: Sequence[Batch], recipe: Recipe) -> np.ndarray:
    """Train a paddle.nn.Layer in place.

    Args:
        model: its numbers are put into float64 and stay there.
        batches: one per step.
        recipe: the family's rates.

    Returns:
        losses [steps]
    """
    import paddle

    from paddle_inline.training.loop import train_step
    from paddle_inline.training.losses import make_loss
    from paddle_inline.training.optim import decay_groups, make_optimizer
    from paddle_inline.training.schedule import make_schedule

    warmup, total = phases(len(batches))
    schedule = make_schedule(
        "cosine",
        base=recipe.base,
        warmup=recipe.warmup,
        floor=recipe.floor,
        epochs=total,
        warmup_epochs=warmup,
        steps_per_epoch=1,
    )
    model.to(dtype="float64")
    model.train()
    optimizer = make_optimizer("adamw", model, decay_groups(model, recipe.decay))
    losses = []
    for step, (images, labels) in enumerate(batches):
        batch = paddle.to_tensor(images, dtype="float64"), paddle.to_tensor(labels)
        loss, _ = train_step(
            model, optimizer, [batch], make_loss(False, 0.0), schedule(step), clip=recipe.clip
        )
        losses.append(loss)
    model.eval()
    return np.array(losses)


def import_timm() -> tuple[Any, Any]:
    """Return timm's grouping of parameters and its schedule.

    Raises:
        UserError: timm cannot be imported.
    """
    try:
        from timm.optim import param_groups_weight_decay
        from timm.scheduler import CosineLRScheduler
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit raises the latter
        raise UserError(
            f"training steps are compared with timm's, which cannot be imported: {error}; "
            "what to install: python -m paddle_inline doctor"
        ) from None
    return param_groups_weight_decay, CosineLRScheduler


def train_torch(model: torch.nn.Module, batches: Sequence[Batch], recipe: Recipe) -> np.ndarray:
    """Train a torch.nn.Module in place with PyTorch's AdamW and timm's groups and scheduler.

    Arguments and result as for `train_paddle`.

    Raises:
        UserError: timm cannot be imported.
    """
    import torch

    param_groups_weight_decay, CosineLRScheduler = import_timm()
    model.double().train()
    kept = [name for name, _ in model.named_parameters() if any(part in name for part in model.NO_DECAY)]
    groups = param_groups_weight_decay(model, recipe.decay, no_weight_decay_list=kept)
    optimizer = torch.optim.AdamW(groups, lr=recipe.base)
    warmup, total = phases(len(batches))
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=total,
        lr_min=recipe.floor,
        warmup_lr_init=recipe.warmup,
        warmup_t=warmup,
        t_in_epochs=False,
    )
    losses = []
    for step, (images, labels) in enumerate(batches):
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(images)), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        scheduler.step_update(step)
        losses.append(loss.item())
    model.eval()
    return np.array(losses)
