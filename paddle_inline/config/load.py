"""The training program's settings: typed, strict, from YAML files and the command line.

A setting comes, each later one winning, from: the defaults below; the file named by `base:` (and
that file's own base); the file itself; `--opts KEY VALUE ...`; `-o KEY=VALUE`. An unknown key is an
error that names the nearest known one, a value of the wrong type one that names the key, the value
and the type. Nothing is ever evaluated.

The files of Swin's lineage, with upper-case keys (`TRAIN.BASE_LR`), are accepted as they are.
"""

# ruff: noqa: UP045  (the settings are read at run time: Python 3.9 has no `X | None` then)

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, Optional, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..utils.errors import UserError


class ConfigError(UserError):
    """A setting that cannot be used: the message names it, the rule and the way out."""


@dataclass
class ModelConfig:
    name: str = "inline_deit_tiny"
    num_classes: Optional[int] = None  # null: as many as the data set has
    in_chans: int = 3
    drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    label_smoothing: float = 0.1
    overrides: dict[str, Any] = field(default_factory=dict)  # further ones of create_model
    pretrained: str = ""  # weights to start from, of any input size and class count
    resume: str = ""  # a checkpoint, a run's folder, or "auto"


@dataclass
class DataConfig:
    dataset: str = "imagenet"  # imagenet, cifar10, cifar100, digits
    data_path: str = ""
    batch_size: int = 128  # per device
    img_size: int = 224  # pixels, square
    interpolation: str = "bicubic"  # bicubic, bilinear, random
    zip_mode: bool = False
    num_workers: int = 8  # per device; 0 loads in the training process
    on_bad_image: str = "fail"  # fail, skip
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass
class ScheduleConfig:
    name: str = "cosine"  # cosine, linear, step
    decay_epochs: int = 30  # step only
    decay_rate: float = 0.1  # step only


@dataclass
class OptimizerConfig:
    name: str = "adamw"  # adamw, sgd, adam (whose decay is an L2 penalty)
    eps: float = 1e-8
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    momentum: float = 0.9  # sgd only, nesterov


@dataclass
class TrainConfig:
    epochs: int = 300  # warm-up included, cool-down not
    warmup_epochs: int = 20
    cooldown_epochs: int = 0  # at min_lr, after `epochs`
    base_lr: float = 5e-4
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    lr_batch: Optional[int] = 512  # rates are given for this many images an update; null: as is
    weight_decay: float = 0.05
    clip_grad: Optional[float] = 5.0  # global norm; null: off
    accumulation_steps: int = 1
    use_checkpoint: bool = False  # recompute activations in the backward pass
    sync_bn: bool = False
    auto_resume: bool = False  # the same as model.resume: auto
    max_bad_losses: int = 3  # in a row, not finite, before the run stops
    lr_scheduler: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class AugConfig:
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # of the area, when cropping
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    hflip: float = 0.5
    rotation: float = 0.0  # degrees, to either side
    color_jitter: float = 0.4  # not applied when auto_augment is on
    auto_augment: str = "rand-m9-mstd0.5-inc1"  # "none": off
    reprob: float = 0.25
    remode: str = "pixel"  # pixel, rand, const
    recount: int = 1
    mixup: float = 0.8
    cutmix: float = 1.0
    cutmix_minmax: Optional[list[float]] = None
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_mode: str = "batch"  # batch, pair, elem


@dataclass
class EmaConfig:
    decay: Optional[float] = None  # null: no average is kept
    lr_batch: Optional[int] = None  # decay ** (images an update / this); null: decay as is


@dataclass
class AmpConfig:
    level: str = "O0"  # O0: off; O1; O2
    dtype: str = "float16"  # float16, bfloat16


@dataclass
class TestConfig:
    crop: bool = True  # resize to 256/224 of the size, then crop; false: resize straight to it


@dataclass
class Config:
    """Everything `train_paddle.py` can be told."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    aug: AugConfig = field(default_factory=AugConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    amp: AmpConfig = field(default_factory=AmpConfig)
    test: TestConfig = field(default_factory=TestConfig)
    output: str = "output"
    tag: str = "default"
    seed: int = 0
    print_freq: int = 10  # updates between two lines of the log
    save_freq: int = 1  # epochs between two checkpoints
    save_steps: int = 0  # updates between two checkpoints within an epoch; 0: none
    keep_last: int = 2  # checkpoints kept
    save_optimizer: bool = False  # best_optimizer.pdopt, final_model.pdparams and final_optimizer.pdopt too
    visualdl: bool = True  # where it is installed
    histogram_freq: int = 0  # epochs between histograms of all weights in VisualDL; 0: none


# ---------------------------------------------------------------- the keys of Swin's lineage

# Keys that are read and not used, and why that loses nothing.
IGNORED = {
    "MODEL.TYPE": "the model is named by MODEL.NAME",
    "DATA.CACHE_MODE": "files are read when needed",
    "DATA.PIN_MEMORY": "the loader decides",
    "TRAIN.START_EPOCH": "a checkpoint knows its epoch",
    "TEST.SEQUENTIAL": "evaluation is always sequential",
    "TEST.SHUFFLE": "evaluation is always sequential",
    "LOCAL_RANK": "the launcher says it",
    "EVAL_MODE": "given by --eval",
    "THROUGHPUT_MODE": "given by --throughput",
    "FUSED_WINDOW_PROCESS": "a speed switch of another framework",
    "FUSED_LAYERNORM": "a speed switch of another framework",
    "ENABLE_AMP": "see AMP",
}
# What a model's architecture section may change; its other keys restate the named variant.
ARCHITECTURE = {"ATTN_TYPE": "attn_type", "WINDOW_SIZE": "window_size"}
SIZES = {"t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "h": "huge"}


def model_name(name: str) -> str:
    """The name of `list_models()` for a name as the authors' files spell it.

    `inline_deit_t` -> `inline_deit_tiny`, `inline_swin_b_384` -> `inline_swin_base_384`,
    `inline_pvt_b` -> `inline_pvt_large` (PVT's largest published size). Others come back unchanged.
    """
    parts = name.lower().split("_")
    if len(parts) >= 3 and parts[0] == "inline":
        if parts[1] == "pvt" and parts[2] in ("b", "base"):
            parts[2] = "large"
        parts[2] = SIZES.get(parts[2], parts[2])
    return "_".join(parts)


def _translate(key: str, value: Any) -> list[tuple[str, Any]]:
    """One upper-case setting in our keys: one pair, several, or none where nothing is to be set."""
    if key in IGNORED:
        return []
    if key == "MODEL.NAME":
        return [("model.name", model_name(str(value)))]
    if key in ("AMP_OPT_LEVEL", "AMP"):
        level = value if isinstance(value, str) else "O1" if value else "O0"
        return [("amp.level", level or "O0")]
    parts = key.split(".")
    if parts[0] == "MODEL" and len(parts) > 1 and key.lower() not in _known():
        if parts[-1] in ARCHITECTURE:
            return [("model.overrides." + ARCHITECTURE[parts[-1]], value)]
        if len(parts) > 2 or not _nearest(key.lower(), cutoff=0.85):
            return []  # restates the variant that MODEL.NAME names
    return [(key.lower(), value)]


# ---------------------------------------------------------------- reading


class Setting(NamedTuple):
    """A dotted key, its value, and where a message says it came from."""

    key: str
    value: Any
    origin: str


def load_config(path: str = "", opts: Sequence[str] = (), assignments: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        path: a YAML file, or an empty string for the defaults.
        opts: `[key, value, key, value, ...]`, as `--opts` takes them.
        assignments: `["key=value", ...]`, as `-o` takes them; a value may contain `=`.

    Returns:
        The settings as plain dataclasses.

    Raises:
        ConfigError: for an unknown key, a wrong type, a value out of range, an unreadable file.
    """
    settings = read_file(path) if path else []
    if len(opts) % 2:
        raise ConfigError(f"--opts takes pairs of KEY VALUE; {opts[-1]!r} has no value")
    settings += [Setting(k, v, "--opts") for k, v in zip(opts[::2], opts[1::2])]
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"-o {text!r}: write KEY=VALUE")
        settings.append(Setting(key.strip(), value, "-o"))

    config = OmegaConf.structured(Config)
    for setting in settings:
        for key, value in _ours(setting):
            _set(config, Setting(key, value, setting.origin))
    config = OmegaConf.to_object(config)
    check(config)
    return config


def read_file(path: str, seen: tuple[str, ...] = ()) -> list[Setting]:
    """The settings of a YAML file, those of its `base:` first."""
    real = os.path.realpath(path)
    if real in seen:
        raise ConfigError(f"{path}: base files form a circle: {' -> '.join((*seen, real))}")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file{_neighbours(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, not settings as `key: value`")
    settings = []
    bases = [tree.pop(key) for key in ("base", "BASE") if key in tree]
    for base in (b for entry in bases for b in (entry if isinstance(entry, list) else [entry])):
        if base:
            settings += read_file(os.path.join(os.path.dirname(path), str(base)), (*seen, real))
    return settings + [Setting(key, value, path) for key, value in _flatten(tree)]


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain dicts, for YAML and JSON."""
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=False)


def to_yaml(config: Config) -> str:
    """The settings as YAML that `load_config` reads back to the same values."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=False)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`key: old -> new` for every setting that differs between two results of `to_dict`."""
    a, b = dict(_flatten(old)), dict(_flatten(new))
    missing = "(absent)"
    keys = [key for key in {**a, **b} if a.get(key, missing) != b.get(key, missing)]
    return [f"{key}: {a.get(key, missing)} -> {b.get(key, missing)}" for key in keys]


# ---------------------------------------------------------------- the rules

CHOICES = {
    "data.dataset": ("imagenet", "cifar10", "cifar100", "digits"),
    "data.interpolation": ("bicubic", "bilinear", "random"),
    "data.on_bad_image": ("fail", "skip"),
    "train.lr_scheduler.name": ("cosine", "linear", "step"),
    "train.optimizer.name": ("adamw", "sgd", "adam"),
    "aug.remode": ("pixel", "rand", "const"),
    "aug.mixup_mode": ("batch", "pair", "elem"),
    "amp.level": ("O0", "O1", "O2"),
    "amp.dtype": ("float16", "bfloat16"),
}
AT_LEAST = {
    "model.in_chans": 1,
    "model.num_classes": 1,
    "data.batch_size": 1,
    "data.img_size": 1,
    "data.num_workers": 0,
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "train.cooldown_epochs": 0,
    "train.base_lr": 0,
    "train.warmup_lr": 0,
    "train.min_lr": 0,
    "train.lr_batch": 1,
    "train.weight_decay": 0,
    "train.accumulation_steps": 1,
    "train.max_bad_losses": 1,
    "train.lr_scheduler.decay_epochs": 1,
    "train.optimizer.eps": 0,
    "aug.rotation": 0,
    "aug.color_jitter": 0,
    "aug.recount": 1,
    "aug.mixup": 0,
    "aug.cutmix": 0,
    "ema.lr_batch": 1,
    "seed": 0,
    "print_freq": 1,
    "save_freq": 1,
    "save_steps": 0,
    "histogram_freq": 0,
    "keep_last": 1,
}
FRACTIONS = (
    "aug.hflip",
    "aug.reprob",
    "aug.mixup_prob",
    "aug.mixup_switch_prob",
    "train.lr_scheduler.decay_rate",
)
BELOW_ONE = ("model.label_smoothing", "model.drop_rate", "model.drop_path_rate", "ema.decay")
PAIRS = ("aug.scale", "aug.ratio", "aug.cutmix_minmax", "train.optimizer.betas")


def check(config: Config) -> None:
    """Refuses values that no run could use.

    Raises:
        ConfigError: naming the key, its value and the rule.
    """
    values = dict(_flatten(to_dict(config)))
    for key, known in CHOICES.items():
        if values[key] not in known:
            raise ConfigError(f"{key} is {values[key]!r}; it is one of {', '.join(known)}")
    for key, least in AT_LEAST.items():
        if values[key] is not None and not values[key] >= least:
            raise ConfigError(f"{key} is {values[key]}; it must be at least {least}")
    for key in FRACTIONS:
        if not 0 <= values[key] <= 1:
            raise ConfigError(f"{key} is {values[key]}; it must be from 0 to 1")
    for key in BELOW_ONE:
        if values[key] is not None and not 0 <= values[key] < 1:
            raise ConfigError(f"{key} is {values[key]}; it must be at least 0 and below 1")
    for key in PAIRS:
        pair = values[key]
        if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
            raise ConfigError(f"{key} is {pair}; it takes two numbers, the smaller one first")
    train, clip = config.train, config.train.clip_grad
    if clip is not None and not clip > 0:
        raise ConfigError(f"train.clip_grad is {clip}; it must be above 0, or null for none")
    if train.lr_scheduler.name != "step" and train.warmup_epochs >= train.epochs:
        raise ConfigError(
            f"train.warmup_epochs is {train.warmup_epochs} of {train.epochs} train.epochs; "
            "the warm-up must end before the run does"
        )
    if not config.tag or os.path.basename(config.tag) != config.tag or config.tag in (".", ".."):
        raise ConfigError(f"tag is {config.tag!r}; it names one folder, so it holds no path")


# ---------------------------------------------------------------- inside


def _ours(setting: Setting) -> list[tuple[str, Any]]:
    if setting.key.isupper():
        return _translate(setting.key, setting.value)
    return [(setting.key, setting.value)]


def _set(config: Any, setting: Setting) -> None:
    key, value, origin = setting
    known = _known()
    free = key.startswith("model.overrides.")
    if not free and key not in known:
        if any(name.startswith(key + ".") for name in known):
            raise ConfigError(f"{origin}: {key} is a section; set one of its keys, not {value!r}")
        near = _nearest(key)
        hint = f"; did you mean {near!r}?" if near else f"; sections are {', '.join(_sections())}"
        raise ConfigError(f"{origin}: unknown key {key!r}{hint}")
    kind = None if free else known[key]
    if isinstance(value, str) and kind is not None:
        if kind.startswith("Optional") and value.strip().lower() in ("none", "null", ""):
            value = None
        elif "list" in kind and value.strip()[:1] == "(":
            value = _parse("[" + value.strip()[1:-1] + "]")
        elif kind != "str":
            value = _parse(value)
    if free and origin in ("--opts", "-o"):
        value = _parse(value)
    if kind == "str" and value is None:
        value = ""
    if kind == "str" and isinstance(value, str) and key in CHOICES:
        value = value.upper() if key == "amp.level" else value.lower()
    problem = ConfigError(f"{origin}: {key} is {value!r}; it takes {_in_words(kind)}")
    if kind == "bool" and not isinstance(value, (bool, str)):
        raise problem  # a number would pass as true
    if "${" in str(value):
        raise ConfigError(f"{origin}: {key} is {value!r}; ${{...}} is not looked up here, write it out")
    try:
        OmegaConf.update(config, key, value, force_add=free)
    except OmegaConfBaseException:
        raise problem from None


def _known(cls: type = Config, prefix: str = "") -> dict[str, str]:
    """{dotted key: its type as written} of every setting."""
    known: dict[str, str] = {}
    hints = get_type_hints(cls)
    for f in fields(cls):
        if is_dataclass(hints[f.name]):
            known.update(_known(hints[f.name], f"{prefix}{f.name}."))
        else:
            known[prefix + f.name] = str(f.type)
    return known


def _sections() -> list[str]:
    return sorted({key.split(".")[0] for key in _known()})


def _nearest(key: str, cutoff: float = 0.6) -> str | None:
    known = list(_known())
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf[:1] or difflib.get_close_matches(key, known, n=1, cutoff=cutoff)
    return near[0] if near else None


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat += _flatten(value, f"{prefix}{key}.")
        elif not (isinstance(value, dict) or (value is None and f"{prefix}{key}" in _sections())):
            flat.append((f"{prefix}{key}", value))
    return flat


def _parse(text: str) -> Any:
    """A command line's value: a YAML scalar or list, otherwise the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _in_words(kind: str | None) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    if kind is None:
        return "a value"
    if kind.startswith("Optional["):
        return _in_words(kind[len("Optional[") : -1]) + ", or null"
    if kind.startswith("list["):
        return {"float": "a list of numbers", "str": "a list of texts"}[kind[len("list[") : -1]]
    return words.get(kind, "keys with values")


def _neighbours(path: str) -> str:
    folder = os.path.dirname(path) or "."
    try:
        near = difflib.get_close_matches(os.path.basename(path), os.listdir(folder), n=1)
    except OSError:
        return f" (nor a folder {folder})"
    return f"; did you mean {os.path.join(folder, near[0])}?" if near else ""
