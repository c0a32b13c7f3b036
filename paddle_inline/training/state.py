"""The state of a training run besides its tensors: what `state.json` of a checkpoint holds.

`TrainingState.to_json` and `TrainingState.from_json` are the only writer and reader of that file; training and
`python -m convert ... --training` both go through them. Version 0.1 wrote format 1, which is still read.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

FORMAT = 2


@dataclass
class Progress:
    """How far a run is. `fit` counts it forward.

    What is random in step s of rank r is drawn from generators seeded with (seed, r, s), so no generator's
    state has to be kept.
    """

    epoch: int = 0  # finished, evaluation included
    step: int = 0  # finished optimizer steps
    best_top1: float = -1.0  # percent; below 0: none yet
    best_epoch: int = 0
    best_ema_top1: float = -1.0
    best_ema_epoch: int = 0
    bad_images: int = 0  # in the epoch that has begun, on all ranks: they could not be read


@dataclass(frozen=True)
class Origin:
    """What a run that came from PyTorch keeps for its way back there."""

    param_groups: list[dict[str, Any]]  # of the optimizer, with the parameters' names under "names"
    lr_scheduler: Any = None
    config: dict[str, Any] | None = None
    adam_steps: int = 0  # that AdamW had counted
    source_step: int = 0  # steps done, those included that a loss scaler skipped
    step_is_exact: bool = True  # if not, `source_step` is AdamW's count
    num_batches_tracked: dict[str, int] = field(default_factory=dict)  # BatchNorm's counters
    source: dict[str, str] = field(default_factory=dict)  # file name -> SHA-256
    verification: dict[str, Any] | None = None


def when(epoch: int) -> str:
    """Return after which epoch something was measured; 0: before the first, of the weights that a run began with."""
    return f"epoch {epoch}" if epoch else "before the first epoch"


@dataclass
class TrainingState:
    """Everything of a run that is neither a weight nor a slot of the optimizer."""

    model: str  # the model's name; with `overrides` it builds the model again
    overrides: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    rate: float = 0.0  # learning rate of the next step
    steps_per_epoch: Any = None  # None: not known, of a converted run
    images: Any = None  # number of training images; None: not known
    image_names: Any = (
        None  # digest of their names and classes, in order (`build_data.names_digest`); None likewise
    )
    world: Any = None  # number of ranks; None likewise
    config: dict[str, Any] | None = None  # the settings; None: converted, and not yet trained here
    classes: list[str] | None = None
    transform: dict[str, Any] | None = None  # of evaluation, arguments of `eval_transform`
    scaler: dict[str, Any] | None = None  # of `scaler_state`
    paddle: str | None = None  # version
    origin: Origin | None = None  # where the run came from PyTorch

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `state.json`."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, contents: dict[str, Any]) -> TrainingState:
        """Read the contents of `state.json`, of this format or of version 0.1's.

        Raises:
            ValueError: for a format that this version does not read.
            KeyError, TypeError: where an entry is missing or of another kind.
        """
        version = contents.get("format")
        if version not in (1, FORMAT):
            raise ValueError(f"has format {version}; this version reads formats 1 and {FORMAT}")
        if version == 1:
            contents = _from_format_1(contents)
        values = {f.name: contents[f.name] for f in fields(cls) if f.name in contents}
        values["progress"] = Progress(**values["progress"])
        if values.get("origin") is not None:
            values["origin"] = Origin(**values["origin"])
        state = cls(**values)
        counts = state.progress.epoch, state.progress.step
        if not (isinstance(state.overrides, dict) and all(type(n) is int and n >= 0 for n in counts)):
            raise TypeError(f"overrides {state.overrides!r}, epoch and step {counts}")
        if not math.isfinite(state.rate):
            raise TypeError(f"rate {state.rate!r} is no number")
        return state


def _from_format_1(contents):
    """Rename the entries of version 0.1, whose step was called update."""
    contents = dict(contents)
    progress = dict(contents["progress"])
    progress["step"] = progress.pop("update", contents.get("update"))
    contents.update(progress=progress, steps_per_epoch=contents.get("updates_per_epoch"))
    origin = contents.get("torch")
    if origin is not None:
        renamed = {"source_update": "source_step", "update_is_exact": "step_is_exact"}
        contents["origin"] = {renamed.get(key, key): value for key, value in origin.items()}
    return contents


def scaler_state(scaler: Any) -> dict[str, Any] | None:
    """Return a `paddle.amp.GradScaler`'s state as plain numbers; None without one, or for one that is off."""
    state = scaler.state_dict() if scaler is not None else {}
    return {key: v.item() if hasattr(v, "item") else v for key, v in state.items()} or None


def load_scaler_state(scaler: Any, state: dict[str, Any] | None) -> None:
    """Put the state that `scaler_state` returned back into a loss scaler, if there are both."""
    if scaler is not None and state:
        scaler.load_state_dict({**state, "scale": np.array([state["scale"]], "float32")})
