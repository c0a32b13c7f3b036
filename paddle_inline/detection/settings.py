"""A detector's settings: a file over its bases, -o over both, into the toolkit's registry."""

from __future__ import annotations

import argparse
import os
from typing import Any

import paddle
import yaml

from ..toolkits.launcher import parse_overrides
from ..toolkits.settings import merge, read_settings
from ..utils.errors import UserError, unknown
from ..utils.paths import expand
from .imports import ppdet
from .toolkit import fresh_registry

# What the toolkit and our commands read at the top level, besides the sections that a file or the registry has.
RUN_KEYS = {
    "amp": False,
    "amp_level": "O1",
    "classwise": False,
    "epoch": 12,
    "export": None,
    "find_unused_parameters": True,
    "log_iter": 20,
    "metric": "COCO",
    "norm_type": "bn",
    "num_classes": 80,
    "output_eval": None,
    "print_params": False,
    "save_dir": "output/detection",
    "seed": 0,
    "snapshot_epoch": 1,
    "use_ema": False,
    "use_gpu": True,
    "use_mlu": False,
    "use_npu": False,
    "use_vdl": False,
    "use_xpu": False,
    "weights": None,
    "worker_num": 2,
}
# of exponential averages, which the toolkit chooses values for
EMA_KEYS = ("cycle_epoch", "ema_black_list", "ema_decay", "ema_decay_type", "ema_filter_no_grad")
DATA_SETS = ("TrainDataset", "EvalDataset", "TestDataset")


def load_settings(arguments: argparse.Namespace) -> Any:
    """Return the toolkit's registry with the settings of a command line, for the device that is there.

    Args:
        arguments: with `cfg`, a file, and `o`, the `KEY=VALUE` texts.

    Raises:
        UserError: a setting that nothing reads, or a file that cannot be read.
        MissingPackageError: the toolkit is not installed.
    """
    registry = fresh_registry()
    given = parse_overrides(arguments.o)
    settings = read_settings(arguments.cfg, "_BASE_", yaml.FullLoader, section="detection")
    check_known(given, settings, registry)
    if given.get("use_gpu") and not paddle.is_compiled_with_cuda():
        raise UserError(
            "use_gpu is true, but this Paddle is built for the CPU: leave it out, or install a GPU build"
        )
    merge(settings, given)
    if "pretrain_weights" in given:
        raise UserError(
            "pretrain_weights loads what fits and skips the rest: give InLineBackbone.pretrained=FILE for ImageNet "
            "weights, or weights=FILE for a whole detector's"
        )
    settings.pop("pretrain_weights", None)
    for name in DATA_SETS:
        section = settings.get(name)
        if isinstance(section, dict):
            for key in ("dataset_dir", "image_dir", "anno_path"):
                if isinstance(section.get(key), str):
                    section[key] = expand(section[key])
    for key in ("weights", "save_dir"):
        settings[key] = expand(settings.get(key, RUN_KEYS[key]))
    for key, value in RUN_KEYS.items():
        settings.setdefault(key, value)
    settings["use_gpu"] = bool(settings["use_gpu"]) and paddle.is_compiled_with_cuda()
    settings["filename"] = os.path.splitext(os.path.basename(arguments.cfg))[0]
    if "architecture" not in settings:
        raise UserError(
            f"{arguments.cfg}: has no architecture; take one of `python -m paddle_inline configs 'detection/*'`, or "
            "one as a base"
        )
    ppdet("core.workspace").merge_config(settings)
    check_section(registry, "InLineBackbone", registry["InLineBackbone"])
    paddle.set_device("gpu" if settings["use_gpu"] else "cpu")
    return registry


def check_known(given: dict[str, Any], settings: dict[str, Any], registry: dict[str, Any]) -> None:
    """Refuse a setting of the command line that nothing would read.

    Args:
        given: the settings of -o.
        settings: those of the file.
        registry: the toolkit's classes.
    """
    known = {**registry, **settings}
    for key, value in given.items():
        if key not in known and key not in RUN_KEYS and key not in (*EMA_KEYS, "pretrain_weights"):
            raise unknown("setting of -o", key, sorted({*settings, *RUN_KEYS}))
        if isinstance(value, dict):
            check_section(registry, key, value)
        elif isinstance(known.get(key), dict):
            raise UserError(f"-o {key}={value}: {key} is a section; set one of its keys, as {key}.KEY=VALUE")


def check_section(known: dict[str, Any], name: str, given: dict[str, Any]) -> None:
    """Refuse a key that a registered class does not take."""
    section: Any = known.get(name)
    if getattr(section, "strict", False):
        names = list(section.schema)
        for key in given:
            if key not in names and key != "name":
                raise unknown(f"setting of {name}", key, names)
