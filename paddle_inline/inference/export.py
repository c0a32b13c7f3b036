"""Writing a model as inference files that prove themselves.

A folder of one model:

    card.json                       what it is, how its input is made, what was checked
    model.json, model.pdiparams     program and weights for Paddle Inference (`.pdmodel` from Paddle 2)
    model.onnx                      both for OpenVINO and ONNX Runtime, on request
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..utils.errors import MissingFileError, MissingPackageError, UserError
from .backends import EagerEngine, OnnxEngine, OpenVinoEngine, PaddleEngine, input_spec

CARD = "card.json"
FORMAT = 1
TOLERANCE = 1e-5  # of the largest logit, and of 1 at least: float32 of two engines differs in the last digits
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPSET = 17  # the first with LayerNormalization


class ExportError(RuntimeError):
    """An exported program that does not compute what the model does; nothing was written."""


def export_model(
    model,
    directory,
    *,
    batch=None,
    onnx=False,
    preprocessing=None,
    classes=None,
    top1=None,
    weights=None,
    log=print,
):
    """Write a model's inference files and card, after comparing them with the model itself.

    The program runs through Paddle Inference without and with oneDNN and, where it was asked for, ONNX
    Runtime and OpenVINO (if that is installed), at two batch sizes (one of a fixed batch: twice, on other
    images). oneDNN is tried in a process
    of its own: where it crashes, the card and the log say so and `Predictor` leaves it off.

    Args:
        model: of `create_model`, with its weights; images are square, of the size it was built for.
        directory: is made; files of an earlier export in it are replaced.
        batch: the one batch size of the program; None: any.
        preprocessing: arguments of `data.transforms.eval_transform`; None: the ImageNet recipe at this size.
        classes: their names, or None. top1: measured accuracy in percent, or None. weights: their file.
        log: called with each line about the checks.
    Returns:
        The card, a dict.
    Raises:
        ExportError: it differs from the model by more than TOLERANCE; no file is left.
        ValueError: for arguments that do not fit the model.
        ImportError: ONNX was asked for and paddle2onnx or onnxruntime is missing.
    """
    side = square(model.img_size)
    if classes is not None and len(classes) != model.spec.num_classes:
        raise UserError(f"{len(classes)} class names for a model of {model.spec.num_classes} classes")
    if batch is not None and batch < 1:
        raise UserError(f"batch {batch} must be a positive number, or None for any")
    directory = Path(directory)
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=directory))
    try:
        files = write_files(model, work, batch, onnx)
        checks = prove(model, work, files, batch, log)
        import paddle

        card = {
            "format": FORMAT,
            "model": model.name,
            "num_classes": model.spec.num_classes,
            "classes": list(classes) if classes is not None else None,
            "top1": top1,
            "preprocessing": preprocessing or default_preprocessing(model.name, side),
            "input": {"shape": [batch, model.spec.in_chans, side, side], "dtype": "float32", "order": "RGB"},
            "output": {"shape": [batch, model.spec.num_classes], "dtype": "float32", "meaning": "logits"},
            "files": files,
            "onednn": not any("crash" in check for check in checks),
            "weights": describe_file(weights),
            "paddle": paddle.__version__,
            "tolerance": TOLERANCE,
            "checks": checks,
        }
        (work / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        clear(directory)
        for path in sorted(work.iterdir(), key=lambda path: path.name == CARD):  # the card last
            os.replace(path, directory / path.name)
        return card
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if made and not any(directory.iterdir()):
            directory.rmdir()


def square(size):
    """The side of a square size; ValueError for another, which the evaluation transform does not make."""
    if size[0] != size[1]:
        raise UserError(f"img_size {tuple(size)}: exported models take square images")
    return size[0]


def default_preprocessing(name, side):
    """ImageNet's evaluation recipe: images for models fine-tuned at 384 are resized to it, others cropped."""
    return {
        "img_size": side,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bicubic",
        "crop": not name.endswith("_384"),
    }


def read_classes(path):
    """Class names from a file, one a line or a JSON list; None of None."""
    if path is None:
        return None
    text = Path(path).read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is no JSON list: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} must list names, as strings")
    return names


def describe_file(path):
    """{"file": name, "sha256": digest} of a file; None of None."""
    if path is None:
        return None
    return {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def clear(directory):
    """Remove what an earlier export wrote, and nothing else."""
    if (directory / CARD).is_file():
        for name in files_of(read_card(directory)):
            (directory / name).unlink(missing_ok=True)


def files_of(card):
    """The names of the files of a card's export, the card first."""
    return [CARD, *filter(None, card["files"].values())]


def read_card(directory):
    """The card of an exported model.

    Raises:
        FileNotFoundError: no card there. ValueError: not a card that this version reads.
    """
    path = Path(directory) / CARD
    if not path.is_file():
        raise MissingFileError(f"no {CARD} in {directory}: `python -m paddle_inline export` writes it")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        found, names = card["format"], files_of(card)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no card of an exported model: {error}") from None
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version reads {FORMAT}: export the model again")
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{path} names {name!r}: its files lie beside it")
    return card


def write_files(model, folder, batch=None, onnx=False):
    """Trace a model for a batch size (None: any) into `folder`; the card's {kind: file name}."""
    trace(model, folder / "model", batch)
    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    files = {"program": program.name, "params": "model.pdiparams", "onnx": "model.onnx" if onnx else None}
    if onnx:
        write_onnx(program, folder / files["params"], folder / files["onnx"])
    return files


def trace(model, path, batch):
    """`paddle.jit.save` for images of `batch` (None: any), in eval mode."""
    import paddle

    training = model.training
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors without a place, by the tracer itself
            paddle.jit.save(model, str(path), input_spec=[input_spec(model, batch)])
    finally:
        if training:
            model.train()
    Path(f"{path}.pdiparams.info").unlink(missing_ok=True)  # Paddle 2's notes for further training


def write_onnx(program, params, path):
    """Translate a program of Paddle 3 to ONNX and check its padding.

    In a process of its own: paddle2onnx aborts the whole process on what it cannot translate.
    """
    command = "import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:4], opset_version=int(sys.argv[4]))"
    done = in_child(command, program, params, path, OPSET)
    if "No module named 'paddle2onnx'" in done.stderr:
        raise MissingPackageError("paddle2onnx is not installed: pip install paddle2onnx onnxruntime")
    if done.returncode or not path.is_file():
        raise ExportError(f"paddle2onnx failed on {program.name}:\n{done.stderr[-2000:]}")
    check_pads(path)


def in_child(command, *arguments):
    """Run Python statements in a fresh interpreter; the finished process with its output as text."""
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def check_pads(path):
    """Refuse an ONNX file with a `Pad` whose fill value is not a stored zero.

    paddle2onnx 2.1 writes memory it never set as that value, another at each export. Our models pad nothing
    that way; this looks at every one all the same.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = numpy_helper.to_array(attribute.t)
    for node in graph.node:
        if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
            value = constants.get(node.input[2])
            if value is None or np.any(value != 0):
                said = "a computed value" if value is None else value.tolist()
                raise ExportError(f"{path.name}: the Pad {node.name!r} fills with {said}, it must be 0")


def prove(model, folder, files, batch=None, log=print):
    """Compare what was written with the model in every engine; the card's rows about it.

    Raises ExportError where one differs.
    """
    sizes = (1, 3) if batch is None else (batch, batch)
    shape = (model.spec.in_chans, *model.img_size)
    random = np.random.RandomState(0)
    batches = [  # of other contrast, so that what an engine keeps from its first call shows in the second
        (scale * random.standard_normal((size, *shape))).astype(np.float32)
        for size, scale in zip(sizes, (1, 3))
    ]
    expected = [EagerEngine(model)(images) for images in batches]
    program = folder / files["program"], folder / files["params"]
    runs = {
        "Paddle Inference": lambda: run_all(PaddleEngine(*program, onednn=False), batches),
        "Paddle Inference with oneDNN": lambda: run_in_child(*program, batches),
    }
    if files["onnx"]:
        runs["ONNX Runtime"] = lambda: run_all(OnnxEngine(folder / files["onnx"]), batches)
        if find_spec("openvino"):
            # the first batch size in a program of its own, the second in the any-batch one
            runs["OpenVINO"] = lambda: run_all(OpenVinoEngine(folder / files["onnx"], batches=1), batches)
    rows = []
    for engine, run in runs.items():
        row = {"engine": engine, "batches": list(sizes)}
        results = run()
        if isinstance(results, str):
            row["crash"] = results
            log(f"{engine} crashes on this program, so it is left off: {results}")
        else:
            row["error"] = compare(results, expected, engine)
            log(f"{engine} agrees to {row['error']:.1e} at batches {sizes[0]} and {sizes[1]}")
        rows.append(row)
    return rows


def run_all(engine, batches):
    return [engine(images) for images in batches]


def run_in_child(program, params, batches):
    """The results of `PaddleEngine` with oneDNN in a process of its own; its last words where that dies."""
    command = (
        "import sys, numpy; from paddle_inline.inference.backends import PaddleEngine\n"
        "engine = PaddleEngine(*sys.argv[1:3])\n"
        "with numpy.load(sys.argv[3]) as given: results = [engine(given[name]) for name in given.files]\n"
        "numpy.savez(sys.argv[4], *results)"
    )
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "batches.npz", Path(folder) / "results.npz"
        np.savez(given, *batches)
        done = in_child(command, program, params, given, made)
        if not made.is_file():
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        with np.load(made) as results:
            return [results[name] for name in results.files]


def compare(results, expected, who):
    """The largest difference, over the largest value where that is above 1; ExportError above TOLERANCE."""
    worst = 0.0
    for result, truth in zip(results, expected):
        if result.shape != truth.shape:
            raise ExportError(f"{who} gives {result.shape}, the model {truth.shape}; nothing was written")
        error = np.abs(result - truth).max() / max(1.0, np.abs(truth).max())
        if not error <= TOLERANCE:  # a NaN is no agreement either
            raise ExportError(
                f"{who} differs from the model by {error:.1e} at batch {len(truth)}, allowed is {TOLERANCE}; "
                "nothing was written"
            )
        worst = max(worst, error.item())
    return worst


def export_command(parser):
    """Write inference files that are checked against the model in every engine, or nothing."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="of `list`; may be left out with weights that say it")
    add("--weights", metavar="FILE", required=True, help="its weights")
    add("--output", metavar="DIR", required=True, help="the folder to write")
    add("--img-size", type=int, metavar="S", help="pixels of the sides; default: the model's own")
    add("--num-classes", type=int, metavar="N", help="where the weights do not say and it is not 1000")
    add("--dynamic-batch", action="store_true", help="for any batch size")
    add("--batch-size", type=int, default=1, metavar="N", help="for batches of this size; default: 1")
    add("--onnx", action="store_true", help="a file for OpenVINO and ONNX Runtime too")
    add("--classes", metavar="FILE", help="class names, one a line, or a JSON list")
    add("--top1", type=float, metavar="PERCENT", help="measured accuracy, for the card")
    add("--no-crop", action="store_true", help="the model is evaluated without the centre crop")
    return run


def run(arguments):
    """The command `export`; 1 where the files differ from the model."""
    from ..models import create_model
    from ..weights.load import find_weights

    sizes = {"img_size": arguments.img_size, "num_classes": arguments.num_classes}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    model = create_model(arguments.model, weights=arguments.weights, **sizes)
    preprocessing = default_preprocessing(model.name, square(model.img_size))
    if arguments.no_crop:
        preprocessing["crop"] = False
    try:
        export_model(
            model,
            arguments.output,
            batch=None if arguments.dynamic_batch else arguments.batch_size,
            onnx=arguments.onnx,
            preprocessing=preprocessing,
            classes=read_classes(arguments.classes),
            top1=arguments.top1,
            weights=find_weights(arguments.weights),
        )
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{model.name} -> {arguments.output}")
    return 0
