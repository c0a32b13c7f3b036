"""From images to the likeliest classes, with an exported model or an eager one."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.pictures import read_image
from ..utils.errors import UserError, unknown
from .backends import EagerEngine, Engine, OnnxEngine, OpenVinoEngine, PaddleEngine, check_device
from .card import default_preprocessing, read_card, square_side

if TYPE_CHECKING:
    import paddle
    from PIL import Image

    from ..data.transforms import Compose

__all__ = ["Prediction", "Predictor", "read_image"]

ENGINES = ("auto", "paddle", "openvino", "onnx")


@dataclass(frozen=True)
class Prediction:
    """One class for one image: its number, its name (the number as text without names), its probability."""

    index: int
    name: str
    probability: float


class Predictor:
    """Classifies images as the model that was trained does: the same transform, the same numbers.

    Threads may share one: they take turns at the engine, and transform their images side by side.

    Args:
        source: a folder of `python -m paddle_inline export`, or a model of `create_model`.
        device: "cpu", "gpu" or "gpu:1"; of a model: where it is.
        threads: CPU threads; None: the cores this process may use.
        precision: "fp32" or "bf16", the latter not with ONNX Runtime.
        engine: "paddle"; "openvino" or "onnx" (ONNX Runtime), on a CPU and for a folder that holds an ONNX
            file; "auto": the fastest that can be had (`choose_engine`).
        onednn: None: as the export found it to work.
        classes: names to use in place of the card's.

    Raises:
        MissingFileError, UserError: a folder that is no export, or options that do not fit it.
    """

    def __init__(
        self,
        source: str | Path | paddle.nn.Layer,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        engine: str = "auto",
        onednn: bool | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; give a positive number, or None for all cores")
        check_device(device)
        self.options: dict[str, Any] = {"device": device, "threads": threads, "precision": precision}
        self.engine = engine
        self._engine: Engine | None = None  # made for the first images
        self._lock = threading.Lock()  # engines serve one call at a time
        if isinstance(source, (str, Path)):
            self.directory = Path(source)
            self.card = read_card(source)
            self.onednn = self.card["onednn"] if onednn is None else onednn
            has_onnx = self.card["files"].get("onnx") is not None
            if engine == "auto":
                self.engine = engine = choose_engine(has_onnx and onednn is None, device, precision)
            if engine != "paddle" and not has_onnx:
                raise UserError(f"{source} holds no ONNX file: export the model with --onnx")
            if engine != "paddle" and device != "cpu":
                raise UserError(f"engine {engine} runs on the CPU; use engine paddle for {device}")
            if engine == "onnx" and precision != "fp32":
                raise UserError(f"engine onnx runs float32; use paddle or openvino for {precision}")
        else:
            if precision != "fp32" or engine not in ("auto", "paddle"):
                raise UserError("a model runs eagerly in its own precision; export it for other engines")
            self.card = {
                "model": source.name,
                "num_classes": source.spec.num_classes,
                "classes": None,
                "preprocessing": default_preprocessing(source.name, square_side(source.img_size)),
                "input": {"shape": [None]},
            }
            self._engine = EagerEngine(source)
        self.classes = classes or self.card["classes"]
        if self.classes is not None and len(self.classes) != self.card["num_classes"]:
            raise UserError(
                f"{len(self.classes)} class names for a model of {self.card['num_classes']} classes"
            )

    @functools.cached_property
    def _transform(self) -> Compose:
        from ..data.transforms import eval_transform

        values = dict(self.card["preprocessing"])
        return eval_transform(values.pop("img_size"), **values)

    def transform(self, image: Image.Image) -> np.ndarray:
        """Return a PIL image as [3, S, S] float32, by the training's evaluation transform."""
        return self._transform(image.convert("RGB"), None)  # type: ignore[arg-type]  # it draws nothing

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits [B, classes] of transformed images [B, 3, S, S] float32, for any B."""
        size = self.card["input"]["shape"][0] or max(1, len(images))
        parts = [np.zeros((0, self.card["num_classes"]), np.float32)]
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padding = np.zeros((size - len(part), *part.shape[1:]), part.dtype)  # of a fixed batch
            parts.append(self._run(np.concatenate([part, padding]))[: len(part)])
        return np.concatenate(parts)

    def __call__(
        self, images: Iterable[Image.Image], topk: int = 5, batch_size: int = 8
    ) -> list[list[Prediction]]:
        """Return the `topk` likeliest classes of each PIL image, likeliest first.

        Raises:
            UserError: `topk` or `batch_size` is below 1.
        """
        if topk < 1 or batch_size < 1:
            raise UserError(f"topk is {topk} and batch_size is {batch_size}; both start at 1")
        images, predictions = list(images), []
        for start in range(0, len(images), batch_size):
            batch = np.stack([self.transform(image) for image in images[start : start + batch_size]])
            for row in softmax(self.logits(batch)):
                best = np.argsort(-row, kind="stable")[:topk]
                predictions.append([Prediction(int(i), self.name_of(int(i)), row[i].item()) for i in best])
        return predictions

    def name_of(self, index: int) -> str:
        """Return the name of a class, its number as text where there are no names."""
        return str(index) if self.classes is None else self.classes[index]

    def _run(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            if self._engine is None:
                self._engine = self._start(images)
            return self._engine(images)

    def _start(self, images: np.ndarray) -> Engine:
        """Open the folder's engine and try it; without oneDNN where oneDNN fails here."""
        files = {kind: name and self.directory / name for kind, name in self.card["files"].items()}
        if self.engine == "onnx":
            return OnnxEngine(files["onnx"], self.options["threads"])
        if self.engine == "openvino":
            return OpenVinoEngine(files["onnx"], self.options["threads"], self.options["precision"])
        program = files["program"], files["params"]
        try:
            engine = PaddleEngine(*program, **self.options, onednn=self.onednn)
            engine(images)
            return engine
        except RuntimeError as error:
            if not self.onednn or self.options["device"] != "cpu" or self.options["precision"] != "fp32":
                raise
            reason = str(error).strip().splitlines()[-1]
            warnings.warn(f"oneDNN fails on this program and is left off: {reason}", stacklevel=4)
            self.onednn = False
            return PaddleEngine(*program, **self.options, onednn=False)


def choose_engine(has_onnx: bool, device: str, precision: str) -> str:
    """Return the fastest engine that is installed.

    On a CPU that is OpenVINO, then ONNX Runtime in float32, then Paddle's (benchmarks/inference.py).
    """
    if has_onnx and device == "cpu":
        if find_spec("openvino"):
            return "openvino"
        if find_spec("onnxruntime") and precision == "fp32":
            return "onnx"
    return "paddle"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities along the last dimension, in float64."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
