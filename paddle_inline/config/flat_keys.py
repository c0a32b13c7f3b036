"""The flat settings files of SOFT's program (`model: soft_tiny`, `lr: 1e-3`), whose keys are timm's arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from .legacy_keys import DECAY, plain_value
from .schema import ConfigError

# What its program does that no key says, and what the published files say where a file is silent.
RECIPE: dict[str, Any] = {
    **{"data.interpolation": "random", "test.resize": "short", "test.crop_ratio": 0.9},
    **{
        "train.lr_batch": 1024,
        "train.lr_scaled": "base",
        "train.lr_per": "epoch",
        "train.cooldown_epochs": 0,
    },
    **{"train.epochs": 300, "train.warmup_epochs": 10, "train.warmup_lr": 1e-6, "train.min_lr": 5e-5},
    **{"train.clip_grad": 1.0, "model.drop_path_rate": 0.1, "ema.decay": DECAY},
}
KEYS = {
    **{"model": "model.name", "num_classes": "model.num_classes", "smoothing": "model.label_smoothing"},
    **{
        "drop": "model.drop_rate",
        "drop_path": "model.drop_path_rate",
        "drop_connect": "model.drop_path_rate",
    },
    **{"resume": "model.resume", "initial_checkpoint": "model.pretrained", "in_chans": "model.in_chans"},
    **{"data": "data.data_path", "data_dir": "data.data_path", "batch_size": "data.batch_size"},
    **{"img_size": "data.img_size", "workers": "data.num_workers", "mean": "data.mean", "std": "data.std"},
    **{"train_interpolation": "data.interpolation", "crop_pct": "test.crop_ratio"},
    **{"epochs": "train.epochs", "warmup_epochs": "train.warmup_epochs", "lr": "train.base_lr"},
    **{"warmup_lr": "train.warmup_lr", "min_lr": "train.min_lr", "weight_decay": "train.weight_decay"},
    **{"clip_grad": "train.clip_grad", "sync_bn": "train.sync_bn", "momentum": "train.optimizer.momentum"},
    **{"opt": "train.optimizer.name", "opt_eps": "train.optimizer.eps", "opt_betas": "train.optimizer.betas"},
    **{"sched": "train.lr_scheduler.name", "decay_epochs": "train.lr_scheduler.decay_epochs"},
    **{"decay_rate": "train.lr_scheduler.decay_rate", "aa": "aug.auto_augment", "hflip": "aug.hflip"},
    **{key: f"aug.{key}" for key in ("scale", "ratio", "color_jitter", "reprob", "remode", "recount")},
    **{key: f"aug.{key}" for key in ("mixup", "cutmix", "cutmix_minmax", "mixup_prob", "mixup_switch_prob")},
    **{"mixup_mode": "aug.mixup_mode", "model_ema_decay": "ema.decay", "seed": "seed"},
    **{"log_interval": "print_freq", "checkpoint_hist": "keep_last", "output": "output", "experiment": "tag"},
}
# Keys that are read and not used, and why nothing is lost.
IGNORED = {
    "cooldown_epochs": "scheduled there and never run",
    "interpolation": "evaluation is bicubic where training is random",
    **dict.fromkeys(("pin_mem", "no_prefetcher", "use_multi_epochs_loader"), "the loader decides"),
    **dict.fromkeys(("local_rank", "world_size", "dist_url", "dist_bn"), "the launcher gives it"),
    **dict.fromkeys(
        ("recovery_interval", "save_images", "eval_metric", "start_epoch"), "a run's folder has it"
    ),
    **dict.fromkeys(("channels_last", "model_ema_force_cpu", "patience_epochs"), "has no effect here"),
    **dict.fromkeys(("dataset", "train_split", "val_split"), "the folder's parts are train and val"),
    **dict.fromkeys(("version", "gp", "resplit", "no_resume_opt"), "has no effect here"),
}
# Keys of what is not done here: any other value than these is refused.
OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("vflip", "aug_splits", "tta", "mixup_off_epoch", "val_zoom"), (0, 0.0, False, None)),
    **dict.fromkeys(("jsd", "no_aug", "split_bn", "bn_tf", "torchscript", "pretrained"), (False, None, 0)),
    **dict.fromkeys(("drop_block", "bn_momentum", "bn_eps", "lr_noise"), (None, 0, 0.0)),
    **dict.fromkeys(("lr_cycle_mul", "lr_cycle_limit"), (1, 1.0, None)),
}
AMP = ("amp", "apex_amp", "native_amp")


def is_flat(settings: Iterable[tuple[str, Any]]) -> bool:
    """Return whether a file's (key, value) pairs are those of such a file: its model is a name, not a section."""
    return any(key == "model" and isinstance(value, str) for key, value in settings)


def from_flat(given: Mapping[str, Any], path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that a flat file means, and {key that is not used: why}.

    Args:
        given: {key: value}; keys with dots are settings of ours and come back unchanged.
        path: of the file, for messages.

    Raises:
        ConfigError: for a key that is unknown, or a value of something that is not done here.
    """
    found, unused = dict(RECIPE), {}
    for name, value in given.items():
        key = name.replace("-", "_")
        value = None if isinstance(value, str) and value.lower() in ("none", "null") else value
        if "." in key:
            found[name] = value
        elif key in KEYS:
            value = "none" if key == "aa" and value is None else value
            if value is not None or key in ("clip_grad", "num_classes", "cutmix_minmax"):
                found[KEYS[key]] = value
        elif key in AMP:
            found["amp.level"] = "O1" if value or found.get("amp.level") == "O1" else "O0"
        elif key in IGNORED:
            unused[name] = IGNORED[key]
        elif key in OFF:
            if value not in OFF[key]:
                raise ConfigError(f"{path}: {name} is {value!r}, which is not done here: leave it out")
        elif key != "model_ema":
            near = difflib.get_close_matches(key, [*KEYS, *IGNORED, *OFF, *AMP, "model_ema"], n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path}: unknown key {name!r} in a flat file of SOFT's program{hint}")
    if plain_value(given.get("model_ema", given.get("model-ema", True))) is False:
        found["ema.decay"] = None
    return found, unused
