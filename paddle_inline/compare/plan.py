"""What is compared: the forms, the network that holds them, the data and the recipe, all known before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config.load import Config, load_config
from ..layers.basic import meta_init
from ..models.factory import create_model, model_spec
from ..utils.errors import UserError, unknown
from ..utils.paths import expand

DIGITS = "digits"  # the data set that needs no files
# The InLine paper's own ablation: injective without the local filter, and the filter without injectivity.
CONTROLS = ("inline:local=false", "linear_relu:local=true")
EPOCHS = 8  # of the digits: a minute of one core a training, see docs/attention_zoo.md
EPOCHS_OF_A_FOLDER = 30
# What a training differs in from the defaults of `train_paddle.py`: small networks, few epochs, no strong augmentation.
RECIPE = {
    "data.batch_size": 32,
    "data.num_workers": 0,
    "train.warmup_epochs": 1,
    "train.base_lr": 2e-3,
    "train.warmup_lr": 1e-4,
    "train.min_lr": 1e-5,
    "train.lr_batch": None,
    "model.drop_path_rate": 0.0,
    "model.label_smoothing": 0.1,
    "aug.scale": [0.7, 1.0],
    "aug.auto_augment": "none",
    "aug.color_jitter": 0.0,
    "aug.reprob": 0.0,
    "aug.hflip": 0.0,
    "aug.mixup": 0.0,
    "aug.cutmix": 0.0,
    "visualdl": False,
    "keep_last": 1,
}
FIELDS = ("kernel_function",)  # options that models have as fields of their own
SMALL_WIDTH = (
    128  # channels, below which the papers' initial weights of deviation 0.02 are widened, see trial.widen
)
_TEXTS = {"true": True, "false": False}


@dataclass(frozen=True)
class Form:
    """A row of the comparison: a form of attention and the options that it is built with.

    Attributes:
        name: as it is given and shown, `NAME` or `NAME:OPTION=VALUE,...`.
        attention: the form's own name.
        options: of it.
    """

    name: str
    attention: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def folder(self) -> str:
        """The name with no other characters than file systems take."""
        return re.sub(r"[^a-z0-9_.=-]+", "-", self.name.lower())

    def overrides(self) -> dict[str, Any]:
        """Return what `create_model` builds the backbone with."""
        options = dict(self.options)
        fields = {name: options.pop(name) for name in FIELDS if name in options}
        return {"attn_type": self.attention, **fields, **({"attn_options": options} if options else {})}


def read_form(text: str, known: Sequence[str]) -> Form:
    """Read `NAME` or `NAME:OPTION=VALUE,...`, as `--forms` takes it.

    Raises:
        UserError: an unknown name, with the nearest; what is no OPTION=VALUE.
    """
    name, colon, rest = text.partition(":")
    if name not in known:
        raise unknown("form of attention", name, known)
    options: list[tuple[str, Any]] = []
    for part in rest.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and key.isidentifier() and value):
            raise UserError(f"{text!r}: write a form as NAME or NAME:OPTION=VALUE,..., e.g. {CONTROLS[0]}")
        if key in dict(options):
            raise UserError(f"{text!r} gives {key} more than once; leave all but one out")
        options.append((key, _value(value)))
    return Form(text, name, tuple(sorted(options)))


def _value(text: str) -> Any:
    if text.lower() in _TEXTS:
        return _TEXTS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@dataclass(frozen=True)
class Plan:
    """A comparison. Two with equal settings train the same networks on the same batches.

    Attributes:
        forms: the rows.
        backbone: of `list_models()`.
        data: `digits`, or a folder as `data.data_path` takes it.
        seeds: how many trainings of each form, with seeds 0, 1, ...
        epochs: of each.
    """

    forms: tuple[Form, ...]
    backbone: str = "inline_deit_digits"
    data: str = DIGITS
    seeds: int = 3
    epochs: int = EPOCHS

    def config(self, form: Form, seed: int, output: Path) -> Config:
        """Return the settings of one training, those of `train_paddle.py`."""
        spec = model_spec(self.backbone)
        values = {
            **RECIPE,
            "model.name": self.backbone,
            "data.dataset": DIGITS if self.data == DIGITS else "imagenet",
            "data.img_size": spec.img_size,
            "train.epochs": self.epochs,
            "seed": seed,
            "save_freq": max(1, self.epochs // 4),
            "tag": f"seed{seed}",
        }
        config = load_config("", [], [f"{key}={_text(value)}" for key, value in values.items()])
        config.output = str(output)
        config.data.data_path = "" if self.data == DIGITS else self.data
        config.model.in_chans = spec.in_chans
        config.model.overrides = form.overrides()
        return config

    @property
    def widened(self) -> bool:
        """Whether the network is so narrow that its initial weights are widened."""
        spec = model_spec(self.backbone)
        return min(getattr(spec, "embed_dims", None) or (spec.embed_dim,)) < SMALL_WIDTH

    def settings(self) -> dict[str, Any]:
        """Return what a comparison is continued with: all that decides its numbers but the list of forms."""
        return {
            "backbone": self.backbone,
            "data": self.data,
            "seeds": self.seeds,
            "epochs": self.epochs,
            "widened": self.widened,
            "recipe": {key: value for key, value in RECIPE.items() if key not in ("visualdl", "keep_last")},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values, which `from_json` reads."""
        return {**asdict(self), "forms": [form.name for form in self.forms]}

    @classmethod
    def from_json(cls, values: dict[str, Any], known: Sequence[str]) -> Plan:
        """Read what `to_json` gave."""
        return cls(**{**values, "forms": tuple(read_form(name, known) for name in values["forms"])})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def make_plan(
    forms: Sequence[str] | None,
    backbone: str,
    data: str,
    seeds: int,
    epochs: int | None,
    known: Sequence[str],
) -> Plan:
    """Check what a user asks for and return the plan of it.

    Args:
        forms: as `--forms` takes them; None: all, and the two controls.
        backbone: of `list_models()`.
        data: `digits` or a folder.
        seeds, epochs: at least 1; None: the default of the data.
        known: the names of the forms.

    Raises:
        UserError: naming every form that the backbone cannot take, an unknown name, a number below 1.
    """
    for name, value in (("--seeds", seeds), ("--epochs", epochs)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; give 1 or more")
    model_spec(backbone)
    data = data if data == DIGITS else str(expand(data))
    names = list(forms) if forms is not None else default_forms(known)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"--forms names {', '.join(repeated)} more than once")
    chosen = tuple(read_form(name, known) for name in names)
    by_folder: dict[str, str] = {}
    for form in chosen:
        other = by_folder.setdefault(form.folder, form.name)
        if other != form.name:
            raise UserError(f"--forms names {other!r} and {form.name!r}, which are one form; leave one out")
    default = EPOCHS if data == DIGITS else EPOCHS_OF_A_FOLDER
    plan = Plan(chosen, backbone, data, seeds, epochs or default)
    check_forms(plan)
    return plan


def default_forms(known: Sequence[str]) -> list[str]:
    """Return all forms and the controls that their options allow, softmax and inline first."""
    first = [name for name in ("softmax", "inline") if name in known]
    controls = [control for control in CONTROLS if control.split(":")[0] in known]
    return [*first, *controls[:1], *(n for n in known if n not in first), *controls[1:]]


def check_forms(plan: Plan) -> None:
    """Refuse the forms that the backbone cannot take, all of them in one message, before anything is trained.

    Raises:
        UserError: with the reason of each.
    """
    refused = {}
    for form in plan.forms:
        try:
            with meta_init():
                create_model(plan.backbone, **form.overrides())
        except UserError as error:
            refused[form.name] = str(error)
    if not refused:
        return
    rest = [form.name for form in plan.forms if form.name not in refused]
    way = f"; the others: --forms {' '.join(rest)}" if rest else ""
    reasons = "; ".join(f"{name} ({why})" for name, why in refused.items())
    raise UserError(f"{plan.backbone} cannot be built with {reasons}{way}")
