"""The commands on checkpoint files: inspect, to-paddle, to-torch and to-hub."""

from __future__ import annotations

import argparse
import json
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from paddle_inline.utils.errors import UserError
from paddle_inline.weights.foreign import is_training_state, kind_of
from paddle_inline.weights.lazy_array import WeightsFileError

from .checkpoint import ConversionOptions
from .conversion import convert
from .errors import EXIT_CODES, INTERNAL_ERROR, exit_code
from .formats.write import SUFFIXES
from .inspection import Inspection
from .parity.cli import parse_overrides

if TYPE_CHECKING:
    from .identify import Identity

_CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".pdparams")


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add inspect, to-paddle, to-torch and to-hub to the parser of `python -m convert`."""
    parser = _add(
        subparsers,
        "inspect",
        "say what a checkpoint holds and which model it is of",
        "Open a checkpoint without running anything it names, and say what it holds, which model its tensors "
        "are of, and how to build it.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="a checkpoint of either framework, or a folder of the hub's layout"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_source(parser)
    parser.set_defaults(run=inspect)
    for name, side in (("to-paddle", "paddle"), ("to-torch", "torch")):
        title = {"paddle": "Paddle", "torch": "PyTorch"}
        suffixes = ", ".join(SUFFIXES[side])
        parser = _add(
            subparsers,
            name,
            f"convert a checkpoint, or a folder of them, to {title[side]}",
            f"Convert a checkpoint to {title[side]}: find its model, translate, write, read back, and run "
            "both frameworks on the same images. Only then is the output written, with OUT.json beside it. "
            "Always strict: names and shapes that differ are listed, - in the model, + in the file.",
        )
        parser.add_argument("file", metavar="FILE", help="a checkpoint of either framework, or a folder")
        parser.add_argument("out", metavar="OUT", help=f"the file to write ({suffixes}), or a folder")
        _add_source(parser)
        _add_sizes(parser)
        parser.add_argument(
            "--into",
            metavar="DETECTOR",
            help="put FILE's backbone into a copy of this detector's or segmenter's checkpoint, of the framework that "
            "is converted to, and write that as OUT; all else in it stays byte for byte",
        )
        parser.add_argument(
            "--into-take",
            metavar="model|ema|KEY.PATH",
            default="model",
            help="which weights of DETECTOR are meant, as --take says it of FILE; default: model",
        )
        training = {
            "paddle": "convert the whole run: FILE is a PyTorch checkpoint with AdamW's state, OUT the folder "
            "in which a checkpoint for the training program is written",
            "torch": "convert the whole run: FILE is a checkpoint folder of the training program",
        }
        parser.add_argument("--training", action="store_true", help=training[side])
        parser.set_defaults(run=to_other, side=side)
    parser = _add(
        subparsers,
        "to-hub",
        "make a folder or repository of the Hugging Face hub of a checkpoint",
        "Convert a checkpoint as to-torch does, and write model.safetensors, config.json and a model card, which "
        "paddle_inline.from_pretrained, torch_ref.from_pretrained and timm.create_model('local-dir:FOLDER') read.",
    )
    parser.add_argument("file", metavar="FILE", help="a checkpoint of either framework")
    parser.add_argument(
        "out", metavar="OUT", help="the folder to write, or hf-hub:OWNER/NAME, a repository to upload to"
    )
    _add_source(parser)
    _add_sizes(parser)
    parser.add_argument(
        "--license", metavar="ID", help="of the weights, an identifier of the hub, for the card"
    )
    parser.set_defaults(run=to_hub)


def _add(
    subparsers: argparse._SubParsersAction, name: str, title: str, description: str
) -> argparse.ArgumentParser:
    return subparsers.add_parser(
        name,
        help=title,
        description=textwrap.fill(description, 100),
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--take",
        metavar="model|ema|KEY.PATH",
        default="model",
        help="the model's own weights or their moving average, where FILE has both, or the dictionary of tensors "
        "at a key path (`inspect` lists them); default: model",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="a name in list_models(), if the tensors do not determine it"
    )
    parser.add_argument(
        "--opts",
        nargs="+",
        default=[],
        metavar="KEY VALUE",
        help="overrides of create_model that the tensors do not determine, such as img_size 384",
    )
    parser.add_argument(
        "--skip-calls",
        action="store_true",
        help="read a file that names functions to call; they are never called",
    )


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--img-size", type=int, nargs="+", metavar="N", help="resize the result to another input size"
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="N", help="give the result another number of classes"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not run the two frameworks")


def _options(arguments: argparse.Namespace) -> ConversionOptions:
    size = getattr(arguments, "img_size", None)
    if size is not None and len(size) > 2:
        raise UserError(f"--img-size takes one side or height and width, not {len(size)} numbers")
    return ConversionOptions(
        model=arguments.model,
        overrides=parse_overrides(arguments.opts),
        take=arguments.take,
        img_size=size if size is None else size[0] if len(size) == 1 else tuple(size),
        num_classes=getattr(arguments, "num_classes", None),
        skip_calls=arguments.skip_calls,
        verify=not getattr(arguments, "no_verify", False),
    )


def inspect(arguments: argparse.Namespace) -> int:
    """Print what a checkpoint holds."""
    inspection = Inspection(arguments.file, _options(arguments))
    if not arguments.json:
        for line in inspection.heading():
            print(line)
    inspection.open()
    for line in [json.dumps(inspection.facts())] if arguments.json else inspection.lines():
        print(line)
    return 0


def to_other(arguments: argparse.Namespace) -> int:
    """Convert a file, or every checkpoint in a folder."""
    from paddle_inline.utils.environment import import_paddle, tune_cpu

    tune_cpu()  # before Paddle is loaded
    options = _options(arguments)
    if arguments.into:
        if arguments.training or Path(arguments.file).is_dir():
            what = "--training" if arguments.training else "a folder"
            raise UserError(f"--into puts the backbone of one file into a checkpoint, and not with {what}")
        import_paddle()
        from .put_back import put_back

        given = arguments.file, arguments.into, arguments.out, arguments.side, options, arguments.into_take
        print(f"wrote {put_back(*given, log=print).output} and {arguments.out}.json")
        return 0
    if arguments.training:
        import_paddle()
        from . import training_run

        run = getattr(training_run, f"training_to_{arguments.side}")
        print(f"wrote {run(arguments.file, arguments.out, options, print)}")
        return 0
    if Path(arguments.file).is_dir():
        return _convert_folder(Path(arguments.file), Path(arguments.out), arguments.side, options)
    outcome = convert(arguments.file, arguments.out, arguments.side, options, log=print)
    print(f"wrote {outcome.output} and {outcome.output}.json")
    package = {"paddle": "paddle_inline", "torch": "torch_ref"}[arguments.side]
    print(f"{package}.{outcome.identity.call_with(outcome.output)} builds it")
    return 0


def to_hub(arguments: argparse.Namespace) -> int:
    """Convert a file to a folder of the hub's layout."""
    from paddle_inline.utils.environment import import_paddle, tune_cpu

    tune_cpu()  # before Paddle is loaded
    import_paddle()
    from .hub import convert_to_hub

    place = convert_to_hub(arguments.file, arguments.out, _options(arguments), arguments.license, print)
    print(f"wrote {place}")
    print(f"paddle_inline.from_pretrained({place!r}) builds it, torch_ref.from_pretrained too")
    return 0


def _convert_folder(folder: Path, out: Path, side: str, options: ConversionOptions) -> int:
    files = checkpoints_in(folder)
    passed = [file.name for file in files if is_training_state(file.name)]
    files = [file for file in files if file.name not in passed]
    if passed:
        print(f"passed over, as they are the training's state: {', '.join(passed)}")
    what, step = kind_of(folder)
    if step and (not files or "folder of checkpoints" not in what):
        raise WeightsFileError(f"{folder} is {what}: {step}")
    if not files:
        raise WeightsFileError(f"{folder} has no checkpoints ({', '.join(_CHECKPOINTS)} or *.index.json)")
    if out.exists() and not out.is_dir():
        raise UserError(f"output {out} must be a folder, for {folder} is one")
    out.mkdir(parents=True, exist_ok=True)
    table = Table(*(Column(title, overflow="fold") for title in ("file", "model", "result")))
    codes: list[int] = []
    names: dict[Path, str] = {}
    for file in files:
        target = out / f"{file.name.split('.index.json')[0].rsplit('.', 1)[0]}{SUFFIXES[side][0]}"
        print(f"== {file.name}")
        try:
            if target in names:
                raise UserError(f"{names[target]} has become {target.name}; convert this one by itself")
            outcome = convert(file, target, side, options, log=print)
            names[target] = file.name
            table.add_row(escape(file.name), escape(_brief(outcome.identity)), escape(target.name))
            codes.append(0)
        except Exception as error:
            code = exit_code(error)
            if code is None:  # a fault of ours or of the machine, which need not be one of the next file
                traceback.print_exc()
            codes.append(code or INTERNAL_ERROR)
            print(f"error: {error}")
            table.add_row(escape(file.name), "", escape(f"error {codes[-1]}: {_first_line(error)}"))
    Console().print(table)
    print(f"{codes.count(0)} of {len(codes)} converted to {out}")
    return max(codes)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _brief(identity: Identity) -> str:
    return ", ".join([identity.name, *(f"{key}={value}" for key, value in identity.overrides.items())])


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, by name; shards are one, by their index."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    shards: set[str] = set()
    for index in (path for path in files if path.name.endswith(".index.json")):
        try:
            shards.update(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # converting it will say why
    return [
        path
        for path in files
        if (path.suffix in _CHECKPOINTS and path.name not in shards) or path.name.endswith(".index.json")
    ]
