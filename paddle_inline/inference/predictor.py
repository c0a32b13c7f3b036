"""From images to the likeliest classes, with an exported model or an eager one.

(A few lines above 300: a Predictor's checks of what it is given stand where it takes it.)
"""

from __future__ import annotations

import functools
import itertools
import numbers
import os
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..data.pictures import describe, picture_mode, read_image, upright_rgb
from ..utils.errors import FileAccessError, UserError, WrongTypeError, counted, unknown
from ..utils.paths import expand
from .backends import (
    AUTO,
    INT8,
    NO_BFLOAT16,
    PRECISIONS,
    EagerEngine,
    Engine,
    OnnxEngine,
    OpenVinoEngine,
    PaddleEngine,
    check_device,
    check_streams,
    lacks_bfloat16,
    multiplies_bfloat16,
)
from .card import check_file, evaluation_of, read_card
from .engine_process import EngineProcess, needed_after_fork
from .int8 import int8_engine, precision_of_rest
from .pickled_model import PickledModel
from .pictures import Picture, pictures

if TYPE_CHECKING:
    import paddle

    from ..data.transforms import Compose

__all__ = ["Prediction", "Predictor", "read_image"]

ENGINES = ("auto", "paddle", "openvino", "onnx")
_ALIVE: weakref.WeakSet[Predictor] = weakref.WeakSet()
_LEFT_BEHIND: list[
    Any
] = []  # engines of the parent process: their threads are not here, so they cannot be ended
_FORKED = False  # from a process that had loaded an engine


@dataclass(frozen=True)
class Prediction:
    """One class for one image: its number, its name (the number as text without names), its probability."""

    index: int
    name: str
    probability: float


class Predictor:
    """Classifies images as the model that was trained does: the same transform, the same numbers.

    Threads may share one: they take turns at the engine, unless it has `streams`, and transform their images side by
    side. It can be pickled, before its first call and after, and used in a forked process, where the engine runs in a
    process of its own, one batch at a time, if Paddle, OpenVINO or ONNX Runtime was loaded before the fork. It leaves
    the process's streams, signals and environment alone.

    Args:
        source: a folder of `python -m paddle_inline export`, or a model of `create_model`. The model's transform and
            classes are those that its weights name; where they do not, the published recipe's, with a warning.
        device: "cpu", "gpu" or "gpu:1"; of a model: where it is.
        threads: CPU threads; None: the cores this process may use.
        precision: "fp32"; "bf16", not with ONNX Runtime; "int8", of an export that was made with `--int8`, in
            OpenVINO; or "auto": bf16 in OpenVINO, where the processor multiplies it and the export was found to keep
            its classes in it, else fp32. Where a CPU does not multiply bfloat16, "bf16" is fp32, with a warning.
            `options["precision"]` is what was taken; `why_precision` says why, of "auto" and of such a "bf16".
        engine: "paddle"; "openvino" or "onnx" (ONNX Runtime), on a CPU and for a folder that holds an ONNX
            file; "auto": the fastest that can be had (`choose_engine`).
        onednn: None: as the export found it to work.
        classes: names to use in place of the card's or the weights' own.
        streams: batches that OpenVINO runs at once, each on a part of the threads, where threads of yours call at
            once: more images a second. Other engines run one at a time, as all do with 1.

    Attributes:
        card: the export's card, or what is known of a model in the same form.
        assumed: what was assumed where the weights do not say, as one line; None: nothing.

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
        streams: int = 1,
    ) -> None:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        if threads is not None and (not isinstance(threads, numbers.Integral) or threads < 1):
            raise UserError(f"threads is {threads!r}; give a positive number, or None for all cores")
        check_streams(streams)
        if precision not in (AUTO, *PRECISIONS, INT8):
            raise unknown("precision", precision, (AUTO, *PRECISIONS, INT8))
        check_device(device)
        self.why_precision: str | None = None
        self.options: dict[str, Any] = {"device": device, "threads": threads, "precision": precision}
        self.engine = engine
        self.streams = int(streams)
        self.assumed: str | None = None
        self._model: paddle.nn.Layer | None = None
        self._ready()
        if isinstance(source, (str, Path)):
            self.directory = Path(expand(source)).absolute()  # the working directory may change
            self.card = read_card(expand(source))
            self.onednn = self.card["onednn"] if onednn is None else onednn
            has_onnx = self.card["files"].get("onnx") is not None
            if precision == INT8:
                self.engine = engine = int8_engine(self.card, engine, source)
            if engine == "auto":
                known = "fp32" if precision == AUTO else precision
                self.engine = engine = choose_engine(has_onnx and onednn is None, device, known)
            if engine != "paddle" and not has_onnx:
                raise UserError(f"{source} holds no ONNX file: export the model with --onnx")
            if engine != "paddle" and device != "cpu":
                way = "cpu" if precision == INT8 else f"engine paddle for {device}"
                raise UserError(f"engine {engine}, for {precision}, runs on the CPU; use {way}")
            if precision == AUTO:
                precision, self.why_precision = choose_precision(self.card, engine)
                self.options["precision"] = precision
            elif precision == "bf16" and self._may_run_bfloat16(device) and lacks_bfloat16(engine):
                precision, self.why_precision = "fp32", NO_BFLOAT16
                self.options["precision"] = precision
                warnings.warn(NO_BFLOAT16, stacklevel=2)
            if engine == "onnx" and precision != "fp32":
                raise UserError(f"engine onnx runs float32; use paddle or openvino for {precision}")
        else:
            if precision == AUTO:
                precision = self.options["precision"] = "fp32"
                self.why_precision = "a model runs eagerly in its own precision"
            if precision != "fp32" or engine not in ("auto", "paddle"):
                raise UserError("a model runs eagerly in its own precision; export it for other engines")
            if not hasattr(source, "spec"):
                raise WrongTypeError(
                    f"a Predictor takes the folder of an export, or a model of create_model, not a "
                    f"{type(source).__name__}"
                )
            transform, names, self.assumed = evaluation_of(source)
            if self.assumed:
                warnings.warn(self.assumed, stacklevel=2)
            self.card = {
                "model": source.name,
                "num_classes": source.spec.num_classes,
                "classes": names,
                "preprocessing": transform,
                "input": {"shape": [None, source.spec.in_chans, *source.img_size]},
            }
            self._model = source
        if isinstance(classes, (str, bytes, Mapping)) or not isinstance(classes, (Iterable, type(None))):
            raise WrongTypeError(f"classes is a {type(classes).__name__}; give a list of names, in order")
        classes = None if classes is None else [str(name) for name in classes]
        self.classes = self.card["classes"] if classes is None else classes
        if classes is not None and len(classes) != self.card["num_classes"]:
            raise UserError(
                f"{counted(len(classes), 'class name')} for a model of {counted(self.card['num_classes'], 'class')}"
            )

    def _may_run_bfloat16(self, device: str) -> bool:
        """Whether the engine is one for a CPU that takes bfloat16: Paddle's does with oneDNN alone, and says so."""
        return device == "cpu" and (self.engine == "openvino" or (self.engine == "paddle" and self.onednn))

    def _ready(self) -> None:
        """Be as before the first call, in this process."""
        self._engine: Engine | None = None  # made for the first images
        self._lock = threading.Lock()  # engines serve one call at a time, but for OpenVINO with streams
        _ALIVE.add(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {
            key: value for key, value in vars(self).items() if key not in ("_engine", "_lock", "_transform")
        }
        state["_model"] = None if self._model is None else PickledModel.of(self._model)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state["_model"]
        vars(self).update(state, _model=None if model is None else model.build())
        self._ready()

    @functools.cached_property
    def _transform(self) -> Compose:
        from ..data.transforms import eval_transform

        values = dict(self.card["preprocessing"])
        return eval_transform(values.pop("img_size"), **values)

    @property
    def mode(self) -> str:
        """PIL's mode in which the model's pictures are read: L (grey), RGB or RGBA."""
        return picture_mode(len(self.card["preprocessing"]["mean"]))

    def transform(self, image: Image.Image) -> np.ndarray:
        """Return a PIL image as [C, H, W] float32, by the training's evaluation transform and reader of pictures.

        Raises:
            FileAccessError: it cannot be decoded, or has pixels of unknown range.
        """
        if not isinstance(image, Image.Image):
            raise WrongTypeError(f"transform takes a PIL image, not a {type(image).__name__}")
        try:
            image = upright_rgb(image, self.mode)
        except Exception as error:  # PIL decodes late, and a damaged picture can fail in any way
            raise FileAccessError(f"a picture cannot be read: {describe(error)}") from None
        return self._transform(image)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits [B, classes] of transformed images [B, C, H, W] float32, for any B.

        Raises:
            UserError: their channels or sizes are not those that the model was built or exported for.
            WrongTypeError: they are no floating-point numbers, so no transformed images.
        """
        images, takes = np.asarray(images), self.card["input"]["shape"]
        if images.ndim != 4 or (len(takes) == 4 and list(images.shape[1:]) != list(takes[1:])):
            raise UserError(
                f"transformed images of shape {list(images.shape)}; {self.card['model']} takes "
                f"[B, {', '.join(map(str, takes[1:]))}]: `transform` makes them from a picture"
            )
        if images.dtype.kind != "f":
            raise WrongTypeError(
                f"images of {images.dtype}; transformed ones are floating-point numbers: `transform` makes them"
            )
        size = takes[0] or max(1, len(images))
        parts = [np.zeros((0, self.card["num_classes"]), np.float32)]
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padding = np.zeros((size - len(part), *part.shape[1:]), part.dtype)  # of a fixed batch
            parts.append(self.run(np.concatenate([part, padding]))[: len(part)])
        return np.concatenate(parts)

    def __call__(
        self, images: Picture | Iterable[Picture], topk: int = 5, batch_size: int = 8
    ) -> list[list[Prediction]]:
        """Return the `topk` likeliest classes of each picture, likeliest first; of one picture, a list of one.

        Args:
            images: a path, an array [H, W, 3] uint8 (RGB), a PIL image, or several of these, each read when it is
                its turn. A model of one channel takes arrays [H, W] of grey too, one of four [H, W, 4] with alpha.
            topk: how many; all of them where the model has fewer classes.
            batch_size: images at once.

        Raises:
            WrongTypeError: something else, which is named.
            MissingFileError, FileAccessError: a path that is not there or holds no picture.
            UserError: `topk` or `batch_size` is below 1.
        """
        for name, value in (("topk", topk), ("batch_size", batch_size)):
            if not isinstance(value, numbers.Integral):
                raise WrongTypeError(f"{name} is a {type(value).__name__}; give a whole number from 1")
        if topk < 1 or batch_size < 1:
            raise UserError(f"topk is {topk} and batch_size is {batch_size}; both start at 1")
        predictions: list[list[Prediction]] = []
        rest = pictures(images, self.mode)
        # `map` forgets an image before the next one is read: however large, one is in memory at a time
        while batch := list(map(self.transform, itertools.islice(rest, batch_size))):
            predictions += self.likeliest(np.stack(batch), topk)
        return predictions

    def likeliest(self, images: np.ndarray, topk: int) -> list[list[Prediction]]:
        """Return the `topk` likeliest classes of each of the transformed images [B, C, H, W], likeliest first."""
        predictions = []
        for row in softmax(self.logits(images)):
            best = np.argsort(-row, kind="stable")[:topk]
            predictions.append([Prediction(int(i), self.name_of(int(i)), row[i].item()) for i in best])
        return predictions

    def name_of(self, index: int) -> str:
        """Return the name of a class, its number as text where it has none."""
        named = self.classes is not None and index < len(self.classes)
        return self.classes[index] if named and self.classes else str(index)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the engine's logits of images that are a batch for it; `logits` takes any."""
        with self._lock:
            if self._engine is None:
                self._engine = EngineProcess(self) if _FORKED else self._start(images)
            engine = self._engine
            if not (isinstance(engine, OpenVinoEngine) and engine.streams > 1):
                return engine(images)
        return engine(images)

    def _start(self, images: np.ndarray) -> Engine:
        """Open the folder's engine and try it; without oneDNN where oneDNN fails here. Of a model: the model."""
        if self._model is not None:
            return EagerEngine(self._model)
        names, digests = self.card["files"], self.card.get("sha256")
        files = {kind: name and self.directory / name for kind, name in names.items()}
        int8 = self.options["precision"] == INT8
        used = ("int8", "int8_weights") if int8 else ("onnx",)
        for kind in ("program", "params") if self.engine == "paddle" else used:
            check_file(files[kind], digests.get(names[kind]) if isinstance(digests, dict) else None)
        if self.engine == "onnx":
            return OnnxEngine(files["onnx"], self.options["threads"])
        if int8:
            rest = precision_of_rest(self.card)
            return OpenVinoEngine(files["int8"], self.options["threads"], rest, streams=self.streams)
        if self.engine == "openvino":
            options = self.options["threads"], self.options["precision"]
            return OpenVinoEngine(files["onnx"], *options, streams=self.streams)
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


def choose_precision(card: Mapping[str, Any], engine: str) -> tuple[str, str]:
    """Return what precision "auto" is for an export in an engine, and why, for a line of output."""
    if engine != "openvino":
        return "fp32", f"bf16 is chosen for engine openvino alone, and this is {engine}"
    if not multiplies_bfloat16():
        return "fp32", "this processor does not multiply bf16"
    tried = card.get("bf16")
    if not isinstance(tried, Mapping):
        return "fp32", "the export was not tried in bf16; export it again on a processor that multiplies it"
    found = f"the export's classes in bf16 were those in fp32 for {tried.get('agree')} of {tried.get('images')} images"
    kept = tried.get("images") and tried.get("agree") == tried.get("images")
    return ("bf16" if kept else "fp32"), found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities along the last dimension, in float64."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _after_fork() -> None:
    """In a forked process: the parent's engines do not work, and a thread that is not here may hold a lock."""
    global _FORKED
    _FORKED = needed_after_fork()
    for predictor in list(_ALIVE):
        _LEFT_BEHIND.append(predictor._engine)
        predictor._ready()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
