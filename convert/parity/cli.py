"""The commands that prove the twins equal: verify, and its two halves record and compare.

Nothing is imported from the frameworks before a command runs that needs them: `compare` needs neither.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from paddle_inline.utils.errors import FileAccessError, UserError
from paddle_inline.utils.html import require_jinja2
from paddle_inline.utils.pairs import pairs_of

from .arbiter import Arbiter
from .capture import DTYPES
from .comparison import compare_recordings
from .recording import load_recording, save_recording
from .report.html import write_html
from .report.json import write_json
from .report.junit import write_junit
from .report.reprod_log import write_reprod_log
from .report.terminal import Job, all_rows, explain, run_jobs
from .result import Report


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add verify, record and compare to the parser of `python -m convert`."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a model in both frameworks, layer by layer",
        description="Run models in Paddle and PyTorch on the same batch and compare the output of every named "
        "sublayer. Exit code 0: all agree; 1: something differs; 2 to 6: python -m convert --help.",
    )
    _add_model(parser, "NAME", nargs="+")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every model of list_models(), and those with four stages as backbones too",
    )
    parser.add_argument("--dtype", nargs="+", default=["float64"], choices=DTYPES, help="default: float64")
    parser.add_argument(
        "--golden",
        metavar="DIR",
        help="compare Paddle alone with recorded numbers, such as tests/golden/inline; PyTorch is not needed",
    )
    parser.add_argument(
        "--no-arbiter",
        action="store_true",
        help="no float64 run to judge lower precisions by",
    )
    _add_outputs(parser)
    parser.set_defaults(run=verify)

    parser = subparsers.add_parser(
        "record",
        help="run one framework and record the output of every sublayer",
        description="One framework's half of verify, for machines where the two cannot share a process: "
        "record both, then compare the two folders.",
    )
    parser.add_argument("folder", metavar="DIR", help="the folder to write")
    parser.add_argument("--framework", required=True, choices=("torch", "paddle"))
    _add_model(parser, "NAME", required=True)
    parser.add_argument("--dtype", default="float64", choices=DTYPES, help="default: float64")
    parser.add_argument("--truth", metavar="DIR", help="also record the same rounded numbers in float64")
    parser.set_defaults(run=record)

    parser = subparsers.add_parser(
        "compare",
        help="compare two recordings; needs neither framework",
        description="Compare the recordings of the two frameworks. Exit codes as for verify.",
    )
    parser.add_argument("reference", metavar="DIR", help="PyTorch's recording")
    parser.add_argument("candidate", metavar="DIR", help="Paddle's recording")
    parser.add_argument("--truth", metavar="DIR", help="a float64 recording of the same rounded numbers")
    _add_outputs(parser)
    parser.set_defaults(run=compare)


def _add_model(parser: argparse.ArgumentParser, metavar: str, **options: Any) -> None:
    parser.add_argument(
        "--model", metavar=metavar, help="a name in list_models(), or backbone:NAME", **options
    )
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint; test weights if not given")
    parser.add_argument("--backward", action="store_true", help="gradients as well as outputs")
    parser.add_argument(
        "--steps", type=_positive, default=0, metavar="N", help="also train for N steps, in float64"
    )
    parser.add_argument(
        "--batch", type=_positive, metavar="N", help="images; default: 2, up to 32 if they are small"
    )
    parser.add_argument("--seed", type=int, default=0, help="of images and test weights; default: 0")
    parser.add_argument(
        "--opts",
        nargs="+",
        default=[],
        metavar="KEY VALUE",
        help="overrides of create_model, such as num_classes 10; must come last",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", metavar="FILE", help="write the report as a page")
    parser.add_argument("--json", metavar="FILE", help="write every row as JSON")
    parser.add_argument("--junit", metavar="FILE", help="write every row as a JUnit test case")
    parser.add_argument("--reprod-log", metavar="DIR", help="write the arrays that reprod_log compares")


def verify(arguments: argparse.Namespace) -> int:
    """Compare models, show and write the outcome; 0 if all agree, else 1."""
    from paddle_inline.utils.environment import import_paddle, tune_cpu

    tune_cpu()
    import_paddle()
    _check_outputs(arguments)
    jobs = list(_golden_jobs(arguments) if arguments.golden else _jobs(arguments))
    console = _console()
    reports = run_jobs(jobs, console)
    return _finish(reports, arguments, console, in_full=len({name for name, _, _ in jobs}) == 1)


def _jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield the comparisons of the two frameworks."""
    from paddle_inline import list_models
    from paddle_inline.models.factory import model_spec

    from .models import backbones
    from .run import compare as compare_model
    from .steps import import_timm

    every = [*list_models(), *backbones(list_models())]
    names: Sequence[Any] = every if arguments.all else arguments.model or [None]
    if (arguments.all and arguments.model) or (names == [None] and not arguments.weights):
        raise UserError("say what to verify: --model NAME, --weights FILE, or --all")
    if arguments.weights and len(names) > 1:
        raise UserError("--weights are of one model; give one --model NAME, or none")
    if arguments.steps:
        import_timm()
    options = {
        "weights": arguments.weights,
        "seed": arguments.seed,
        "backward": arguments.backward,
        "batch": arguments.batch,
        "arbiter": not arguments.no_arbiter,
        "steps": arguments.steps,
        **parse_overrides(arguments.opts),
    }
    for name in filter(None, names):
        model_spec(name.removeprefix("backbone:"))  # a name that is unknown is refused before anything runs
    for name in names:
        for dtype in arguments.dtype:
            yield name, dtype, functools.partial(compare_model, name, dtype=dtype, **options)


def _golden_jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield the comparisons of Paddle with recorded numbers."""
    from .golden import read_goldens
    from .run import compare_golden

    for name in ("weights", "opts", "steps", "batch", "seed"):
        if getattr(arguments, name):
            raise UserError(f"--golden brings its own weights and images; leave out --{name}")
    goldens = read_goldens(arguments.golden)
    chosen = [g for g in goldens.values() if arguments.all or g.model in (arguments.model or ())]
    if not chosen or (arguments.all and arguments.model):
        known = ", ".join(dict.fromkeys(golden.model for golden in goldens.values()))
        raise UserError(f"say what to verify: --all, or --model with one of {known}")
    for golden in chosen:
        for dtype in arguments.dtype:
            yield golden.name, dtype, functools.partial(compare_golden, golden, "paddle", dtype)


def record(arguments: argparse.Namespace) -> int:
    """Run one framework and write what it computed."""
    from .run import record as record_model
    from .steps import import_timm

    if arguments.steps and arguments.framework == "torch":
        import_timm()
    recording, truth = record_model(
        arguments.framework,
        arguments.model,
        arguments.weights,
        arguments.dtype,
        arguments.seed,
        arguments.backward,
        arguments.batch,
        truth=arguments.truth is not None,
        steps=arguments.steps,
        **parse_overrides(arguments.opts),
    )
    for result, folder in ((recording, arguments.folder), (truth, arguments.truth)):
        if result is not None:
            save_recording(result, folder)
            print(f"{folder}: {result.model} in {result.framework} {result.version}, {result.dtype}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare two recordings, show and write the outcome; 0 if they agree, else 1."""
    _check_outputs(arguments)
    reference, candidate = load_recording(arguments.reference), load_recording(arguments.candidate)
    arbiter = None
    if arguments.truth:
        arbiter = load_recording(arguments.truth).replay(Arbiter(reference, candidate))
    report = compare_recordings(reference, candidate, arbiter)
    return _finish([report], arguments, _console(), in_full=True)


def _console() -> Console:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # a file or a pipe is as wide as the tables
    return console


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be written, before minutes are spent on it."""
    if arguments.html:
        require_jinja2()
    for path in filter(None, (arguments.html, arguments.json, arguments.junit, arguments.reprod_log)):
        folder = Path(path) if path == arguments.reprod_log else Path(path).parent
        if path != arguments.reprod_log and Path(path).is_dir():
            raise FileAccessError(f"{path} is a folder; name a file")
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise FileAccessError(f"{path} cannot be written: {folder} is not a writable folder")


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Return {key: value} of KEY VALUE or KEY=VALUE ...

    A value is a Python literal, a mapping as YAML has it, or else a string.

    Raises:
        UserError: a key without a value.
    """
    overrides = {}
    for key, value in pairs_of(words):
        try:
            overrides[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            overrides[key] = _mapping(value)
    return overrides


def _mapping(text: str) -> Any:
    """Return `{name: value, ...}` as a dictionary, any other text as it is."""
    if text.strip()[:1] != "{":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def _finish(reports: Sequence[Report], arguments: argparse.Namespace, console: Console, in_full: bool) -> int:
    """Print what is asked for, write the files, and return the exit code."""
    if in_full:
        for report in reports:
            console.print(all_rows(report))
    for report in reports:
        explain(report, console)
    writers = (
        (write_html, arguments.html),
        (write_json, arguments.json),
        (write_junit, arguments.junit),
        (write_reprod_log, arguments.reprod_log),
    )
    for write, path in writers:
        if path:
            write(reports, path)
            console.print(f"written: {path}", highlight=False)
    return 0 if all(report.passed for report in reports) else 1
