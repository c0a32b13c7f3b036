"""AdamW's state from one framework to the other.

PyTorch numbers an optimizer's parameters by groups in the order of the model; Paddle's state is kept here by the
parameters' names (paddle_inline/training/optim.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from paddle_inline.training.optim import decay_groups, make_optimizer
from paddle_inline.training.state import TrainingState
from paddle_inline.utils.errors import UserError, counted
from paddle_inline.weights.lazy_array import WeightsFileError, nonfinite
from paddle_inline.weights.torch_layout import tensor_rules

from .errors import UnfitWeightsError
from .formats.torch_file import Tensor
from .training_layout import plain

# PyTorch's name of a moment, Paddle's, and that of the running power of its beta
MOMENTS = (("exp_avg", "moment1", "beta1_pow_acc"), ("exp_avg_sq", "moment2", "beta2_pow_acc"))
DEFAULTS = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}


def make_adamw(model: paddle.nn.Layer, groups: list[dict[str, Any]]) -> paddle.optimizer.Optimizer:
    """Build AdamW over a model with the settings of its first group of parameters."""
    settings = {**DEFAULTS, **groups[0]}
    kinds = decay_groups(model, settings["weight_decay"])
    return make_optimizer("adamw", model, kinds, betas=tuple(settings["betas"]), eps=settings["eps"])


def adamw_settings(state: TrainingState) -> dict[str, Any]:
    """Return AdamW's settings of a run of train_paddle.py; the defaults where it names none.

    Raises:
        UserError: for another optimizer than AdamW.
    """
    train = (state.config or {}).get("train", {})
    optimizer = train.get("optimizer", {})
    if optimizer.get("name", "adamw") != "adamw":
        raise UserError(f"the run's optimizer is {optimizer['name']}; AdamW's state alone can be converted")
    found = {**optimizer, "weight_decay": train.get("weight_decay")}
    return {key: default if found.get(key) is None else found[key] for key, default in DEFAULTS.items()}


def _trained(model):
    """Return [(PyTorch's name, Paddle's, whether it is transposed)] of a Paddle model's trained parameters;
    Paddle counts BatchNorm's statistics among the others."""
    parameters = {name for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    rules = tensor_rules(model)
    return [(rules[name][0], name, rules[name][1].transpose) for name in rules if name in parameters]


def read_optimizer(
    saved: Any, model: paddle.nn.Layer, order: Sequence[str], path: Any
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Read (groups, slots) of a PyTorch optimizer's state dict.

    Args:
        model: Paddle's.
        order: PyTorch's names in the order of its model, which is that of its optimizer's parameters.
    Returns:
        [{"names": [...], "lr": ..., ...}] and {PyTorch's name: {"step", "exp_avg", "exp_avg_sq"}}.

    Raises:
        WeightsFileError: for no AdamW, or one over other parameters; UnfitWeightsError: for values that no AdamW has.
    """
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise WeightsFileError(
            f"{path} has no optimizer's state; convert its weights alone, without --training"
        )
    shapes = {name: tuple(p.shape)[:: -1 if transposed else 1] for (name, _, transposed), p in _pairs(model)}
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
            f"{path} has an optimizer with {counted(len(parts), 'group')}, of {sizes} tensors, which is not AdamW over "
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
    """Yield how an optimizer may have split its parameters, as lists of names per group, the likeliest first."""
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
    """Return PyTorch's names of the parameters that decay, by the recipe's rule."""
    names = {paddle_name: torch_name for torch_name, paddle_name, _ in _trained(model)}
    return {names[name] for group in decay_groups(model, 1.0) if group.weight_decay for name in group.names}


def authors_groups(
    model: paddle.nn.Layer, order: Sequence[str], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return two groups, as the authors make them: what decays, and what does not."""
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
        raise UnfitWeightsError(
            "the optimizer is AdamW with amsgrad, which the training program does not have"
        )
    return result


def paddle_slots(
    slots: dict[str, dict[str, Any]], model: paddle.nn.Layer, groups: list[dict[str, Any]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return slots in `optimizer_state`'s form; a parameter that PyTorch never updated has zero moments, no step."""
    betas = {name: group.get("betas", DEFAULTS["betas"]) for group in groups for name in group["names"]}
    result: dict[str, dict[str, np.ndarray]] = {}
    for (torch_name, paddle_name, transposed), parameter in _pairs(model):
        zero = np.zeros(tuple(parameter.shape)[:: -1 if transposed else 1])
        slot = slots.get(torch_name, {"step": 0, "exp_avg": zero, "exp_avg_sq": zero})
        dtype = str(parameter.dtype).split(".")[-1]
        result[paddle_name] = {}
        for beta, (moment, name, power) in zip(betas[torch_name], MOMENTS):
            values = slot[moment].T if transposed else slot[moment]
            result[paddle_name][name] = np.ascontiguousarray(values, dtype)
            result[paddle_name][power] = np.array([beta ** (slot["step"] + 1)], dtype)
    return result


def torch_slots(
    slots: dict[str, dict[str, np.ndarray]],
    model: paddle.nn.Layer,
    groups: list[dict[str, Any]],
    expected: int,
) -> dict[str, dict[str, Any]]:
    """Return {PyTorch's name: {"step", "exp_avg", "exp_avg_sq"}}, without parameters that were never updated.

    Args:
        slots: of `optimizer_state`.
        expected: how many steps AdamW should have counted.
    """
    betas = {name: group["betas"] for group in groups for name in group["names"]}
    result = {}
    for torch_name, paddle_name, transposed in _trained(model):
        if paddle_name not in slots:
            continue
        step = _steps(slots[paddle_name]["beta2_pow_acc"], betas[torch_name][1], expected)
        if step:
            result[torch_name] = {"step": step}
            for moment, name, _ in MOMENTS:
                values = slots[paddle_name][name]
                result[torch_name][moment] = np.ascontiguousarray(values.T if transposed else values)
    return result


def _steps(power, beta, expected):
    """Return how often a parameter was updated, from the power of its beta, which is that of one step more; where
    rounding has worn it down, as often as expected."""
    power = power.item()
    if power < 1e-30:
        return expected
    steps = round(math.log(power) / math.log(beta)) - 1
    return expected if abs(steps - expected) <= expected / 100 else steps


def torch_optimizer(
    groups: list[dict[str, Any]], slots: dict[str, dict[str, Any]], rate: float
) -> dict[str, Any]:
    """Return the state dict of a torch.optim.AdamW over these groups."""
    import torch

    numbers: dict[str, int] = {}
    parts = []
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
