"""One checkpoint to the other framework: opened, recognised, translated, verified, then put in place."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from paddle_inline import __version__
from paddle_inline.utils.environment import import_paddle
from paddle_inline.utils.errors import UserError, short
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, nonfinite
from paddle_inline.weights.resize import REBUILT, adapt_weights, as_float64
from paddle_inline.weights.safe_pickle import Inert

from .errors import CheckFailedError, UnfitWeightsError
from .formats.source import Source, Weights, open_source, select_weights
from .formats.write import (
    atomic,
    check_output,
    check_sidecar,
    sha256,
    sidecar_of,
    write_sidecar,
    write_weights,
)

OTHER = {"torch": "paddle", "paddle": "torch"}


@dataclass(frozen=True)
class ConversionOptions:
    """What a user can ask of a conversion; the defaults ask the file."""

    model: str | None = None  # of the source
    overrides: dict = field(default_factory=dict)  # of the source
    take: str = "model"  # or "ema"
    img_size: int | tuple[int, int] | None = None  # of the result, if not the source's
    num_classes: int | None = None  # likewise
    skip_calls: bool = False
    verify: bool = True


@dataclass(frozen=True)
class Opened:
    """A checkpoint and the model that its weights are of."""

    source: Source
    weights: Weights
    identity: object  # convert.identify.Identity; that module needs Paddle
    counters: dict[str, int]  # BatchNorm's num_batches_tracked, which Paddle has no place for


@dataclass(frozen=True)
class Outcome:
    """A finished conversion."""

    output: str
    identity: object
    notes: list[str]
    verification: dict


def open_checkpoint(path, options):
    """Open a checkpoint and recognise its model.

    Raises FileNotFoundError, WeightsFileError, UnknownModelError; ValueError for options that it cannot meet.
    """
    source = open_source(path, options.skip_calls)
    check_sidecar(source.path)
    weights = select_weights(source, options.take)
    import_paddle()  # only for a file that could be read
    from .identify import identify

    shapes = {name: array.shape for name, array in weights.arrays.items()}
    described = source.description
    if described and options.model in (None, described["model"]):
        try:
            identity = identify(shapes, described["model"], {**described["overrides"], **options.overrides})
        except Exception as error:  # a description can hold anything
            raise WeightsFileError(
                f"{source.path} says it is of {short(described['model'])!r}, but: {error}"
            ) from None
        identity = replace(identity, how="what the file says of itself", assumed={})
    else:
        identity = identify(shapes, options.model, options.overrides, training_hints(source.contents))
    counters = {name: a for name, a in weights.arrays.items() if name.endswith(".num_batches_tracked")}
    arrays = {name: array for name, array in weights.arrays.items() if name not in counters}
    counts = {name: int(array.read()) for name, array in counters.items() if array.shape == ()}
    if identity.side == "paddle" and described:
        counts = described.get("num_batches_tracked", {})
    return Opened(source, replace(weights, arrays=arrays), identity, counts)


def training_hints(contents):
    """What training settings in a checkpoint say of the model: {"img_size": ..., "text": its name or type}.

    They are the authors' (a pickled yacs node under "config", here a stand-in that nothing ran) or ours.
    """
    config = entries(contents.get("config"))
    data, model = entries(config.get("data")), entries(config.get("model"))
    hints = {"text": " ".join(str(model[key]) for key in ("type", "name") if isinstance(model.get(key), str))}
    if isinstance(data.get("img_size"), int):
        hints["img_size"] = data["img_size"]
    return hints


def entries(node):
    """The entries of a dictionary or settings node by lower-case name; none for anything else."""
    entries = node.contents if isinstance(node, Inert) else node
    if not isinstance(entries, dict):
        return {}
    return {key.lower(): value for key, value in entries.items() if isinstance(key, str)}


def convert(path, output, side, options=None, say: Callable[[str], None] = lambda line: None):
    """Convert one checkpoint.

    Args:
        path: any file that `open_source` opens, of either side.
        output: the file to write; its suffix decides the format (files/write.py).
        side: "paddle" or "torch", what to write.
        options: ConversionOptions.
        say: called with a line for everything that was chosen or changed.
    Returns:
        Outcome. The output and its sidecar `<output>.json` are in place.
    Raises:
        What `open_checkpoint` raises; UnfitWeightsError; CheckFailedError; OSError if it cannot be written.
        The output is then what it was before.
    """
    options = options or ConversionOptions()
    output = check_output(output, side)
    opened = open_checkpoint(path, options)
    if output.exists() and any(output.samefile(file) for file in opened.source.files):
        raise UserError(f"output {output} is the input; name another file")
    for line in summary_lines(opened):
        say(line)
    if options.verify:
        require_torch()
    ours, target, notes = paddle_side(opened, options)
    for note in notes:
        say(note)
    description = {"model": target.name, "overrides": target.overrides}
    if opened.counters:
        description["num_batches_tracked"] = opened.counters
    arrays = ours if side == "paddle" else torch_side(ours, target.model, opened.counters)
    with atomic(output) as temporary:
        write_weights(temporary, arrays, side, description)
        verification = {"done": False, "why": "--no-verify"}
        if options.verify:
            verification = check(temporary, opened, target, side, exact=not notes)
            say(f"verified: {verification['text']}")
        facts = describe(opened, output, temporary, side, description, notes, verification)
        sidecar_of(output).unlink(missing_ok=True)  # better none than that of another file
    write_sidecar(output, facts)
    return Outcome(str(output), target, notes, verification)


def summary_lines(opened):
    """Lines on what was read, taken and recognised."""
    weights, identity = opened.weights, opened.identity
    taken = f"its weights under {weights.taken!r}" if weights.taken else "its weights"
    if weights.others:
        taken += f" (it also has {', '.join(map(repr, weights.others))}: --take model or ema)"
    if weights.prefix:
        taken += f", without the prefix {weights.prefix!r}"
    yield f"{opened.source.path}: {opened.source.format}, {len(weights.arrays)} tensors; taking {taken}"
    yield f"model: {identity}, from {identity.how}"
    if identity.assumed:
        values = ", ".join(f"{key}={value!r}" for key, value in identity.assumed.items())
        yield f"no tensor shows, so taken from {identity.name}: {values}"


def paddle_side(opened, options):
    """({Paddle name: LazyArray}, Identity, notes): the source on Paddle's side, checked when it is read,
    and fitted to the wished size and classes."""
    identity = opened.identity
    arrays = translated(opened.weights.arrays, identity.model, identity.side, "paddle")
    own = identity.model.state_dict()
    arrays = {name: _checked(name, array, own[name]) for name, array in arrays.items()}
    wished = {"img_size": options.img_size, "num_classes": options.num_classes}
    wished = {key: value for key, value in wished.items() if value is not None}
    if not wished:
        return arrays, identity, []
    target = replace(identity, overrides={**identity.overrides, **wished})
    arrays, notes = adapt_weights(arrays, target.model, identity.model.spec.img_size)
    return arrays, target, notes


def torch_side(arrays, model, counters):
    """{PyTorch name: LazyArray} from the Paddle side, with BatchNorm's counters (0 where unknown) where
    PyTorch has them: behind the statistics."""
    from .mapping import torch_only_names

    result, counted = {}, set(torch_only_names(model))
    for name, array in translated(arrays, model, "paddle", "torch").items():
        result[name] = array
        counter = f"{name.rsplit('.', 1)[0]}.num_batches_tracked"
        if name.endswith(".running_var") and counter in counted:
            count = np.array(counters.get(counter, 0), "int64")
            result[counter] = LazyArray((), "int64", lambda count=count: count)
    return result


def translated(arrays, model, source, target):
    """Named tensors of one side as those of the other, each laid out anew when it is read."""
    from .skeleton import names_of

    result = {}
    for name, (old, rule) in names_of(model, source, target).items():
        array = arrays[old]
        if rule.transpose and source != target:
            array = LazyArray(array.shape[::-1], array.dtype, partial(_transposed, array))
        result[name] = array
    return result


def _transposed(array):
    values = array.read()
    turned = np.empty(values.shape[::-1], values.dtype)
    for row in range(0, len(values), 16):  # so few rows stay in the cache: up to four times as fast
        turned[:, row : row + 16] = values[row : row + 16].T
    return turned


def _checked(name, array, own):
    """The array, refused at once if it is another kind of number, on reading if no model has its values."""
    if ("float" in str(own.dtype)) != ("float" in array.dtype):
        raise UnfitWeightsError(f"{name} is {array.dtype}; the model has {str(own.dtype).split('.')[-1]}")
    return replace(array, load=partial(_read_checked, name, array, own))


def _read_checked(name, array, own):
    values = array.read()
    if "float" in array.dtype and nonfinite(values):
        raise UnfitWeightsError(
            f"{name} has {nonfinite(values)} values that are NaN or infinite: the training that wrote it has "
            "diverged, take an earlier checkpoint"
        )
    if name.rsplit(".", 1)[-1] in REBUILT:
        numbers = as_float64(values, array.dtype) if "float" in array.dtype else values
        if not np.array_equal(numbers, own.numpy()):
            raise UnfitWeightsError(f"{name} is not what the model's sizes make it; the file is damaged")
    return values


def require_torch(why="verifying runs the model in PyTorch too (--no-verify does without)"):
    """ValueError where PyTorch is missing; it is not imported before a file has been read."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{why}; PyTorch is not installed: install it (README, Install)")


def check(written, opened, target, side, exact):
    """Read a written file back and run it: both frameworks, the new file here and the source there.

    Args:
        exact: the result is the source in another layout, so reading it back must give the source's bits.
    Returns:
        What was found, for the sidecar.
    Raises:
        CheckFailedError: it is not the same function, or not the same bits.
    """
    back = select_weights(open_source(written)).arrays
    identity, source = opened.identity, opened.weights.arrays
    if exact:
        _check_bits(translated(back, target.model, side, identity.side), source)
        source = translated(source, identity.model, identity.side, "torch")
    else:
        source = translated(back, target.model, side, "torch")
    ours = translated(back, target.model, side, "paddle")
    found = check_forward(target, ours, source)
    return {**found, "bits": "equal to the source's" if exact else "changed as noted"}


def check_forward(identity, ours, theirs):
    """Run a model in both frameworks, in float64, on the same images.

    Args:
        ours, theirs: {name: LazyArray} of Paddle's and PyTorch's side.
    Returns:
        What was found, for the sidecar.
    Raises:
        CheckFailedError: naming the first sublayer that parts ways.
    """
    import torch

    import paddle_inline
    import torch_ref

    from .parity.run import compare_models

    mine = paddle_inline.create_model(identity.name, **identity.overrides)
    paddle_inline.load_weights(mine, _values(ours))
    reference = torch_ref.create_model(identity.name, **identity.overrides)
    state = {name: torch.from_numpy(value) for name, value in _values(theirs).items()}
    counters = {name for name in reference.state_dict() if name.endswith(".num_batches_tracked")}
    state.update({name: torch.zeros((), dtype=torch.int64) for name in counters - set(state)})
    reference.load_state_dict(state, strict=True)
    mine.eval()
    report = compare_models(mine, reference.eval(), backward=False, batch=1)
    if not report.passed:
        row = report.worst()
        raise CheckFailedError(
            f"{identity} computes something else in the other framework: first at "
            f"{report.first_divergence}, {row.max_rel:.1e} where {row.tolerance:.0e} is allowed"
        )
    logits = report.of_kind("output")[-1]
    text = (
        f"forward pass in float64, {len(report.rows)} sublayers equal, logits to {logits.max_rel:.1e} "
        f"(allowed {logits.tolerance:.0e})"
    )
    return {
        "done": True,
        "passed": True,
        "text": text,
        "logits": logits.max_rel,
        "allowed": logits.tolerance,
        **report.versions,
    }


def _check_bits(back, source):
    for name, array in source.items():
        mine, theirs = back[name].read(), array.read()
        if mine.dtype != theirs.dtype or mine.shape != theirs.shape or mine.tobytes() != theirs.tobytes():
            raise CheckFailedError(f"{name} does not come back bit for bit")


def _values(arrays):
    """{name: array} with bfloat16 as float32, which numpy can say."""
    return {
        name: as_float64(array.read(), "bfloat16").astype("float32")
        if array.dtype == "bfloat16"
        else np.array(array.read())
        for name, array in arrays.items()
    }


def describe(opened, output, written, side, description, notes, verification):
    """The sidecar's facts."""
    source = opened.source
    return {
        "source": {
            "format": source.format,
            "files": [
                {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in source.files
            ],
            "taken": opened.weights.taken or "all",
            "prefix_removed": opened.weights.prefix,
        },
        "output": {
            "name": output.name,
            "side": side,
            "bytes": written.stat().st_size,
            "sha256": sha256(written),
        },
        **description,
        "recognised_by": opened.identity.how,
        "assumed": opened.identity.assumed,
        "changed": notes,
        "verification": verification,
        "versions": versions(),
    }


def versions():
    """{package: version} of what a result may depend on."""
    found = {"python": platform.python_version(), "paddle-inline": __version__}
    for package in ("paddlepaddle", "paddlepaddle-gpu", "torch", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
