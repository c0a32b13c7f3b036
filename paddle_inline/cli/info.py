"""One model: its settings, what it costs, its tensors and how training decays them."""

from __future__ import annotations

import argparse
import dataclasses

from .list import disagreements, format_number
from .output import new_table, show

KINDS = {
    "Linear": "in Linear layers",
    "convolution": "in convolution layers",
    "matmul": "in attention's own products",
    "conv2d": "in the predicted local filters",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `info`."""
    parser.add_argument("name", metavar="NAME", help="a model of `list`")


def run(arguments: argparse.Namespace) -> None:
    """Print the tables of one model."""
    from ..models.factory import create_model, model_spec
    from ..training.optim import decay_groups
    from ..utils.flops import profile

    spec = model_spec(arguments.name)
    model = create_model(arguments.name)
    counted = profile(model)
    table = new_table("setting of create_model", "value")
    for field in dataclasses.fields(spec):
        if field.name != "published":
            table.add_row(field.name, str(getattr(spec, field.name)))
    show(table)

    table = new_table("cost", ">counted", ">built", ">published")
    figures = spec.published
    for what, value, built, published in (
        ("M parameters", counted.params / 1e6, figures.built_params, figures.params),
        ("GMACs of one image", counted.total / 1e9, figures.built_gmacs, figures.gmacs),
    ):
        table.add_row(what, format_number(value, 3), format_number(built, 3), format_number(published))
    for kind, macs in counted.macs.items():
        table.add_row(f"  {KINDS[kind]}", format_number(macs / 1e9, 3), "", "")
    table.add_row("ImageNet-1K top-1, %", "", "", format_number(figures.top1))
    show(table)

    table = new_table("in training", ">tensors", ">numbers", "weight decay")
    own = dict(model.named_parameters())
    for group in decay_groups(model, 1.0):
        numbers = sum(own[name].size for name in group.names)
        table.add_row(
            group.rule, str(len(group.names)), f"{numbers:,}", "yes" if group.weight_decay else "no"
        )
    table.add_row("all tensors of the state dict", str(len(model.state_dict())), "", "")
    show(table)
    print(*disagreements(arguments.name, figures, counted), sep="\n")
