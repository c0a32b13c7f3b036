"""How a PyTorch training checkpoint is laid out, and what of it a run in Paddle keeps.

InLine's    model, optimizer, lr_scheduler, epoch, max_accuracy, config, state_dict_ema, max_accuracy_e,
            scaler; `epoch` counts the epochs that are done
timm's      state_dict, optimizer, epoch, arch, version, metric, state_dict_ema, amp_scaler (SOFT);
            `epoch` is the index of the last epoch that is done
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

import numpy as np
import paddle

from paddle_inline.training.state import Origin, Progress, TrainingState
from paddle_inline.utils.errors import counted

from .checkpoint import Opened, entries
from .errors import UnfitWeightsError
from .formats.select import EMA_KEYS
from .formats.write import sha256

# PyTorch's name of an entry of a loss scaler's state, and Paddle's
SCALER = (
    ("scale", "scale"),
    ("growth_factor", "incr_ratio"),
    ("backoff_factor", "decr_ratio"),
    ("growth_interval", "incr_every_n_steps"),
    ("_growth_tracker", "incr_count"),
)


def layout_of(name: str) -> Callable[..., dict[str, Any]]:
    """Return the function (state, weights, optimizer) -> contents of a training checkpoint, as the program that
    trains this model reads it."""
    return _timm_layout if name.startswith("soft") else _inline_layout


def _inline_layout(state, weights, optimizer):
    """InLine's: `epoch` is the number of epochs done, from which its training continues."""
    train, origin = (state.config or {}).get("train", {}), state.origin
    scheduler, settings = (origin.lr_scheduler, origin.config) if origin else (None, None)
    if train and state.steps_per_epoch:  # the same two facts from which the position is read back
        scheduler = {**(scheduler or {}), "t_initial": train["epochs"] * state.steps_per_epoch}
        settings = {"TRAIN": {"EPOCHS": train["epochs"]}}
    contents = {
        "model": weights,
        "optimizer": optimizer,
        "lr_scheduler": scheduler or {},
        "epoch": state.progress.epoch,
        "max_accuracy": max(state.progress.best_top1, 0.0),
        "max_accuracy_e": max(
            state.progress.best_ema_top1, 0.0
        ),  # the program that keeps averages asks for it
    }
    optional = {"config": settings, "scaler": scaler_to_torch(state.scaler)}
    return {**contents, **{key: value for key, value in optional.items() if value}}


def _timm_layout(state, weights, optimizer):
    """timm's, which SOFT uses: `epoch` is the index of the last epoch done."""
    contents = {
        "epoch": state.progress.epoch - 1,
        "arch": state.model,
        "state_dict": weights,
        "optimizer": optimizer,
        "version": 2,
    }
    if state.progress.best_top1 >= 0:
        contents["metric"] = state.progress.best_top1
    if state.scaler:
        contents["amp_scaler"] = scaler_to_torch(state.scaler)
    return contents


class Position(NamedTuple):
    """How far a PyTorch run is."""

    epoch: int  # epochs done
    step: int  # steps done
    exact: bool  # whether `step` is known; if not, a loss scaler may have skipped some more


def position(contents: Mapping[str, Any], adam_steps: int) -> Position:
    """Find how far the run of a PyTorch checkpoint is.

    A loss scaler skips steps whose gradients are not finite, and AdamW does not count those, while the
    schedule does. InLine's scheduler tells the steps of an epoch: `t_initial` over the epochs of its
    settings. Where nothing tells them, AdamW's own count is taken, and is exact if no loss scaler was used.

    Args:
        contents: of the file.
        adam_steps: the most steps that AdamW counts for any parameter.

    Raises:
        UnfitWeightsError: AdamW has counted more steps than the epochs have.
    """
    epoch = contents.get("epoch")
    epoch = epoch if type(epoch) is int and epoch >= 0 else -1
    is_inline = any(key in contents for key in ("max_accuracy", "config"))
    done = max(epoch if is_inline else epoch + 1, 0)
    scheduled: Any = entries(contents.get("lr_scheduler")).get("t_initial")
    epochs: Any = entries(entries(contents.get("config")).get("train")).get("epochs")
    if done and all(type(n) in (int, float) and 0 < n < 2**53 for n in (scheduled, epochs)):
        step = round(scheduled / epochs * done)
        if adam_steps > step:
            raise UnfitWeightsError(
                f"the optimizer has counted {counted(adam_steps, 'step')}, and its schedule {step} in "
                f"{counted(done, 'epoch')} (t_initial {scheduled} / TRAIN.EPOCHS {epochs} * epoch {epoch})"
            )
        return Position(done, step, True)
    return Position(done, adam_steps, not any(contents.get(key) for key in ("scaler", "amp_scaler", "amp")))


def state_of(
    contents: Mapping[str, Any], opened: Opened, groups: list[dict[str, Any]], adam_steps: int
) -> TrainingState:
    """Return the state of the converted run."""
    done, step, exact = position(contents, adam_steps)
    best = contents.get("max_accuracy", contents.get("metric"))
    averaged = any(
        key in contents for key in EMA_KEYS
    )  # without, the best of averages is a number of nothing
    progress = Progress(
        epoch=done,
        step=step,
        best_top1=_number(best, -1.0),
        best_ema_top1=_number(contents.get("max_accuracy_e"), -1.0) if averaged else -1.0,
    )
    epochs = entries(entries(contents.get("config")).get("train")).get("epochs")
    return TrainingState(
        model=opened.identity.name,
        overrides=opened.identity.overrides,
        progress=progress,
        rate=_number(groups[0].get("lr"), 0.0),
        steps_per_epoch=step // done if done and exact else None,
        scaler=scaler_to_paddle(contents.get("scaler", contents.get("amp_scaler"))),
        paddle=paddle.__version__,
        origin=Origin(
            param_groups=groups,
            lr_scheduler=plain(contents.get("lr_scheduler")),
            config={"TRAIN": {"EPOCHS": epochs}} if type(epochs) is int else None,
            adam_steps=adam_steps,
            source_step=step,
            step_is_exact=exact,
            num_batches_tracked=opened.counters,
            source={file.name: sha256(file) for file in opened.source.files},
        ),
    )


def _number(value, default):
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else default


def plain(value: Any, depth: int = 6) -> Any:
    """Return a value that JSON can hold, with None in place of what it cannot."""
    if isinstance(value, np.generic):
        value = value.item()
    if (
        value is None
        or isinstance(value, (bool, int, str))
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    if depth and isinstance(value, dict):
        return {key: plain(item, depth - 1) for key, item in value.items() if isinstance(key, str)}
    if depth and isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    return None


def scaler_to_paddle(saved: Any) -> dict[str, Any] | None:
    """Return a `torch.amp.GradScaler`'s state dict as a Paddle GradScaler's; None for anything else.

    PyTorch lowers the scale at every gradient that is not finite, so Paddle is to do so too.
    """
    found = plain(saved)
    if not isinstance(found, dict) or not all(_is_number(found.get(torch_key)) for torch_key, _ in SCALER):
        return None
    more = {"decr_every_n_nan_or_inf": 1, "decr_count": 0, "use_dynamic_loss_scaling": True}
    return {**{paddle_key: found[torch_key] for torch_key, paddle_key in SCALER}, **more}


def scaler_to_torch(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a Paddle GradScaler's state as a `torch.amp.GradScaler`'s; None of None."""
    return {torch_key: state[paddle_key] for torch_key, paddle_key in SCALER} if state else None


def _is_number(value):
    return type(value) in (int, float) and value >= 0
