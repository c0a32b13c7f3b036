"""A short training run in both frameworks, float64: Paddle with our own engine, PyTorch with timm's parts.

AdamW with the family's decay groups, clipping and schedule, every update on a batch of its own. The warm-up
takes a fourth of the run and its last fifth is at the lowest rate, so that every part of a schedule occurs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_inline.utils.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """The published rates of a family, as they are (not scaled to the batch)."""

    base: float = 5e-4
    warmup: float = 5e-7
    floor: float = 5e-6
    decay: float = 0.05
    clip: float | None = 5.0  # largest global norm of the gradients


# by the start of the model's name
RECIPES = {
    "inline_deit": Recipe(),
    "inline_pvt": Recipe(warmup=1e-6, floor=1e-5, clip=1.0),
    "inline_swin": Recipe(),
    "inline_cswin": Recipe(warmup=1e-6, floor=1e-5, clip=None),
    "soft": Recipe(base=1e-3, warmup=1e-6, floor=5e-5, clip=1.0),
}


def recipe_of(name):
    """The Recipe of a model's family."""
    return next(recipe for start, recipe in RECIPES.items() if name.startswith(start))


def parts(steps):
    """(updates of the warm-up, updates until the lowest rate) of a run."""
    return steps // 4, max(1, steps - steps // 5)


def train_paddle(model, batches, recipe):
    """Train a paddle.nn.Layer in place.

    Args:
        batches: a list of (images [B, C, H, W], labels [B]) in numpy, one per update.
    Returns:
        losses [steps]
    """
    import paddle

    from paddle_inline.training.loop import train_step
    from paddle_inline.training.losses import make_loss
    from paddle_inline.training.optim import decay_groups, make_optimizer
    from paddle_inline.training.schedule import make_schedule

    warmup, total = parts(len(batches))
    schedule = make_schedule(
        "cosine",
        base=recipe.base,
        warmup=recipe.warmup,
        floor=recipe.floor,
        epochs=total,
        warmup_epochs=warmup,
        updates_per_epoch=1,
    )
    model.to(dtype="float64")
    model.train()
    optimizer = make_optimizer("adamw", model, decay_groups(model, recipe.decay))
    losses = []
    for update, (images, labels) in enumerate(batches):
        batch = paddle.to_tensor(images, dtype="float64"), paddle.to_tensor(labels)
        loss, _ = train_step(
            model, optimizer, [batch], make_loss(False, 0.0), schedule(update), clip=recipe.clip
        )
        losses.append(loss)
    model.eval()
    return np.array(losses)


def timm_parts():
    """timm's grouping of parameters and its schedule; ValueError where timm cannot be imported."""
    try:
        from timm.optim import param_groups_weight_decay
        from timm.scheduler import CosineLRScheduler
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit raises the latter
        raise UserError(
            f"training steps are compared with timm's, which cannot be imported: {error}; "
            "what to install: python -m paddle_inline doctor"
        ) from None
    return param_groups_weight_decay, CosineLRScheduler


def train_torch(model, batches, recipe):
    """Train a torch.nn.Module in place with PyTorch's AdamW and timm's groups and scheduler; as
    `train_paddle`.

    Raises ValueError where timm cannot be imported.
    """
    import torch

    param_groups_weight_decay, CosineLRScheduler = timm_parts()
    model.double().train()
    kept = [name for name, _ in model.named_parameters() if any(part in name for part in model.NO_DECAY)]
    groups = param_groups_weight_decay(model, recipe.decay, no_weight_decay_list=kept)
    optimizer = torch.optim.AdamW(groups, lr=recipe.base)
    warmup, total = parts(len(batches))
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=total,
        lr_min=recipe.floor,
        warmup_lr_init=recipe.warmup,
        warmup_t=warmup,
        t_in_epochs=False,
    )
    losses = []
    for update, (images, labels) in enumerate(batches):
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(images)), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        scheduler.step_update(update)
        losses.append(loss.item())
    model.eval()
    return np.array(losses)
