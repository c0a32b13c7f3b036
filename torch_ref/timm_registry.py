"""Offer the models to timm: after `register_with_timm()`, `timm.create_model("inline_deit_tiny")` works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch

from .hub import checked, from_pretrained
from .models import create_backbone, create_model, list_models
from .models.factory import overrides_of
from .utils.errors import UserError
from .utils.hub import HUB, LOCAL, no_download
from .utils.hub_config import Described, config_of

# What timm hands to every model about files that it would download.
TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "cache_dir")


def register_with_timm() -> None:
    """Add every name of `list_models()` to timm's registry.

    timm's own arguments that the models share (num_classes, in_chans, img_size, drop_rate,
    drop_path_rate) and every override of `create_model` pass through. There are no pretrained weights to
    download by a model's name: `pretrained=True` is a UserError that says how to load a file. With
    `local-dir:FOLDER` or `hf-hub:OWNER/NAME` for a name it loads what `save_pretrained` wrote (hub.py).

    With `features_only=True` the answer is `create_backbone`'s, for images of any size, with its arguments
    (`out_indices`, `out_norm`, ...) and timm's `feature_info`; maps are [B, C, H, W] in every family.

    Raises:
        ImportError: timm is not installed.
        UserError: timm's torchvision does not fit this torch.
    """
    try:
        from timm.models import is_model, model_entrypoint, register_model
    except RuntimeError as error:  # operator torchvision::nms does not exist
        if "torchvision" not in str(error):
            raise
        raise UserError(
            f"timm imports torchvision {version('torchvision')}, which was not built for torch {torch.__version__} "
            f"({error}): install both at once from one index, both for CPUs or both for the same CUDA: pip install "
            "--force-reinstall torch torchvision --index-url URL, with the URL that pytorch.org/get-started gives"
        ) from error

    for name in list_models():
        if is_model(name) and model_entrypoint(name).__module__ == __name__:
            continue  # of a call before this one
        register_model(_builder(name))


def _builder(name: str) -> Callable[..., torch.nn.Module]:
    def build(pretrained: bool = False, pretrained_cfg: Any = None, **overrides: Any) -> torch.nn.Module:
        own = {key: value for key, value in overrides.items() if key not in TIMM_ONLY}
        cfg = pretrained_cfg if isinstance(pretrained_cfg, dict) else {}
        source = _source(cfg)
        if own.pop("features_only", False):
            if source:
                own.pop("img_size", None)  # of the classifier: a backbone takes any
            if pretrained and not source:
                raise no_download(name)
            return _features(name, **own, **({"weights": checked(source)[0]} if pretrained else {}))
        if pretrained and source:
            model = from_pretrained(source, **own)
        else:
            model = create_model(name, pretrained=pretrained, **({**_sizes(cfg), **own} if source else own))
        known = getattr(model, "description", {})
        told = Described(name, overrides_of(model), known.get("transform"), known.get("classes"))
        config = config_of(told, model)
        names = {key: config[key] for key in ("architecture", "label_names") if key in config}
        # where timm's tools look for how images are made, and for what they save
        model.pretrained_cfg = model.default_cfg = {**names, **config["pretrained_cfg"]}
        return model

    build.__name__ = name
    build.__module__ = __name__
    return build


def _source(cfg: Mapping[str, Any]) -> str:
    """Return the folder or repository whose config.json timm has read; "" where a name in its registry was given."""
    if cfg.get("source") == "local-dir":
        return f"{LOCAL}{cfg['file']}"
    return f"{HUB}{cfg['hf_hub_id']}" if cfg.get("source") == "hf-hub" else ""


def _sizes(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return what such a config.json says beside the arguments that timm hands on itself."""
    found = {"num_classes": cfg["num_classes"]} if "num_classes" in cfg else {}
    if "input_size" in cfg:
        found["in_chans"], *sides = cfg["input_size"]
        found["img_size"] = tuple(sides)
    return found


def _features(name: str, **arguments: Any) -> torch.nn.Module:
    """Return a backbone that says what its maps are in timm's way."""
    from timm.models import FeatureInfo

    backbone = create_backbone(name, **arguments)
    rows = [
        {"num_chs": channels, "reduction": stride, "module": f"stages.{i}", "index": i}
        for i, channels, stride in zip(backbone.out_indices, backbone.out_channels, backbone.strides)
    ]
    backbone.feature_info = FeatureInfo(rows, tuple(range(len(rows))))
    return backbone
