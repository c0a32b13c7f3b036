"""A training run from one framework to the other: weights, AdamW's moments and steps, averaged weights, the
loss scaler, and how far the schedule is.

PyTorch's side is one file (training_layout.py); Paddle's is a checkpoint folder of train_paddle.py.

(A few lines above 300: the two directions are read side by side.)
"""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Callable

import numpy as np

import paddle_inline
from paddle_inline.training.checkpoint import (
    SUMS,
    CheckpointError,
    check_checkpoint,
    description_of,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from paddle_inline.training.ema import Ema
from paddle_inline.training.optim import load_optimizer_state, optimizer_state
from paddle_inline.utils.errors import FileAccessError, UserError, counted
from paddle_inline.utils.paths import expand
from paddle_inline.weights.description import DESCRIPTION
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError
from paddle_inline.weights.load import open_weights, tuples
from paddle_inline.weights.torch_layout import torch_side

from .checkpoint import ConversionOptions, open_checkpoint, paddle_side
from .conversion import carried_on, versions
from .errors import CheckFailedError, UnfitWeightsError
from .formats.select import select_weights
from .formats.source import open_source
from .formats.write import atomic, check_output, sha256, sidecar_of, write_sidecar
from .identify import Identity, identify
from .optimizer_state import (
    adamw_settings,
    authors_groups,
    make_adamw,
    paddle_slots,
    read_optimizer,
    torch_optimizer,
    torch_slots,
)
from .summary import summary_lines
from .training_layout import layout_of, state_of
from .verify import check_forward, require_torch


def training_to_paddle(
    path: str | Path,
    folder: str | Path,
    options: ConversionOptions,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Make a checkpoint of train_paddle.py from a PyTorch training checkpoint.

    Args:
        path: a torch file with weights, `optimizer` (AdamW) and, if they were kept, averaged weights.
        folder: of a run's checkpoints; `step_N` is made in it.
        options: `conversion.ConversionOptions`; input size and class count cannot change on the way.

    Returns:
        The checkpoint's path. It names no settings: train_paddle.py continues with those it is given.

    Raises:
        What `open_checkpoint` raises; WeightsFileError: no optimizer state, or one that is not this model's;
        UnfitWeightsError: values that no run can have; CheckFailedError.
    """
    _refuse_changes(options)
    opened = open_checkpoint(path, replace(options, take="model"))
    contents, identity = opened.source.contents, opened.identity
    if identity.side != "torch":
        raise UserError(f"{path} is Paddle's already; what is converted here is PyTorch's training state")
    if identity.maps is not None:
        raise UserError(
            f"{path} has a backbone, and the training program trains classifiers: leave --training out for its "
            "weights alone"
        )
    for line in summary_lines(opened):
        log(line)
    if options.verify:
        require_torch()
    arrays, _, _ = paddle_side(opened, options)
    dtypes = {array.dtype for array in arrays.values() if "float" in array.dtype}
    model = _build(identity.name, identity.overrides, dtypes)
    groups, slots = read_optimizer(contents.get("optimizer"), model, list(opened.weights.arrays), path)
    ema = None
    if opened.weights.averaged:
        averaged = select_weights(opened.source, "ema")
        kept = {name: array for name, array in averaged.arrays.items() if name not in opened.counters}
        identify({name: array.shape for name, array in kept.items()}, identity.name, identity.overrides)
        _load(model, paddle_side(replace(opened, weights=replace(averaged, arrays=kept)), options)[0])
        ema = Ema(model, 0.0)
    _load(model, arrays)
    optimizer = make_adamw(model, groups)
    load_optimizer_state(model, optimizer, paddle_slots(slots, model, groups))
    state = state_of(contents, opened, groups, max((slot["step"] for slot in slots.values()), default=0))
    described = carried_on(opened, identity, options, log)
    state.transform, state.classes = described["transform"], described.get("classes")
    if options.verify:
        found = check_forward(identity, arrays, torch_side(arrays, model, opened.counters))
        if state.origin is not None:
            state.origin = replace(state.origin, verification=found)
        log(f"verified: {found['text']}")
    try:
        made = save_checkpoint(
            folder, model=model, optimizer=optimizer, ema=ema, state=state, keep_last=10**6
        )
    except CheckpointError as error:
        raise FileAccessError(str(error)) from None
    try:
        _check_written(made, model, optimizer, ema)
    except CheckFailedError:
        shutil.rmtree(made)
        raise
    log(
        f"{len(slots)} pairs of moments, {'averaged weights, ' if ema else ''}"
        f"{'loss scaler, ' if state.scaler else ''}step {state.progress.step}, epoch {state.progress.epoch}"
    )
    return made


def training_to_torch(
    folder: str | Path,
    output: str | Path,
    options: ConversionOptions,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Make a PyTorch training checkpoint from one of train_paddle.py; the inverse of `training_to_paddle`.

    Args:
        folder: a checkpoint's folder, or a run's: its newest one.
        output: the file to write, .pth, .pt or .bin.
        options: `conversion.ConversionOptions`.

    Returns:
        The output's path.

    Raises:
        WeightsFileError: the folder is no sound checkpoint; UnfitWeightsError: values that no run can have;
        CheckFailedError.
    """
    require_torch("a PyTorch training checkpoint is written by PyTorch")
    import torch

    import torch_ref

    _refuse_changes(options)
    target = check_output(Path(output), "torch")
    if target.suffix == ".safetensors":
        raise UserError(f"output {target}: safetensors hold no training state; let it end in .pth")
    folder = _checkpoint_in(folder)
    model, optimizer, ema, state = _open_run(folder)
    progress = state.progress
    log(f"{folder}: {model.name}, step {progress.step}, epoch {progress.epoch}")
    counters = _counters(state)
    with torch.device("meta"):
        torch_model = torch_ref.create_model(state.model, **tuples(state.overrides))
    order = [name for name, _ in torch_model.named_parameters()]
    groups = _groups(state) or authors_groups(model, order, adamw_settings(state))
    # what a loss scaler skipped before the run came from PyTorch; AdamW has not counted it
    skipped = max(state.origin.source_step - state.origin.adam_steps, 0) if state.origin else 0
    slots = torch_slots(optimizer_state(model, optimizer), model, groups, progress.step - skipped)
    weights = _torch_weights(model, model.state_dict(), counters)
    optimizer = torch_optimizer(groups, slots, state.rate)
    contents = layout_of(model.name)(state, weights, optimizer)
    contents[DESCRIPTION] = json.dumps(description_of(state))
    if ema is not None:
        contents["state_dict_ema"] = _torch_weights(model, ema.average, counters)
    with atomic(target) as temporary:
        torch.save(contents, temporary)
        facts = {
            "source": {"folder": str(folder), "sha256": sha256(Path(folder) / SUMS), "of": SUMS},
            "output": {"name": target.name, "bytes": temporary.stat().st_size, "sha256": sha256(temporary)},
            "model": model.name,
            "overrides": state.overrides,
            "verification": {"done": False, "why": "--no-verify"},
            "versions": versions(),
        }
        if options.verify:
            facts["verification"] = _check_torch_file(temporary, model, state, order, slots)
            log(f"verified: {facts['verification']['text']}")
        sidecar_of(target).unlink(missing_ok=True)  # better none than that of another file
    write_sidecar(target, facts)
    log(f"{len(slots)} pairs of moments in {counted(len(groups), 'group')}")
    return target


def _refuse_changes(options):
    if options.img_size is not None or options.num_classes is not None:
        raise UserError(
            "a training run keeps its input size and classes; convert the weights alone to change"
        )


def _build(name, overrides, dtypes):
    if dtypes not in ({"float32"}, {"float64"}):
        raise UnfitWeightsError(
            f"the weights are {', '.join(sorted(dtypes))}; a run's are float32 or float64"
        )
    model = paddle_inline.create_model(name, **overrides)
    model.to(dtype=dtypes.pop())
    return model


def _load(model, arrays):
    paddle_inline.load_weights(model, {name: array.read() for name, array in arrays.items()})


def _checkpoint_in(folder):
    if Path(folder).is_file():
        raise WeightsFileError(
            f"{folder} is a file; --training takes a checkpoint's folder of the training program (OUTPUT/MODEL/TAG/"
            "checkpoints/step_N), or a run's; weights alone are converted without --training"
        )
    try:
        return find_checkpoint(folder)
    except CheckpointError as error:
        raise WeightsFileError(str(error)) from None


def _open_run(folder):
    """Load (model, optimizer, Ema or None, TrainingState) of a checkpoint folder."""
    folder = Path(expand(folder))
    try:
        state = check_checkpoint(folder)
        arrays, _ = open_weights(folder / "model.pdparams")
        dtypes = {array.dtype for array in arrays.values() if "float" in array.dtype}
        model = _build(state.model, tuples(state.overrides), dtypes)
        optimizer = make_adamw(model, _groups(state) or [adamw_settings(state)])
        ema = Ema(model, 0.0) if (folder / "ema.pdparams").exists() else None
        load_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state)
    except CheckpointError as error:
        raise WeightsFileError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsFileError(
            f"{folder} is no checkpoint of the training program: its state.json lacks what one has ({error})"
        ) from None
    return model, optimizer, ema, state


def _groups(state):
    """Return the groups of a run that came from PyTorch, with the settings of its training in Paddle, if any."""
    groups = state.origin.param_groups if state.origin else []
    if groups and state.config is not None:
        own = adamw_settings(state)
        shared = {"betas": own["betas"], "eps": own["eps"]}
        decays = [own["weight_decay"] if group.get("weight_decay") else 0.0 for group in groups]
        groups = [{**group, **shared, "weight_decay": value} for group, value in zip(groups, decays)]
    return groups


def _counters(state):
    """Return BatchNorm's counters of a run that came from PyTorch: one more for each batch since."""
    if state.origin is None:
        return {}
    accumulation = (state.config or {}).get("train", {}).get("accumulation_steps", 1)
    batches = (state.progress.step - state.origin.source_step) * accumulation
    return {name: count + batches for name, count in state.origin.num_batches_tracked.items()}


def _arrays(tensors):
    """{name: LazyArray} of {name: Paddle's tensor}."""
    values = {name: tensor.numpy() for name, tensor in tensors.items()}
    return {
        name: LazyArray(value.shape, str(value.dtype), lambda value=value: value)
        for name, value in values.items()
    }


def _torch_weights(model, tensors, counters):
    """A PyTorch state dict from {Paddle name: tensor}."""
    import torch

    result = torch_side(_arrays(tensors), model, counters)
    return OrderedDict((name, torch.from_numpy(array.read().copy())) for name, array in result.items())


def _check_torch_file(path, model, state, order, slots):
    """Read a PyTorch training checkpoint back: its moments bit for bit, its weights by running them."""
    back = open_source(path)
    _, found = read_optimizer(back.contents["optimizer"], model, order, path)
    for name, slot in slots.items():
        for key, value in slot.items():
            if np.asarray(found[name][key]).tobytes() != np.asarray(value).tobytes():
                raise CheckFailedError(f"the {key} of {name} does not come back bit for bit")
    identity = Identity(state.model, tuples(state.overrides), "paddle")
    return check_forward(identity, _arrays(model.state_dict()), select_weights(back, "model").arrays)


def _check_written(folder, model, optimizer, ema):
    """Read a checkpoint back and hold it, bit for bit, against what was to be written."""
    again, its_optimizer, its_ema, _ = _open_run(folder)
    pairs = [(again.state_dict(), model.state_dict())]
    if ema is not None:
        pairs.append((its_ema.average, ema.average))
    for name, slots in optimizer_state(model, optimizer).items():
        pairs.append((optimizer_state(again, its_optimizer)[name], slots))
    for written, expected in pairs:
        for name, value in expected.items():
            if np.asarray(written[name]).tobytes() != np.asarray(value).tobytes():
                raise CheckFailedError(f"{folder}: {name} does not come back bit for bit")
