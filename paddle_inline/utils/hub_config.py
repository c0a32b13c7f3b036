"""What a folder in the layout of the Hugging Face hub says of its model; both packages have this text.

Written for timm, which reads `architecture`, `model_args` and `pretrained_cfg`; what it has no place for stands under
`paddle_inline`. A file of timm's own for one of these models is read, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MissingFileError, UserError, counted, short

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
OWN = "paddle_inline"  # the entry of config.json that timm does not know
FORMAT = 1
_LARGEST_CONFIG = 1 << 26  # bytes: a million names of classes
_SMALL = 32  # pixels: images of no larger side are not cropped at evaluation


@dataclass(frozen=True)
class Described:
    """What a folder's config.json says: all that builds the model and makes its images."""

    model: str
    overrides: dict[str, Any]
    transform: dict[str, Any] | None = None  # arguments of an evaluation transform; None: unknown
    classes: list[str] | None = None
    sha256: str | None = None  # of the weights


def timm_transform(transform: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation transform as entries of timm's `pretrained_cfg`."""
    size = transform["img_size"]
    sides = [size, size] if isinstance(size, int) else list(size)
    crops = transform["crop"] and max(sides) > _SMALL
    return {
        "interpolation": transform["interpolation"],
        "crop_pct": transform["crop_ratio"] if crops else 1.0,
        "crop_mode": "center" if crops and transform["resize"] == "short" else "squash",
        "mean": list(transform["mean"]),
        "std": list(transform["std"]),
    }


def transform_of(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the evaluation transform that timm's entries describe, the inverse of `timm_transform`; None where an
    entry is missing or of a kind that there is not here."""
    size, mode, ratio = cfg.get("input_size"), cfg.get("crop_mode"), cfg.get("crop_pct")
    if mode not in ("center", "squash") or not isinstance(size, list) or len(size) != 3:
        return None
    values = {key: cfg.get(key) for key in ("mean", "std", "interpolation")}
    if None in values.values() or ratio is None:
        return None
    whole = ratio == 1 and mode == "squash"
    return {
        "img_size": size[1] if size[1] == size[2] else size[1:],
        **values,
        "crop": not whole,
        "resize": "short" if mode == "center" else "square",
        "crop_ratio": 0.875 if whole else ratio,
    }


def config_of(described: Described, model: Any, sha256: str | None = None) -> dict[str, Any]:
    """Return the contents of config.json.

    Args:
        described: the model, its transform and its classes.
        model: itself, of either framework; its parameters need no values.
        sha256: of the weights.
    """
    spec, transform = model.spec, described.transform
    size = spec.img_size
    height, width = (size, size) if isinstance(size, int) else size
    tensors = model.state_dict()
    firsts = [
        name for name in tensors if len(tensors[name].shape) == 4 and tensors[name].shape[1] == spec.in_chans
    ]
    config: dict[str, Any] = {
        "architecture": described.model,
        "num_classes": spec.num_classes,
        "num_features": model.num_features,
        "model_args": {key: value for key, value in described.overrides.items() if key != "num_classes"},
        "pretrained_cfg": {
            "input_size": [spec.in_chans, height, width],
            "fixed_input_size": True,
            **(timm_transform(transform) if transform else {}),
            "num_classes": spec.num_classes,
            "first_conv": firsts[0].rsplit(".", 1)[0] if firsts else None,
            "classifier": "head",
        },
    }
    if described.classes is not None:
        config["label_names"] = list(described.classes)
    own = {"format": FORMAT, "sha256": sha256, "transform": dict(transform) if transform else None}
    config[OWN] = {key: value for key, value in own.items() if value is not None}
    return config


def read_config(folder: Path) -> Described:
    """Read a folder's config.json, as this package or timm wrote it.

    Raises:
        UserError: a file of the two is missing, or it does not describe a model in that way.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            what = "config.json and model.safetensors make a folder of the hub's layout"
            raise MissingFileError(
                f"{folder} has no {name}: {what}; get the folder whole, with save_pretrained or again"
            )
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise UserError(f"{path} has {path.stat().st_size} bytes, which no description of a model has")
        config = json.loads(path.read_bytes())
        return _described(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {short(str(error))}; get the folder again") from None


def _described(config: Any) -> Described:
    """Return what a config.json says, its kinds of values checked; UserError without the file's name."""
    cfg = config.get("pretrained_cfg", {}) if isinstance(config, dict) else None
    if not isinstance(cfg, dict) or not isinstance(config.get("architecture"), str):
        raise UserError(
            "it names no model under 'architecture'; it is not of a folder that timm or this package wrote"
        )
    arguments, own = config.get("model_args", {}), config.get(OWN, {})
    if not isinstance(arguments, dict) or not isinstance(own, dict):
        raise UserError(f"model_args and {OWN} must be dictionaries")
    if own.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"it has format {short(repr(own['format']))}; this version reads {FORMAT}: install a later one"
        )
    overrides = {key: _tuples(value) for key, value in arguments.items()}
    said = config.get("num_classes", cfg.get("num_classes"))
    known = [overrides.get("num_classes", said), cfg.get("num_classes", said)]
    if any(each != said for each in known):
        raise UserError(f"its entries of num_classes differ, {short(repr(said))} is one: change all or none")
    overrides.update({"num_classes": said} if said is not None else {})
    size = cfg.get("input_size")
    if isinstance(size, list) and len(size) == 3 and all(type(side) is int for side in size):
        overrides.setdefault("in_chans", size[0])
        overrides.setdefault("img_size", size[1] if size[1] == size[2] else tuple(size[1:]))
    transform, digest = own.get("transform"), own.get("sha256")
    if digest is not None and not isinstance(digest, str):
        raise UserError(f"its sha256 is {short(repr(digest))}")
    if transform is not None:
        _check_twice(transform, cfg)
    names = config.get("label_names", cfg.get("label_names"))
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError("its label_names are not a list of names")
    check_classes(names, said if type(said) is int else len(names or ()))
    return Described(config["architecture"], overrides, transform or transform_of(cfg), names or None, digest)


def check_classes(names: Sequence[str] | None, outputs: int) -> None:
    """Refuse, with a UserError, more names of classes than a model has outputs; fewer are those of the first ones."""
    if names is not None and len(names) > outputs:
        raise UserError(
            f"{counted(len(names), 'class name')} for {counted(outputs, 'output')}: leave out those that it lacks"
        )


def _check_twice(transform: Any, cfg: Mapping[str, Any]) -> None:
    """Refuse a transform that is no transform, or that timm's entries contradict."""
    try:
        expected = timm_transform(transform)
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"the transform in {OWN} is none that this package writes") from None
    for key, value in expected.items():
        if cfg.get(key) != value:
            said = short(repr(cfg.get(key)))
            raise UserError(
                f"pretrained_cfg says {key} {said}, and the transform in {OWN} {value!r}: change both, or remove that"
            )


def _tuples(value: Any) -> Any:
    """Return a value that went through JSON, which has no tuples, as `create_model` takes it."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def check_weights(
    folder: Path,
    described: Described,
    stated: tuple[str, Mapping[str, Any]] | None,
    spec_of: Callable[..., Any],
) -> None:
    """Refuse weights that are not those that a folder's config.json describes.

    Args:
        folder: with both.
        described: what config.json says.
        stated: (model, overrides) that the weights themselves say they are of; None: they do not.
        spec_of: from these to a model's row of sizes.

    Raises:
        UserError: their SHA-256, or the model that they say they are of, is another.
    """
    if described.sha256 is not None and sha256_of(folder / WEIGHTS) != described.sha256:
        raise UserError(
            f"{folder / WEIGHTS} is not the file that {CONFIG} describes: its SHA-256 is another. It was damaged or "
            f"replaced; get both files again, or remove sha256 from {CONFIG} if the new one is meant"
        )
    if stated is None:
        return
    said, own = {"architecture": described.model}, {"architecture": stated[0]}
    if said == own:
        said = vars(spec_of(described.model, **described.overrides))
        own = vars(spec_of(stated[0], **stated[1]))
    for key, value in own.items():
        if key not in ("published", "recompute") and said.get(key) != value:
            raise UserError(
                f"{folder}: {CONFIG} says {key}={short(repr(said.get(key)))}, the weights say that they are of a model "
                f"with {short(repr(value))}; get both files again"
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def card_of(described: Described, parameters: int, license: str | None, notes: Sequence[str]) -> str:
    """Return a model card: what the model is, how its images are made, how to load it.

    Args:
        described: the model; its classes and transform where they are known.
        parameters: their number.
        license: of the weights, an identifier of the hub; None: left out.
        notes: lines on where the weights are from and how they were checked.
    """
    name, overrides, transform = described.model, described.overrides, described.transform
    rows = {"Parameters": f"{parameters:,}"}
    if overrides:
        rows["Built with"] = ", ".join(f"`{key}={value!r}`" for key, value in overrides.items())
    if described.classes:
        shown = ", ".join(described.classes[:10])
        more = f" and {len(described.classes) - 10} more" if len(described.classes) > 10 else ""
        rows["Classes"] = f"{len(described.classes)}: {shown}{more}"
    made = ", ".join(f"{key} {value}" for key, value in (transform or {}).items())
    rows["Images"] = made or "how they are to be made was not recorded with the weights"
    table = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items())
    family = "SOFT" if name.startswith("soft") else "InLine"
    head = [
        "---",
        *([f"license: {license}"] if license else []),
        "library_name: paddle-inline",
        "pipeline_tag: image-classification",
        "tags: [image-classification, paddlepaddle, pytorch, timm, linear-attention]",
        "---",
    ]
    return "\n".join(
        [
            *head,
            "",
            f"# {name}",
            "",
            f"An image classifier of the {family} family, as `paddle_inline` (PaddlePaddle) and its twin `torch_ref`",
            "(PyTorch) build it. The weights are stored by PyTorch's names and in its layout.",
            "",
            "| | |",
            "|---|---|",
            table,
            "",
            *[line for note in notes for line in (note, "")],
            "```python",
            "import paddle_inline                                      # PaddlePaddle",
            'model = paddle_inline.from_pretrained("FOLDER or OWNER/NAME")',
            "",
            "import torch_ref                                          # PyTorch",
            'model = torch_ref.from_pretrained("FOLDER or OWNER/NAME")',
            "",
            "import timm                                               # PyTorch, through timm",
            "from torch_ref.timm_registry import register_with_timm",
            "register_with_timm()",
            'model = timm.create_model("local-dir:FOLDER", pretrained=True)    # or hf-hub:OWNER/NAME',
            "```",
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
