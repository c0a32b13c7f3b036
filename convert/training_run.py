"""A training run from one framework to the other: weights, AdamW's moments and steps, averaged weights, and
how far the schedule is.

PyTorch's side is one file in one of two layouts; Paddle's is a checkpoint folder of train_paddle.py.

    InLine's    model, optimizer, lr_scheduler, epoch, max_accuracy, config, state_dict_ema, max_accuracy_e,
                scaler; `epoch` counts the epochs that are done
    timm's      state_dict, optimizer, epoch, arch, version, metric, state_dict_ema, amp_scaler (SOFT);
                `epoch` is the index of the last epoch that is done
"""

from __future__ import annotations

import math
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle

import paddle_inline
from paddle_inline.training.checkpoint import (
    SUMS,
    CheckpointError,
    check_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from paddle_inline.training.ema import Ema
from paddle_inline.training.loop import Progress
from paddle_inline.training.optim import (
    decay_groups,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)
from paddle_inline.utils.errors import FileAccessError, UserError
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, nonfinite
from paddle_inline.weights.load import open_weights, tuples

from .checkpoint import entries, open_checkpoint, paddle_side, summary_lines
from .conversion import torch_side, versions
from .errors import CheckFailedError, UnfitWeightsError
from .formats.source import EMA_KEYS, open_source, select_weights
from .formats.torch_file import Tensor
from .formats.write import atomic, check_output, sha256, sidecar_of, write_sidecar
from .identify import Identity, identify
from .mapping import tensor_rules
from .verify import check_forward, require_torch

# PyTorch's name of a moment, Paddle's, and that of the running power of its beta
MOMENTS = (("exp_avg", "moment1", "beta1_pow_acc"), ("exp_avg_sq", "moment2", "beta2_pow_acc"))
DEFAULTS = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}


def training_to_paddle(path, folder, options, say=lambda line: None):
    """Make a checkpoint of train_paddle.py from a PyTorch training checkpoint.

    Args:
        path: a torch file with weights, `optimizer` (AdamW) and, if they were kept, averaged weights.
        folder: of a run's checkpoints; `update_N` is made in it.
        options: `conversion.ConversionOptions`; input size and class count cannot change on the way.
    Returns:
        The checkpoint's path. It names no settings: train_paddle.py goes on with those it is given.
    Raises:
        What `open_checkpoint` raises; WeightsFileError: no optimizer state, or one that is not this model's;
        UnfitWeightsError: values that no run can have; CheckFailedError.
    """
    _refuse_changes(options)
    opened = open_checkpoint(path, replace(options, take="model"))
    contents, identity = opened.source.contents, opened.identity
    if identity.side != "torch":
        raise UserError(f"{path} is Paddle's already; what is converted here is PyTorch's training state")
    for line in summary_lines(opened):
        say(line)
    if options.verify:
        require_torch()
    arrays, _, _ = paddle_side(opened, options)
    dtypes = {array.dtype for array in arrays.values() if "float" in array.dtype}
    model = _build(identity.name, identity.overrides, dtypes)
    groups, slots = _read_optimizer(contents.get("optimizer"), model, list(opened.weights.arrays), path)
    ema = None
    if any(key in EMA_KEYS for key in opened.weights.others):
        averaged = select_weights(opened.source, "ema")
        kept = {name: array for name, array in averaged.arrays.items() if name not in opened.counters}
        identify({name: array.shape for name, array in kept.items()}, identity.name, identity.overrides)
        averaged = replace(opened, weights=replace(averaged, arrays=kept))
        _load(model, paddle_side(averaged, options)[0])
        ema = Ema(model, 0.0)
    _load(model, arrays)
    optimizer = _optimizer(model, groups)
    load_optimizer_state(model, optimizer, _paddle_slots(slots, model, groups))
    state = _state(contents, opened, groups, max((slot["step"] for slot in slots.values()), default=0))
    if options.verify:
        found = check_forward(identity, arrays, torch_side(arrays, model, opened.counters))
        state["torch"]["verification"] = found
        say(f"verified: {found['text']}")
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
    say(
        f"{len(slots)} pairs of moments, {'averaged weights, ' if ema else ''}update {state['update']}, "
        f"epoch {state['progress']['epoch']}"
    )
    return made


def training_to_torch(folder, output, options, say=lambda line: None):
    """Make a PyTorch training checkpoint from one of train_paddle.py; the inverse of `training_to_paddle`.

    Args:
        folder: a checkpoint's folder.
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
    output = check_output(output, "torch")
    if output.suffix == ".safetensors":
        raise UserError(f"output {output}: safetensors hold no training state; let it end in .pth")
    model, optimizer, ema, state = _open_run(folder)
    say(f"{folder}: {model.name}, update {state['update']}, epoch {state['progress']['epoch']}")
    extra, counters = _extra(state), _extra(state).get("num_batches_tracked", {})
    with torch.device("meta"):
        theirs = torch_ref.create_model(state["model"], **tuples(state["overrides"]))
    order = [name for name, _ in theirs.named_parameters()]
    groups = extra.get("param_groups") or _authors_groups(model, order, _settings(state))
    # what a loss scaler skipped before the run came from PyTorch; AdamW has not counted it
    skipped = max(extra.get("source_update", state["update"]) - extra.get("adam_steps", state["update"]), 0)
    slots = _torch_slots(optimizer_state(model, optimizer), model, groups, state["update"] - skipped)
    weights = _torch_weights(model, model.state_dict(), counters)
    optimizer = _numbered(groups, slots, state["rate"])
    contents = _layout_of(model.name)(state, weights, optimizer)
    if ema is not None:
        contents["state_dict_ema"] = _torch_weights(model, ema.average, counters)
        if "max_accuracy" in contents:
            contents["max_accuracy_e"] = max(state["progress"]["best_ema_top1"], 0.0)
    with atomic(output) as temporary:
        torch.save(contents, temporary)
        facts = {
            "source": {"folder": str(folder), "sha256": sha256(Path(folder) / SUMS), "of": SUMS},
            "output": {"name": output.name, "bytes": temporary.stat().st_size, "sha256": sha256(temporary)},
            "model": model.name,
            "overrides": state["overrides"],
            "verification": {"done": False, "why": "--no-verify"},
            "versions": versions(),
        }
        if options.verify:
            facts["verification"] = _check_torch_file(temporary, model, state, order, slots)
            say(f"verified: {facts['verification']['text']}")
        sidecar_of(output).unlink(missing_ok=True)  # better none than that of another file
    write_sidecar(output, facts)
    say(f"{len(slots)} pairs of moments in {len(groups)} groups")
    return output


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


def _optimizer(model, groups):
    settings = {**DEFAULTS, **groups[0]}
    kinds = decay_groups(model, settings["weight_decay"])
    return make_optimizer("adamw", model, kinds, betas=tuple(settings["betas"]), eps=settings["eps"])


def _load(model, arrays):
    paddle_inline.load_weights(model, {name: array.read() for name, array in arrays.items()})


def _open_run(folder):
    """(model, optimizer, Ema or None, state) of a checkpoint folder."""
    folder = Path(folder)
    try:
        state = check_checkpoint(folder)
        Progress(**state["progress"])
        if not (isinstance(state["update"], int) and math.isfinite(state["rate"])):
            raise TypeError("update or rate is no number")
        arrays, _ = open_weights(folder / "model.pdparams")
        dtypes = {array.dtype for array in arrays.values() if "float" in array.dtype}
        model = _build(state["model"], tuples(state["overrides"]), dtypes)
        optimizer = _optimizer(model, _extra(state).get("param_groups") or [_settings(state)])
        ema = Ema(model, 0.0) if (folder / "ema.pdparams").exists() else None
        load_checkpoint(folder, model=model, optimizer=optimizer, ema=ema)
    except CheckpointError as error:
        raise WeightsFileError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsFileError(
            f"{folder} is no checkpoint of train_paddle.py: its state.json lacks what one has ({error})"
        ) from None
    return model, optimizer, ema, state


def _extra(state):
    """What a checkpoint keeps for PyTorch alone, if it came from there."""
    return state.get("torch") or {}


def _settings(state):
    """AdamW's settings of a run of train_paddle.py; the defaults where it names none."""
    train = (state.get("config") or {}).get("train", {})
    optimizer = train.get("optimizer", {})
    if optimizer.get("name", "adamw") != "adamw":
        raise UserError(f"the run's optimizer is {optimizer['name']}; AdamW's state alone can be converted")
    found = {**optimizer, "weight_decay": train.get("weight_decay")}
    return {key: default if found.get(key) is None else found[key] for key, default in DEFAULTS.items()}


def _trained(model):
    """[(PyTorch's name, Paddle's name, whether it is transposed)] of a Paddle model's trained parameters;
    Paddle counts BatchNorm's statistics among the others."""
    parameters = {name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    rules = tensor_rules(model)
    return [(rules[name][0], name, rules[name][1].transpose) for name in rules if name in parameters]


def _read_optimizer(saved, model, order, path):
    """(groups, slots) of a PyTorch optimizer's state dict.

    Args:
        order: PyTorch's names in the order of its model, which is that of its optimizer's parameters.
    Returns:
        [{"names": [...], "lr": ..., ...}] and {PyTorch's name: {"step", "exp_avg", "exp_avg_sq"}}.
    """
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise WeightsFileError(
            f"{path} has no optimizer's state; convert its weights alone, without --training"
        )
    shapes = {name: tuple(p.shape)[:: -1 if turned else 1] for (name, _, turned), p in _pairs(model)}
    order = [name for name in order if name in shapes]
    parts = saved.get("param_groups")
    if not parts or not all(map(_is_group, parts if isinstance(parts, list) else [None])):
        raise WeightsFileError(f"{path} has an optimizer whose groups of parameters are not AdamW's")
    if not all(isinstance(slot, dict) for slot in saved["state"].values()):
        raise WeightsFileError(f"{path} has an optimizer's state that is not AdamW's")
    for names in _ways_of_grouping(parts, order, model):
        if [len(group) for group in names] != [len(part.get("params", ())) for part in parts]:
            continue
        numbered = {i: name for part, group in zip(parts, names) for i, name in zip(part["params"], group)}
        if set(saved["state"]) <= set(numbered) and all(
            _shape(slot.get(moment)) == shapes[numbered[i]]
            for i, slot in saved["state"].items()
            for moment, _, _ in MOMENTS
        ):
            break
    else:
        sizes = ", ".join(str(len(part.get("params", ()))) for part in parts)
        raise WeightsFileError(
            f"{path} has an optimizer with {len(parts)} groups, of {sizes} tensors, which is not AdamW over "
            "this model: neither all in one, nor those that decay and those that do not"
        )
    groups = [
        {
            "names": group,
            **{key: plain(value) for key, value in part.items() if key not in ("params", "param_names")},
        }
        for part, group in zip(parts, names)
    ]
    return groups, {numbered[i]: _read_slot(numbered[i], slot) for i, slot in saved["state"].items()}


def _is_group(part):
    """Whether it is one group of an AdamW's parameters: their places, and settings that are numbers."""
    if not isinstance(part, dict) or not isinstance(part.get("params"), list):
        return False
    settings = {**DEFAULTS, **{key: plain(value) for key, value in part.items()}}
    betas = settings["betas"]
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        return False
    numbers = settings["eps"], settings["weight_decay"], *betas
    return (
        all(type(place) is int for place in part["params"])
        and all(type(number) in (int, float) and number >= 0 for number in numbers)
        and all(0 < beta < 1 for beta in betas)
    )


def _pairs(model):
    parameters = dict(model.named_parameters())
    return [(entry, parameters[entry[1]]) for entry in _trained(model)]


def _ways_of_grouping(parts, order, model):
    """How an optimizer may have split its parameters, as lists of names per group, the likeliest first."""
    if all(isinstance(part.get("param_names"), list) for part in parts):
        yield [part["param_names"] for part in parts]
    if len(parts) == 1:
        yield [order]
    if len(parts) == 2:
        shapes = {name: parameter.ndim for (name, _, _), parameter in _pairs(model)}
        by_rule = _decaying(model)
        for decay in (by_rule, {name for name, rank in shapes.items() if rank > 1}):
            halves = [
                [name for name in order if name in decay],
                [name for name in order if name not in decay],
            ]
            first_decays = (parts[0].get("weight_decay") or 0) >= (parts[1].get("weight_decay") or 0)
            yield halves if first_decays else halves[::-1]
            yield halves[::-1] if first_decays else halves


def _decaying(model):
    """PyTorch's names of the parameters that decay, by the recipe's rule."""
    names = {ours: theirs for theirs, ours, _ in _trained(model)}
    return {names[name] for group in decay_groups(model, 1.0) if group.weight_decay for name in group.names}


def _authors_groups(model, order, settings):
    """Two groups, as the authors make them: what decays, and what does not."""
    decay = _decaying(model)
    halves = [name for name in order if name in decay], [name for name in order if name not in decay]
    decays = settings["weight_decay"], 0.0
    return [{"names": names, **settings, "weight_decay": value} for names, value in zip(halves, decays)]


def _shape(tensor):
    return tensor.stored.shape if isinstance(tensor, Tensor) else None


def _read_slot(name, slot):
    step = slot.get("step")
    step = step.stored.read() if isinstance(step, Tensor) else step
    if (
        not isinstance(step, (int, float, np.ndarray))
        or np.size(step) != 1
        or not 0 <= np.ravel(step)[0] < 2**53
    ):
        raise UnfitWeightsError(f"the optimizer's step of {name} is no count")
    result = {"step": int(np.ravel(step)[0])}
    for moment, _, _ in MOMENTS:
        result[moment] = slot[moment].stored.read()
        if result[moment].dtype.kind != "f" or nonfinite(result[moment]):
            raise UnfitWeightsError(f"the optimizer's {moment} of {name} has values that are no real numbers")
    if (result["exp_avg_sq"] < 0).any():
        raise UnfitWeightsError(f"the optimizer's exp_avg_sq of {name} has negative values")
    if slot.get("max_exp_avg_sq") is not None:
        raise UnfitWeightsError("the optimizer is AdamW with amsgrad, which train_paddle.py does not have")
    return result


def _paddle_slots(slots, model, groups):
    """`optimizer_state`'s form: a parameter that PyTorch never updated has moments of zero after no step."""
    betas = {name: group.get("betas", DEFAULTS["betas"]) for group in groups for name in group["names"]}
    result = {}
    for (theirs, ours, turned), parameter in _pairs(model):
        zero = np.zeros(tuple(parameter.shape)[:: -1 if turned else 1])
        slot = slots.get(theirs, {"step": 0, "exp_avg": zero, "exp_avg_sq": zero})
        dtype = str(parameter.dtype).split(".")[-1]
        result[ours] = {}
        for beta, (moment, name, power) in zip(betas[theirs], MOMENTS):
            values = slot[moment].T if turned else slot[moment]
            result[ours][name] = np.ascontiguousarray(values, dtype)
            result[ours][power] = np.array([beta ** (slot["step"] + 1)], dtype)
    return result


def _torch_slots(slots, model, groups, update):
    """`update`: how many updates AdamW should have counted.

    {PyTorch's name: {"step", "exp_avg", "exp_avg_sq"}}, without parameters that were never updated."""
    betas = {name: group["betas"] for group in groups for name in group["names"]}
    result = {}
    for theirs, ours, turned in _trained(model):
        if ours not in slots:
            continue
        step = _steps(slots[ours]["beta2_pow_acc"], betas[theirs][1], update)
        if step:
            result[theirs] = {"step": step}
            for moment, name, _ in MOMENTS:
                values = slots[ours][name]
                result[theirs][moment] = np.ascontiguousarray(values.T if turned else values)
    return result


def _steps(power, beta, update):
    """How often a parameter was updated, from the power of its beta, which is that of one step more; where
    rounding has worn it down, as often as the run."""
    power = power.item()
    if power < 1e-30:
        return update
    steps = round(math.log(power) / math.log(beta)) - 1
    return update if abs(steps - update) <= update / 100 else steps


def _numbered(groups, slots, rate):
    """The state dict of a torch.optim.AdamW over these groups."""
    import torch

    numbers, parts = {}, []
    for group in groups:
        first = len(numbers)
        numbers.update({name: first + i for i, name in enumerate(group["names"])})
        settings = {key: value for key, value in group.items() if key != "names"}
        settings.update(lr=rate, betas=tuple(group["betas"]))
        parts.append({**settings, "params": list(range(first, len(numbers)))})
    state = {}
    for name, number in numbers.items():
        if name in slots:
            step = {"step": torch.tensor(float(slots[name]["step"]))}
            moments = {key: torch.from_numpy(slots[name][key].copy()) for key, _, _ in MOMENTS}
            state[number] = {**step, **moments}
    return {"state": state, "param_groups": parts}


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
    _, found = _read_optimizer(back.contents["optimizer"], model, order, path)
    for name, slot in slots.items():
        for key, value in slot.items():
            if np.asarray(found[name][key]).tobytes() != np.asarray(value).tobytes():
                raise CheckFailedError(f"the {key} of {name} does not come back bit for bit")
    identity = Identity(state["model"], tuples(state["overrides"]), "paddle")
    return check_forward(identity, _arrays(model.state_dict()), select_weights(back, "model").arrays)


def _layout_of(name):
    """The function that lays out a training checkpoint as the program that trains this model reads it."""
    return _timm_layout if name.startswith("soft") else _inline_layout


def _inline_layout(state, weights, optimizer):
    """InLine's: `epoch` is the number of epochs done, with which its training goes on."""
    train, extra = (state.get("config") or {}).get("train", {}), _extra(state)
    scheduler, settings = extra.get("lr_scheduler"), extra.get("config")
    if train and state.get("updates_per_epoch"):  # the same two facts from which the position is read back
        scheduler = {"t_initial": train["epochs"] * state["updates_per_epoch"]}
        settings = {"TRAIN": {"EPOCHS": train["epochs"]}}
    contents = {
        "model": weights,
        "optimizer": optimizer,
        "lr_scheduler": scheduler or {},
        "epoch": state["progress"]["epoch"],
        "max_accuracy": max(state["progress"]["best_top1"], 0.0),
    }
    return {**contents, "config": settings} if settings else contents


def _timm_layout(state, weights, optimizer):
    """timm's, which SOFT uses: `epoch` is the index of the last epoch done."""
    contents = {
        "epoch": state["progress"]["epoch"] - 1,
        "arch": state["model"],
        "state_dict": weights,
        "optimizer": optimizer,
        "version": 2,
    }
    best = state["progress"]["best_top1"]
    return {**contents, "metric": best} if best >= 0 else contents


class Position(NamedTuple):
    """How far a PyTorch run is."""

    epoch: int  # epochs done
    update: int  # updates done
    exact: bool  # whether `update` is known; if not, a loss scaler may have skipped some more


def position(contents, adam_steps):
    """How far the run of a PyTorch checkpoint is.

    A loss scaler skips updates whose gradients are not finite, and AdamW does not count those, while the
    schedule does. InLine's scheduler tells the updates of an epoch: `t_initial` over the epochs of its
    settings. Where nothing tells them, AdamW's own count is taken, and is exact if no loss scaler was used.

    Args:
        contents: of the file.
        adam_steps: the most updates that AdamW counts for any parameter.
    Returns:
        Position.
    Raises:
        UnfitWeightsError: AdamW has counted more updates than the epochs have.
    """
    epoch = contents.get("epoch")
    epoch = epoch if type(epoch) is int and epoch >= 0 else -1
    is_inline = any(key in contents for key in ("max_accuracy", "config"))
    done = max(epoch if is_inline else epoch + 1, 0)
    scheduled = entries(contents.get("lr_scheduler")).get("t_initial")
    epochs = entries(entries(contents.get("config")).get("train")).get("epochs")
    if done and all(type(n) in (int, float) and 0 < n < 2**53 for n in (scheduled, epochs)):
        update = round(scheduled / epochs * done)
        if adam_steps > update:
            raise UnfitWeightsError(
                f"the optimizer has counted {adam_steps} updates, but {done} epochs of its schedule have "
                f"{update} (t_initial {scheduled} / TRAIN.EPOCHS {epochs} * epoch {epoch})"
            )
        return Position(done, update, True)
    return Position(done, adam_steps, not any(contents.get(key) for key in ("scaler", "amp_scaler", "amp")))


def _state(contents, opened, groups, adam_steps):
    """What state.json shall say."""
    done, update, exact = position(contents, adam_steps)
    best = contents.get("max_accuracy", contents.get("metric"))
    progress = Progress(
        epoch=done,
        update=update,
        best_top1=_number(best, -1.0),
        best_ema_top1=_number(contents.get("max_accuracy_e"), -1.0),
    )
    epochs = entries(entries(contents.get("config")).get("train")).get("epochs")
    return {
        "model": opened.identity.name,
        "overrides": opened.identity.overrides,
        "update": update,
        "progress": progress.as_dict(),
        "rate": _number(groups[0].get("lr"), 0.0),
        "updates_per_epoch": update // done if done and exact else None,
        "scaler": None,
        "world": None,
        "config": None,  # the settings are those that train_paddle.py is given
        "classes": None,
        "paddle": paddle.__version__,
        "torch": {
            "param_groups": groups,
            "lr_scheduler": plain(contents.get("lr_scheduler")),
            "config": {"TRAIN": {"EPOCHS": epochs}} if type(epochs) is int else None,
            "adam_steps": adam_steps,
            "source_update": update,
            "update_is_exact": exact,
            "num_batches_tracked": opened.counters,
            "source": {file.name: sha256(file) for file in opened.source.files},
        },
    }


def _number(value, default):
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else default


def plain(value, depth=6):
    """A value that JSON can hold, without what it cannot: None in its place."""
    if isinstance(value, np.generic):
        value = value.item()
    if (
        value is None
        or isinstance(value, (bool, int, str))
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    if depth and isinstance(value, dict):
        return {key: plain(item, depth - 1) for key, item in value.items() if isinstance(key, str)}
    if depth and isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    return None


def _check_written(folder, model, optimizer, ema):
    """Read a checkpoint back and hold it, bit for bit, against what was to be written."""
    again, its_optimizer, its_ema, _ = _open_run(folder)
    pairs = [(again.state_dict(), model.state_dict())]
    if ema is not None:
        pairs.append((its_ema.average, ema.average))
    for name, slots in optimizer_state(model, optimizer).items():
        pairs.append((optimizer_state(again, its_optimizer)[name], slots))
    for mine, theirs in pairs:
        for name, value in theirs.items():
            if np.asarray(mine[name]).tobytes() != np.asarray(value).tobytes():
                raise CheckFailedError(f"{folder}: {name} does not come back bit for bit")
