"""The settings: typed dataclasses whose fields carry their limits."""

# ruff: noqa: UP045, RUF009  (types are read at run time, and Python 3.9 has no `X | None`; `setting` makes a field)

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Optional, get_type_hints

from ..utils.errors import UserError, counted


class ConfigError(UserError):
    """A setting that cannot be used: the message names it, the rule and the way out."""


def setting(default: Any, **limits: Any) -> Any:
    """Make a field with limits, which `check` enforces; null passes where a setting takes it.

    Args:
        default: a value; a list is copied.
        limits: `choices`; `minimum` and `maximum`, inclusive; `above` and `below`, exclusive;
            `pair` for two numbers, the smaller one first; `size` for pixels, one side or [height, width];
            `each_above` for every number of a list.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=limits)
    return field(default=default, metadata=limits)


def rate(default: Optional[float]) -> Any:
    """Make a field for a share of at least 0 and below 1."""
    return setting(default, minimum=0, below=1)


@dataclass
class ModelConfig:
    name: str = "inline_deit_tiny"
    num_classes: Optional[int] = setting(None, minimum=1)  # null: as many as the data set has
    in_chans: int = setting(3, minimum=1)  # 1: grey, 3: RGB, 4: RGB and alpha
    drop_rate: float = rate(0.0)
    drop_path_rate: float = rate(0.1)
    label_smoothing: float = rate(0.1)
    overrides: dict[str, Any] = field(default_factory=dict)  # further ones of create_model
    pretrained: str = ""  # weights to start from, of any input size and class count
    resume: str = ""  # a checkpoint, a run's folder, or "auto"


@dataclass
class DataConfig:
    dataset: str = setting("imagenet", choices=("imagenet", "cifar10", "cifar100", "digits", "folder"))
    data_path: str = ""
    val_split: float = rate(0.0)  # of each class, held out of a folder that has no val; 0: none
    batch_size: int = setting(128, minimum=1)  # per device
    img_size: Any = setting(224, size=True)  # pixels: the side of a square, or [height, width]
    interpolation: str = setting("bicubic", choices=("bicubic", "bilinear", "random"))
    zip_mode: bool = False
    num_workers: int = setting(8, minimum=0)  # per device; 0 loads in the training process
    on_bad_image: str = setting("fail", choices=("fail", "skip", "read"))
    reduced_decoding: bool = False  # of JPEG, where the training crop makes it smaller still: other pixels
    mean: list[float] = setting(
        [0.485, 0.456, 0.406]
    )  # of the channels, of values from 0 to 1; fitted to in_chans
    std: list[float] = setting([0.229, 0.224, 0.225], each_above=0)


@dataclass
class ScheduleConfig:
    name: str = setting("cosine", choices=("cosine", "linear", "step"))
    decay_epochs: int = setting(30, minimum=1)  # step only
    decay_rate: float = setting(0.1, minimum=0, maximum=1)  # step only


@dataclass
class OptimizerConfig:
    name: str = setting("adamw", choices=("adamw", "sgd", "adam"))  # adam's decay is an L2 penalty
    eps: float = setting(1e-8, minimum=0)
    betas: list[float] = setting([0.9, 0.999], pair=True)
    momentum: float = 0.9  # sgd only, nesterov


@dataclass
class TrainConfig:
    epochs: int = setting(300, minimum=1)  # warm-up included, cool-down not
    warmup_epochs: int = setting(20, minimum=0)
    cooldown_epochs: int = setting(0, minimum=0)  # at min_lr, after `epochs`
    base_lr: float = setting(5e-4, minimum=0)
    warmup_lr: float = setting(5e-7, minimum=0)
    min_lr: float = setting(5e-6, minimum=0)
    lr_batch: Optional[int] = setting(512, minimum=1)  # rates are for this many images per step; null: as is
    lr_scaled: str = setting("all", choices=("all", "base"))  # what lr_batch scales: all rates; base_lr alone
    lr_per: str = setting("step", choices=("step", "epoch"))  # when the rate changes
    weight_decay: float = setting(0.05, minimum=0)
    clip_grad: Optional[float] = setting(5.0, minimum=0)  # global norm; null or 0: off
    accumulation_steps: int = setting(1, minimum=1)  # batches per optimizer step
    use_checkpoint: bool = False  # recompute activations in the backward pass
    sync_bn: bool = False
    auto_resume: bool = False  # the same as model.resume: auto
    max_bad_losses: int = setting(3, minimum=1)  # in a row, not finite, before the run stops
    lr_scheduler: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class AugConfig:
    scale: list[float] = setting([0.08, 1.0], pair=True)  # of the area, when cropping
    ratio: list[float] = setting([3 / 4, 4 / 3], pair=True)
    hflip: float = setting(0.5, minimum=0, maximum=1)
    rotation: float = setting(0.0, minimum=0)  # degrees, to either side
    color_jitter: float = setting(0.4, minimum=0)  # not applied when auto_augment is on
    auto_augment: str = "rand-m9-mstd0.5-inc1"  # "none": off
    reprob: float = setting(0.25, minimum=0, maximum=1)
    remode: str = setting("pixel", choices=("pixel", "rand", "const"))
    recount: int = setting(1, minimum=1)
    mixup: float = setting(0.8, minimum=0)
    cutmix: float = setting(1.0, minimum=0)
    cutmix_minmax: Optional[list[float]] = setting(None, pair=True)
    cutmix_boxes: str = setting("exact", choices=("exact", "timm-0.4"))  # timm 0.4.12's are a pixel shorter
    mixup_prob: float = setting(1.0, minimum=0, maximum=1)
    mixup_switch_prob: float = setting(0.5, minimum=0, maximum=1)
    mixup_mode: str = setting("batch", choices=("batch", "pair", "elem"))


@dataclass
class EmaConfig:
    decay: Optional[float] = rate(None)  # null: no average is kept
    lr_batch: Optional[int] = setting(None, minimum=1)  # decay ** (images per step / this); null: decay as is
    warmup: bool = False  # the decay grows with the steps, to 1 - steps ** (-2/3), until it is `decay`


@dataclass
class AmpConfig:
    level: str = setting("O0", choices=("O0", "O1", "O2"))  # O0: off
    dtype: str = setting("float16", choices=("float16", "bfloat16"))


@dataclass
class GpuConfig:
    """What is done on a GPU alone, each the same numbers as without it, up to rounding."""

    prefetch: int = setting(2, minimum=0)  # batches moved ahead, through pinned memory; 0: none
    fused_update: bool = True  # one kernel for all tensors of a group: adamw, and the average of the weights
    fused_attention: bool = True  # of softmax blocks, where types and shapes allow
    autotune: bool = True  # cuDNN and Paddle try their algorithms in the first steps
    tf32: Optional[bool] = None  # float32 may be rounded to TF32, in products, too; null: Paddle's default


@dataclass
class TestConfig:
    crop: bool = True  # resize to more than the size, then crop its centre; false: resize straight to it
    resize: str = setting(
        "square", choices=("square", "short")
    )  # both sides alike; or the short one, aspect kept
    crop_ratio: float = setting(0.875, minimum=0.1, maximum=1)  # of the side that the crop keeps
    reduced_decoding: bool = False  # as data.reduced_decoding, of the held-out images


@dataclass
class Config:
    """All settings of `train_paddle.py`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    aug: AugConfig = field(default_factory=AugConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    amp: AmpConfig = field(default_factory=AmpConfig)
    gpu: GpuConfig = field(default_factory=GpuConfig)
    test: TestConfig = field(default_factory=TestConfig)
    eval_mode: bool = False  # the same as --eval
    throughput_mode: bool = False  # the same as --throughput
    output: str = "output"
    tag: str = "default"
    seed: int = setting(0, minimum=0)
    print_freq: int = setting(10, minimum=1)  # steps between two rows of metrics.jsonl
    save_freq: int = setting(1, minimum=1)  # epochs between two checkpoints
    save_steps: int = setting(0, minimum=0)  # steps between two checkpoints within an epoch; 0: none
    keep_last: int = setting(2, minimum=1)  # checkpoints kept
    save_optimizer: bool = False  # best_optimizer.pdopt, final_model.pdparams and final_optimizer.pdopt too
    visualdl: bool = True  # where it is installed
    histogram_freq: int = setting(
        0, minimum=0
    )  # epochs between histograms of all weights in VisualDL; 0: none


def make_total(train: TrainConfig) -> str:
    """Let `train.epochs` be those of the whole run, by taking the cool-down out of them; return what was done.

    A cool-down that would be half of the run or more is left out.
    """
    total, cooldown = train.epochs, train.cooldown_epochs
    if not cooldown:
        return ""
    if total <= 2 * cooldown:
        train.cooldown_epochs = 0
        return f"--epochs {total}: the cool-down of {counted(cooldown, 'epoch')} (train.cooldown_epochs) is left out"
    train.epochs = total - cooldown
    return f"--epochs {total}: {counted(train.epochs, 'epoch')} (train.epochs) and {cooldown} of cool-down"


def known_settings(cls: type = Config, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: its dataclass field} of every setting."""
    known: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            known.update(known_settings(hints[f.name], f"{prefix}{f.name}."))
        else:
            known[prefix + f.name] = f
    return known


# arguments of create_model that a run makes of other settings, which would win over model.overrides
OWN = {
    **{key: f"model.{key}" for key in ("num_classes", "in_chans", "drop_rate", "drop_path_rate")},
    "img_size": "data.img_size",
    "recompute": "train.use_checkpoint",
}


def check(config: Config) -> None:
    """Refuse values that no run could use.

    Raises:
        ConfigError: naming the key, its value and the rule.
    """
    for key, known in known_settings().items():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        rule = broken_rule(value, known.metadata)
        if rule and (value is not None or known.type == "Any"):
            or_null = ", or null for none" if "Optional" in known.type else ""
            raise ConfigError(f"{key} is {value!r}; it {rule}{or_null}")
    for key, value in config.model.overrides.items():
        if key in OWN:
            raise ConfigError(
                f"model.overrides.{key} is {value!r}, and a run sets it by {OWN[key]}: set that in its place"
            )
    if (
        "\0" in config.tag
        or not config.tag
        or os.path.basename(config.tag) != config.tag
        or config.tag in (".", "..")
    ):
        raise ConfigError(f"tag is {config.tag!r}; it names one folder, so it holds no path")


def broken_rule(value: Any, limits: Any) -> str:
    """Return the rule of a field's limits that a value breaks, for a message; empty: none."""
    if "choices" in limits:
        return "" if value in limits["choices"] else f"is one of {', '.join(limits['choices'])}"
    if "size" in limits:
        known = (isinstance(value, list) and len(value) == 2) or not isinstance(value, list)
        whole = all(
            type(side) is int and side > 0 for side in (value if isinstance(value, list) else [value])
        )
        return "" if known and whole else "takes pixels, 1 or more: the side of a square, or [height, width]"
    if "each_above" in limits:
        fits = all(number > limits["each_above"] for number in value)
        return "" if fits else f"takes numbers above {limits['each_above']} alone"
    if "pair" in limits:
        fits = value is None or (len(value) == 2 and value[0] <= value[1])
        return "" if fits else "takes two numbers, the smaller one first"
    low, high, above, below = (limits.get(name) for name in ("minimum", "maximum", "above", "below"))
    if value is None or (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
        return ""
    if high is not None:
        return f"must be from {low} to {high}"
    texts = (("at least", low), ("above", above), ("below", below))
    return "must be " + " and ".join(f"{text} {limit}" for text, limit in texts if limit is not None)
