"""From images to the likeliest classes, with an exported model or an eager one.

python -m paddle_inline predict photos/ 'more/*.jpg' --export DIR --topk 5 --html sheet.html
"""

from __future__ import annotations

import glob
import json
import sys
import warnings
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..utils.errors import FileAccessError, MissingFileError, UserError, unknown
from .backends import EagerEngine, OnnxEngine, OpenVinoEngine, PaddleEngine
from .export import default_preprocessing, read_card, read_classes, square

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
ENGINES = ("auto", "paddle", "openvino", "onnx")


@dataclass(frozen=True)
class Prediction:
    """One class for one image: its number, its name (the number as text without names), its probability."""

    index: int
    name: str
    probability: float


class Predictor:
    """Classifies images as the model that was trained does: the same transform, the same numbers.

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
        FileNotFoundError, ValueError: a folder that is no export, or asks for what is not there.
    """

    def __init__(
        self,
        source,
        device="cpu",
        threads=None,
        precision="fp32",
        engine="auto",
        onednn=None,
        classes=None,
    ):
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        self.options = {"device": device, "threads": threads, "precision": precision}
        self.engine = engine
        self._engine = None  # made for the first images
        if isinstance(source, (str, Path)):
            self.directory = Path(source)
            self.card = read_card(source)
            self.onednn = self.card["onednn"] if onednn is None else onednn
            has_onnx = self.card["files"]["onnx"] is not None
            if engine == "auto":
                self.engine = engine = choose_engine(has_onnx and onednn is None, device, precision)
            if engine != "paddle" and not has_onnx:
                raise UserError(f"{source} holds no ONNX files: export the model with --onnx")
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
                "preprocessing": default_preprocessing(source.name, square(source.img_size)),
                "input": {"shape": [None]},
            }
            self._engine = EagerEngine(source)
        self.classes = classes or self.card["classes"]
        if self.classes is not None and len(self.classes) != self.card["num_classes"]:
            raise UserError(
                f"{len(self.classes)} class names for a model of {self.card['num_classes']} classes"
            )
        self._transform = None

    def transform(self, image):
        """A PIL image -> [3, S, S] float32, by the training's evaluation transform."""
        from ..data.transforms import eval_transform

        if self._transform is None:
            values = dict(self.card["preprocessing"])
            self._transform = eval_transform(values.pop("img_size"), **values)
        return self._transform(image.convert("RGB"), None)

    def logits(self, images):
        """Transformed images [B, 3, S, S] float32 -> logits [B, classes], for any B."""
        size = self.card["input"]["shape"][0] or max(1, len(images))
        parts = [np.zeros((0, self.card["num_classes"]), np.float32)]
        for start in range(0, len(images), size):
            part = images[start : start + size]
            missing = np.zeros((size - len(part), *part.shape[1:]), part.dtype)  # of a fixed batch
            parts.append(self._run(np.concatenate([part, missing]))[: len(part)])
        return np.concatenate(parts)

    def __call__(self, images, topk=5, batch_size=8):
        """PIL images -> for each the `topk` likeliest classes, likeliest first, as lists of Prediction."""
        images, guesses = list(images), []
        for start in range(0, len(images), batch_size):
            batch = np.stack([self.transform(image) for image in images[start : start + batch_size]])
            for row in softmax(self.logits(batch)):
                best = np.argsort(-row, kind="stable")[:topk]
                guesses.append([Prediction(int(i), self.name_of(int(i)), row[i].item()) for i in best])
        return guesses

    def name_of(self, index):
        """The name of a class, its number where there are no names."""
        return str(index) if self.classes is None else self.classes[index]

    def _run(self, images):
        if self._engine is None:
            self._engine = self._start(images)
        return self._engine(images)

    def _start(self, images):
        """The folder's engine, smoke-run; without oneDNN where oneDNN fails here."""
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


def choose_engine(has_onnx, device, precision):
    """The fastest engine that is installed: on a CPU OpenVINO, then ONNX Runtime in float32, then Paddle's
    (benchmarks/inference.py)."""
    if has_onnx and device == "cpu":
        if find_spec("openvino"):
            return "openvino"
        if find_spec("onnxruntime") and precision == "fp32":
            return "onnx"
    return "paddle"


def softmax(logits):
    """Probabilities along the last dimension, in float64."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def find_images(patterns):
    """The image files that files, folders (and what is below them) and glob patterns name, each once.

    Raises FileNotFoundError for a pattern that names none.
    """
    found = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGES]
        else:
            files = [path] if path.is_file() else map(Path, sorted(glob.glob(pattern, recursive=True)))
        files = [file for file in files if file.is_file()]
        if not files:
            raise MissingFileError(f"no image {pattern}; folders are searched for {', '.join(IMAGES)}")
        found += files
    return list(dict.fromkeys(found))


def read_image(path):
    """An image file as PIL, in RGB, turned as its camera says.

    Raises OSError, naming the file, for one that cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # a damaged image can fail in any way
        raise FileAccessError(f"{path} cannot be read as an image: {error}") from None


def predict_command(parser):
    """Classify images, files, folders or glob patterns, by the training's evaluation transform."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="a file, a folder or a glob pattern in quotes")
    add("--export", metavar="DIR", help="the output of `export`")
    add("--model", metavar="NAME", help="... or a model, run eagerly; weights often say which")
    add("--weights", metavar="FILE", help="its weights")
    add("--classes", metavar="FILE", help="class names, one a line, or a JSON list")
    add("--topk", type=int, default=5, metavar="K", help="classes shown for each image; default: 5")
    add("--batch-size", type=int, default=8, metavar="N", help="images at once; default: 8")
    add("--device", default="cpu", help="cpu, gpu or gpu:N; default: cpu")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all that this process may use")
    add("--precision", default="fp32", choices=("fp32", "bf16"), help="default: fp32")
    add("--engine", default="auto", choices=ENGINES, help="default: the fastest that is there")
    add("--json", metavar="FILE", help="write the answers as JSON; - for standard output, without the table")
    add("--html", metavar="FILE", help="write a page with thumbnails")
    return run


def run(arguments):
    """The command `predict`; 1 where an image could not be read."""
    if arguments.topk < 1 or arguments.batch_size < 1:
        raise UserError("--topk and --batch-size start at 1")
    paths = find_images(arguments.images)
    predictor = open_predictor(arguments)
    answers, bad = [], 0
    for start in range(0, len(paths), arguments.batch_size):
        images = {}
        for path in paths[start : start + arguments.batch_size]:
            try:
                images[path] = read_image(path)
            except OSError as error:
                print(f"warning: {error}", file=sys.stderr)
                bad += 1
        guesses = predictor(images.values(), arguments.topk, arguments.batch_size)
        answers += [(path, image, guess) for (path, image), guess in zip(images.items(), guesses)]
    table = [{"image": str(path), "classes": [asdict(g) for g in guess]} for path, _, guess in answers]
    if arguments.json:
        text = json.dumps({"model": predictor.card["model"], "images": table}, indent=2, ensure_ascii=False)
        if arguments.json == "-":
            print(text)
        else:
            Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    if arguments.json != "-":
        print_table(table)
    if arguments.html:
        from .gallery import page

        Path(arguments.html).write_text(page(predictor.card, answers), encoding="utf-8")
    return 1 if bad else 0


def open_predictor(arguments):
    """The Predictor that the options of `predict` describe."""
    classes = read_classes(arguments.classes)
    options = {name: getattr(arguments, name) for name in ("device", "threads", "precision", "engine")}
    if arguments.export:
        if arguments.model or arguments.weights:
            raise UserError("--export and --model or --weights exclude each other")
        return Predictor(arguments.export, classes=classes, **options)
    if not arguments.weights:
        raise UserError("predict needs --export DIR, or --weights FILE (with --model where it does not say)")
    from ..models import create_model

    if arguments.device != "cpu":
        import paddle

        paddle.set_device(arguments.device)
    model = create_model(arguments.model, weights=arguments.weights)
    return Predictor(model, classes=classes, **options)


def print_table(table):
    """One line for each image: its file, its classes with their probabilities."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    view = Table("image", "classes", box=None)
    for row in table:
        said = ", ".join(f"{guess['name']} {guess['probability']:.1%}" for guess in row["classes"])
        view.add_row(Text(row["image"]), Text(said))
    Console().print(view)
