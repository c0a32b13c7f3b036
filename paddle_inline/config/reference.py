"""What every setting means: the text of `python -m paddle_inline settings` and of docs/settings.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .schema import Config, known_settings

# key -> its meaning, of every setting; a test compares the keys with the schema's.
MEANINGS = {
    "model.name": "the model: a name of `python -m paddle_inline list`",
    "model.num_classes": "outputs; null: as many as the data set has classes",
    "model.in_chans": "channels of the images: 1 grey, 3 RGB, 4 RGB and alpha",
    "model.drop_rate": "dropout of single numbers",
    "model.drop_path_rate": "stochastic depth: rate of the last block, rising from 0 at the first",
    "model.label_smoothing": "share of a label that is spread over all classes",
    "model.overrides": "more arguments of `create_model`, e.g. `model.overrides.attn_type=softmax`",
    "model.pretrained": "weights to begin with, or to evaluate; any input size and number of classes",
    "model.resume": "a checkpoint, a run's folder, or `auto`: this run's newest checkpoint",
    "data.dataset": "the kind of data",
    "data.data_path": "its folder or archive",
    "data.val_split": "share of each class that is held out of a folder without val; 0: none",
    "data.batch_size": "images per device and batch",
    "data.img_size": "pixels: the side of a square, or [height, width]",
    "data.interpolation": "filter for resizing; `random`: drawn for each training image",
    "data.zip_mode": "images are read from zip files",
    "data.num_workers": "processes per device that load images; 0: the training process does",
    "data.on_bad_image": "an image that cannot be read: end the run, take another, or take what is there of it",
    "data.reduced_decoding": "decode large JPEGs at 1/2, 1/4 or 1/8 for training: faster, pixels differ by 0.5 of 255",
    "data.mean": "of each channel, of values from 0 to 1; subtracted",
    "data.std": "of each channel, of values from 0 to 1; divided by",
    "train.epochs": "passes over the data, warm-up included, cool-down not",
    "train.warmup_epochs": "epochs in which the rate rises from `train.warmup_lr`",
    "train.cooldown_epochs": "epochs at `train.min_lr` after `train.epochs`",
    "train.base_lr": "highest learning rate, for `train.lr_batch` images a step",
    "train.warmup_lr": "rate of the first step, for `train.lr_batch` images a step",
    "train.min_lr": "rate at the end, for `train.lr_batch` images a step",
    "train.lr_batch": "images a step that the rates are for; null: the rates are as they are",
    "train.lr_scaled": "which rates `train.lr_batch` scales: all, or `train.base_lr` alone",
    "train.lr_per": "whether the rate changes with every step or every epoch",
    "train.weight_decay": "of matrices and convolutions; not of biases, norms, tokens and tables",
    "train.clip_grad": "largest norm of all gradients together; null or 0: not cut",
    "train.accumulation_steps": "batches whose gradients are averaged for one step",
    "train.use_checkpoint": "recompute activations in the backward pass: less memory, more time",
    "train.sync_bn": "batch normalisation over all devices",
    "train.auto_resume": "the same as `model.resume: auto`",
    "train.max_bad_losses": "losses in a row that are not finite before the run stops",
    "train.lr_scheduler.name": "shape of the learning rate after the warm-up",
    "train.lr_scheduler.decay_epochs": "`step` alone: epochs between two falls",
    "train.lr_scheduler.decay_rate": "`step` alone: factor of a fall",
    "train.optimizer.name": "the optimizer; adam's decay is an L2 penalty, adamw's is not",
    "train.optimizer.eps": "added to the root of the second moment",
    "train.optimizer.betas": "decay of the first and the second moment",
    "train.optimizer.momentum": "sgd alone, in Nesterov's form",
    "aug.scale": "least and largest share of the area that a training crop keeps",
    "aug.ratio": "least and largest width / height of a training crop",
    "aug.hflip": "probability of a mirrored image",
    "aug.rotation": "largest angle, to either side, in degrees",
    "aug.color_jitter": "strength of changes in brightness, contrast, saturation; where `aug.auto_augment` is none",
    "aug.auto_augment": "RandAugment in timm's notation: m magnitude, n operations, mstd spread, inc1 stronger; `none`",
    "aug.reprob": "probability of an erased box",
    "aug.remode": "what the box is filled with: noise per pixel, one colour drawn, or zeros",
    "aug.recount": "most boxes of an image",
    "aug.mixup": "alpha of MixUp; 0: off",
    "aug.cutmix": "alpha of CutMix; 0: off",
    "aug.cutmix_minmax": "least and largest side of CutMix's box as a share, in place of its alpha",
    "aug.cutmix_boxes": "rounding of CutMix's boxes: timm 1.0's, or timm 0.4.12's, a pixel shorter",
    "aug.mixup_prob": "probability that a batch is mixed at all",
    "aug.mixup_switch_prob": "share of CutMix where both are on",
    "aug.mixup_mode": "one draw for a batch, for a pair of images, or for each image",
    "ema.decay": "share of itself that an average of the weights keeps at a step; null: no average",
    "ema.lr_batch": "images a step that the decay is for; null: as it is",
    "ema.warmup": "the decay grows with the steps, as 1 - steps^(-2/3), until it is `ema.decay`",
    "amp.level": "mixed precision on a GPU: off, operations in 16 bits, weights too; bfloat16 is refused on a CPU",
    "amp.dtype": "the 16-bit type; float16 comes with loss scaling",
    "gpu.prefetch": "batches that are moved to a GPU ahead, through pinned memory; 0: none",
    "gpu.fused_update": "on a GPU, one kernel updates all tensors of a group: adamw, and the average of the weights",
    "gpu.fused_attention": "on a GPU, softmax blocks use Paddle's fused attention where types and shapes allow",
    "gpu.autotune": "on a GPU, cuDNN and Paddle try their algorithms in the first steps and keep the fastest",
    "gpu.tf32": "a GPU may round factors of float32 products and convolutions to ten bits; null: as Paddle has it",
    "test.crop": "evaluate on the centre of a larger image; false: on the whole, resized",
    "test.resize": "before that crop: both sides alike, or the short side with the aspect kept",
    "test.crop_ratio": "share of the side that the crop keeps",
    "test.reduced_decoding": "the same for the held-out images, whose accuracy it may change",
    "eval_mode": "the same as `--eval`",
    "throughput_mode": "the same as `--throughput`",
    "output": "the folder of all runs; a run is in OUTPUT/MODEL/TAG",
    "tag": "name of the run's own folder",
    "seed": "of all that is drawn",
    "print_freq": "steps between two rows of `metrics.jsonl` and points of VisualDL's curves, and readings of the GPU",
    "save_freq": "epochs between two checkpoints",
    "save_steps": "steps between two checkpoints within an epoch; 0: none",
    "keep_last": "checkpoints that are kept",
    "save_optimizer": "also write the optimizer beside the best weights, and the final weights",
    "visualdl": "write curves for VisualDL, where it is installed",
    "histogram_freq": "epochs between histograms of all weights in VisualDL; 0: none",
}

_TYPES = {"int": "whole number", "float": "number", "bool": "true, false", "str": "text", "Any": "pixels"}
_LISTS = {"list[float]": "numbers", "list[str]": "texts", "dict[str, Any]": "keys with values"}


class Described(NamedTuple):
    """A setting as the reference shows it."""

    key: str
    takes: str
    default: str
    meaning: str


def reference(keys: Iterable[str] | None = None) -> list[Described]:
    """Return every setting, or those of `keys`, in the schema's order."""
    known, config = known_settings(), Config()
    chosen = known if keys is None else set(keys)
    return [
        Described(key, _takes(field), _default(config, key), MEANINGS[key])
        for key, field in known.items()
        if key in chosen
    ]


def as_markdown() -> str:
    """Return docs/settings.md: a table for each section."""
    lines = [
        "# Settings",
        "",
        "Every key of the YAML files, of `-o KEY=VALUE` and of `--opts KEY VALUE`. Made by",
        "`python -m paddle_inline settings --markdown`; without `--markdown` it prints them in the terminal, and",
        "`settings aug` those whose key holds a text. An unknown key, a value of another type or out of its range is",
        "refused before anything is read.",
    ]
    section = None
    for row in reference():
        head = row.key.rpartition(".")[0]
        if head != section:
            section = head
            lines += [
                "",
                f"## {head or 'The run'}",
                "",
                "| Key | Default | Takes | Meaning |",
                "|---|---|---|---|",
            ]
        lines.append(
            f"| `{row.key}` | {f'`{row.default}`' if row.default else '(empty)'} | {row.takes} | {row.meaning} |"
        )
    return "\n".join(lines) + "\n"


def _takes(field: dataclasses.Field) -> str:
    kind, limits = str(field.type), field.metadata
    optional = kind.startswith("Optional[")
    kind = {**_TYPES, **_LISTS}[kind[len("Optional[") : -1] if optional else kind]
    words = {"minimum": "from", "above": "above", "maximum": "to", "below": "below"}
    bounds = " ".join(f"{word} {limits[name]}" for name, word in words.items() if name in limits)
    if "choices" in limits:
        kind = ", ".join(limits["choices"])
    elif "pair" in limits:
        kind = "two numbers, the smaller first"
    elif "each_above" in limits:
        kind += f" above {limits['each_above']}"
    elif bounds:
        kind += f" {bounds}"
    return kind + (", or null" if optional else "")


def _default(config: Config, key: str) -> str:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    if isinstance(value, list):
        return f"[{', '.join(f'{each:.6g}' for each in value)}]"
    return f"{value:g}" if type(value) is float else value if isinstance(value, str) else json.dumps(value)
