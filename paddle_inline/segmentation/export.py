"""Segmenters as inference files for one size of pictures, checked against the model they came from.

model.json or model.pdmodel, model.pdiparams    images [1, 3, H, W] -> classes [1, H, W], int32
deploy.yaml                                     for PaddleSeg's own deployment programs
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import yaml
from paddle import Tensor, nn

from ..inference.backends import PaddleEngine
from ..inference.checks import ExportError
from ..utils.errors import MissingFileError, UserError
from ..utils.paths import expand, home_for_libraries
from ..weights.atomic import move_files, work_folder
from .heads import name_of
from .inference import in_eval_mode
from .settings import Settings

CARD = "deploy.yaml"


class _Classes(nn.Layer):
    """The class with the largest logit at every pixel."""

    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return paddle.argmax(self.model(images)[0], axis=1, dtype="int32")


def export(settings: Settings, model: paddle.nn.Layer, output: str, size: Sequence[int]) -> Path:
    """Write a segmenter's inference files, after comparing their classes with its own.

    Args:
        settings: whose `val_dataset.transforms` are noted down.
        model: with its weights.
        output: a folder; it is made, and files of an earlier export in it are replaced.
        size: height and width of the pictures, in pixels.

    Returns:
        The folder.

    Raises:
        ExportError: the program's classes differ from the model's; nothing is left.
        UserError: a size that the model cannot take, or a folder that cannot be written.
    """
    height, width = size
    if min(size) < 32:
        raise UserError(f"size {height} x {width}: height and width are 32 pixels or more")
    folder = Path(expand(output))
    with work_folder(folder) as work:
        program = _trace(model, work, height, width)
        _check(model, program, work / "model.pdiparams", height, width)
        transforms = (settings.tree.get("val_dataset") or {}).get("transforms", [])
        card = {
            "Deploy": {
                "model": program.name,
                "params": "model.pdiparams",
                "input_shape": [1, 3, height, width],
                "output_op": "argmax",
                "output_dtype": "int32",
                "transforms": transforms,
            },
            "Model": name_of(model),
        }
        (work / CARD).write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
        for name in ("model.json", "model.pdmodel", "model.pdiparams", CARD):
            (folder / name).unlink(missing_ok=True)
        move_files(work, folder, CARD)
        return folder


def _trace(model: nn.Layer, folder: Path, height: int, width: int) -> Path:
    layer = _Classes(model)
    spec = [paddle.static.InputSpec([1, 3, height, width], "float32", "images")]
    with in_eval_mode(model), warnings.catch_warnings(), home_for_libraries():
        warnings.simplefilter("ignore")  # about tensors without a place, by the tracer itself
        layer.eval()
        paddle.jit.save(layer, str(folder / "model"), input_spec=spec)
    Path(folder / "model.pdiparams.info").unlink(missing_ok=True)
    return next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))


def _check(model: nn.Layer, program: Path, params: Path, height: int, width: int) -> None:
    """Compare classes on random pictures; pixels whose two best logits are closer than rounding may differ."""
    images = np.random.RandomState(0).standard_normal((1, 3, height, width)).astype("float32")
    with in_eval_mode(model), paddle.no_grad():
        logits = model(paddle.to_tensor(images))[0].numpy()[0]
    found = PaddleEngine(program, params, onednn=False)(images)[0]
    first, second = np.sort(logits, 0)[[-1, -2]] if len(logits) > 1 else (logits[0], logits[0] - np.inf)
    clear = first - second > 1e-4 * np.abs(logits).max()
    wrong = (clear & (found != logits.argmax(0))).sum().item()
    if wrong:
        raise ExportError(
            f"the exported program gives {wrong} of {clear.size} pixels another class; it is not kept"
        )


def load_exported(folder: str | os.PathLike[str], device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images [1, 3, H, W] float32 to classes [1, H, W] int32, of an export's folder.

    oneDNN stays off: Paddle 3.3 cannot run some of these programs with it.

    Args:
        folder: that `export` wrote.
        device: "cpu", "gpu" or "gpu:1".

    Raises:
        MissingFileError: it is no such folder.
        UserError: pictures of another size than the export's.
    """
    folder = Path(expand(folder))
    if not (folder / CARD).is_file():
        raise MissingFileError(f"{folder} is no export: it has no {CARD}")
    card: dict[str, Any] = yaml.safe_load((folder / CARD).read_text(encoding="utf-8"))["Deploy"]
    engine = PaddleEngine(folder / card["model"], folder / card["params"], device=device, onednn=False)

    def run(images: np.ndarray) -> np.ndarray:
        if list(images.shape) != card["input_shape"]:
            raise UserError(f"images are {list(images.shape)}; this export takes {card['input_shape']}")
        return engine(images)

    return run
