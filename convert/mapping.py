"""What each tensor of a Paddle model is, and what that means for its name and layout in PyTorch.

The kind follows from the class of the layer that owns the tensor, never from its name or its number of
dimensions: a square Linear hides a missed transpose, and a two-dimensional bias table must stay put.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle import nn


@dataclass(frozen=True)
class Rule:
    """How one kind of tensor is stored in PyTorch: its own name there, and its layout."""

    torch_name: str | None = None  # None: the same as in Paddle
    transpose: bool = False  # its own inverse, so one rule serves both directions


LINEAR_WEIGHT = Rule(transpose=True)  # Paddle [in, out], PyTorch [out, in]
KEEP = Rule()

# (owning class, own name of the tensor) -> rule; the first class that fits wins, all else is kept.
RULES = (
    (nn.Linear, "weight", LINEAR_WEIGHT),
    (nn.layer.norm._BatchNormBase, "_mean", Rule(torch_name="running_mean")),
    (nn.layer.norm._BatchNormBase, "_variance", Rule(torch_name="running_var")),
)

# What PyTorch keeps and Paddle has no place for: a counter that is used only where momentum is None.
TORCH_ONLY = {nn.layer.norm._BatchNormBase: "num_batches_tracked"}


def rule_of(layer, own_name):
    """The rule of the tensor `own_name` that `layer` itself holds."""
    for kind, name, rule in RULES:
        if name == own_name and isinstance(layer, kind):
            return rule
    return KEEP


def tensor_rules(model):
    """{Paddle name: (PyTorch name, rule)} of every tensor in the state dict of a paddle.nn.Layer."""
    wanted = model.state_dict()
    rules = {}
    for prefix, layer in model.named_sublayers(include_self=True):
        for own_name in [*layer._parameters, *layer._buffers]:
            name = f"{prefix}.{own_name}" if prefix else own_name
            if name in wanted:
                rule = rule_of(layer, own_name)
                torch_name = name[: len(name) - len(own_name)] + (rule.torch_name or own_name)
                rules[name] = (torch_name, rule)
    return rules


def torch_only_names(model):
    """The PyTorch names that have no counterpart in Paddle (see TORCH_ONLY)."""
    return [
        f"{prefix}.{own_name}"
        for prefix, layer in model.named_sublayers()
        for kind, own_name in TORCH_ONLY.items()
        if isinstance(layer, kind)
    ]
