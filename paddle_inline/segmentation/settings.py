"""Settings of a run: PaddleSeg's own YAML files, read strictly, and what its builder makes of them."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..toolkits.launcher import parse_overrides
from ..toolkits.settings import read_settings
from ..utils.errors import UserError, short, unknown
from ..utils.paths import expand
from .mends import toolkit

# The toolkit's keys; `_base_` and `_inherited_` are its loader's.
SECTIONS = ("train_dataset", "val_dataset", "test_config", "optimizer", "lr_scheduler", "loss", "model")
# Those of a run, which the toolkit's programs take as options of the command line, with their defaults.
RUN = {
    "batch_size": 2,  # images per device
    "iters": 40000,
    "save_dir": "",  # default: output/segmentation/NAME OF THE FILE
    "weights": "",  # of eval, predict and export; default: the best of save_dir
    "save_interval": 1000,
    "log_iters": 10,
    "keep_checkpoint_max": 2,
    "num_workers": 0,
    "do_eval": True,  # evaluate at every save_interval, and keep the best
    "use_vdl": False,
    "seed": 0,
    "device": "",  # cpu, gpu; default: the GPU where Paddle has one
    "precision": "fp32",  # fp16 and bf16: mixed, on a GPU
}
# Of the toolkit's own files, without a use here.
UNUSED = ("to_static_training", "print_mem_info", "log_ranks", "uniform_output_enabled", "export")
TEST_KEYS = ("is_slide", "crop_size", "stride", "aug_eval", "scales", "flip_horizontal", "flip_vertical")
_IN_WORDS = {int: "a whole number", bool: "true or false", str: "a text"}
PRECISIONS = ("fp32", "fp16", "bf16")


class Settings:
    """The settings of a run and its parts, each built when it is asked for.

    Args:
        path: a YAML file.
        overrides: `KEY=VALUE` texts.

    Attributes:
        run: {key of RUN: value}.
        notes: lines on what was read and has no use.

    Raises:
        UserError: a file that cannot be read, an unknown key, a value that does not fit.
    """

    def __init__(self, path: str, overrides: Sequence[str] = ()) -> None:
        given = parse_overrides(overrides)
        tree = merged(read_settings(expand(path), "_base_", put=merged, section="segmentation"), given)
        tree["loss"] = tree.get("loss") or {}
        for key in tree:
            if key not in (*SECTIONS, *RUN, *UNUSED):
                raise unknown("setting", key, (*SECTIONS, *RUN))
        self.notes = [f"{key} has no use here" for key in UNUSED if tree.pop(key, None) is not None]
        self.run = {**RUN, **{key: tree.pop(key) for key in RUN if key in tree}}
        _check_run(self.run)
        self.run["save_dir"] = expand(self.run["save_dir"] or f"output/segmentation/{Path(path).stem}")
        self.test = dict(tree.pop("test_config", None) or {})
        _check_test(self.test)
        for key in ("train_dataset", "val_dataset"):
            root = (tree.get(key) or {}).get("dataset_root")
            if root is not None:
                tree[key]["dataset_root"] = expand(str(root))
        self.tree = tree
        self._builder = _builder({**tree, **{key: self.run[key] for key in ("batch_size", "iters")}}, path)

    def model(self, pretrained: bool = True) -> Any:
        """Return the segmenter, in train mode; without the weights that `pretrained` names if all will be loaded."""
        section = self._builder.config.dic["model"]
        for part in () if pretrained else (section, section.get("backbone") or {}):
            part.pop("pretrained", None)
        return self._build("model")

    def losses(self) -> dict[str, list[Any]]:
        """Return the losses and their coefficients, one for each of the model's outputs."""
        return self._build("loss")

    def dataset(self, key: str) -> Any:
        """Return the data set of `train_dataset` or `val_dataset`, whose folder is there."""
        return self._build(key)

    def transforms(self) -> list[Any]:
        """Return the transforms of `val_dataset`, which may be missing itself."""
        return self._build("val_transforms")

    def optimizer(self, model: Any) -> Any:
        """Return the optimizer, whose learning rate is set at every step."""
        factory = self._told(lambda: self._builder.build_component(self.tree["optimizer"]))
        with _quiet():  # the toolkit prints the name of every parameter
            return self._told(lambda: factory(model, 1.0))

    def rates(self, start: int) -> Any:
        """Return the learning rates' scheduler at a step; `scheduler()` gives the rate, `step()` goes on."""
        scheduler = self._build("lr_scheduler")
        if type(scheduler).__name__ == "ReduceOnPlateau":
            raise UserError(
                "lr_scheduler ReduceOnPlateau follows the losses: a run could not be resumed exactly"
            )
        for _ in range(start):
            scheduler.step()
        return scheduler

    def _build(self, what: str) -> Any:
        return self._told(lambda: getattr(self._builder, what))

    @staticmethod
    def _told(build: Any) -> Any:
        """Build something; what the toolkit says of settings that do not fit is one line."""
        try:
            return build()
        except (AssertionError, RuntimeError, ValueError, FileNotFoundError) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__context__
            if cause is not None:
                raise cause from None
            if isinstance(error, AssertionError) or str(error).startswith("Create "):
                raise UserError(" ".join(str(error).split())) from None
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the toolkit logs for information off the terminal while this lasts."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where its wheel prints
            yield
    finally:
        logging.disable(level)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the settings of `above` put in; a section with `_inherited_: false` replaces its like."""
    above = dict(above)
    if above.pop("_inherited_", True) is False:
        return above
    tree = dict(below)
    for key, value in above.items():
        own = tree.get(key)
        tree[key] = merged(own if isinstance(own, dict) else {}, value) if isinstance(value, dict) else value
    return tree


def _check_run(run: dict[str, Any]) -> None:
    for key, default in RUN.items():
        value = run[key]
        if type(value) is not type(default):
            raise UserError(f"{key} is {short(repr(value))}; it takes {_IN_WORDS[type(default)]}")
    for key in ("batch_size", "iters", "save_interval", "log_iters", "keep_checkpoint_max"):
        if run[key] < 1:
            raise UserError(f"{key} is {run[key]}; it counts from 1")
    for key in ("num_workers", "seed"):
        if run[key] < 0:
            raise UserError(f"{key} is {run[key]}; it is 0 or more")
    if run["precision"] not in PRECISIONS:
        raise unknown("precision", run["precision"], PRECISIONS)


def _check_test(test: dict[str, Any]) -> None:
    for key in test:
        if key not in TEST_KEYS:
            raise unknown("setting of test_config", key, TEST_KEYS)
    if not test.get("is_slide"):
        return
    for key in ("crop_size", "stride"):
        sides = test.get(key)
        if not (
            isinstance(sides, (list, tuple))
            and len(sides) == 2
            and all(type(side) is int and side > 0 for side in sides)
        ):
            raise UserError(
                f"test_config.{key} is {sides!r}; a sliding window takes [width, height] in pixels"
            )
    if any(stride > crop for stride, crop in zip(test["stride"], test["crop_size"])):
        raise UserError(
            f"test_config.stride {test['stride']} is larger than crop_size {test['crop_size']}: pixels between the "
            "windows would have no class"
        )


def _builder(tree: dict[str, Any], path: str) -> Any:
    """Return the toolkit's builder of settings that are read already."""
    cvlibs = toolkit("cvlibs")
    config_class: Any = cvlibs.Config
    builder_class: Any = cvlibs.SegBuilder

    class Config(config_class):
        """The toolkit's checks and corrections, on our settings."""

        @classmethod
        def _parse_from_yaml(cls, path: str, *more: Any, **options: Any) -> dict[str, Any]:
            return copy.deepcopy(tree)

    class Builder(builder_class):
        """The toolkit's builder, strict with arguments."""

        def build_component_impl(self, component_class: Any, *args: Any, **options: Any) -> Any:
            """Build a part; UserError for an argument that it does not take."""
            try:
                inspect.signature(component_class).bind(*args, **options)
            except TypeError as error:
                known = [name for name in inspect.signature(component_class).parameters if name != "self"]
                raise UserError(f"{component_class.__name__}: {error}; it takes {', '.join(known)}") from None
            return component_class(*args, **options)

        def load_component_class(self, class_type: str) -> Any:
            """Return a part's class; UserError for an unknown one, with its nearest neighbour."""
            names = [name for part in self.comp_list for name in part.components_dict]
            if class_type not in names:
                near = difflib.get_close_matches(str(class_type), names, n=1, cutoff=0.4)
                hint = (
                    f"; did you mean {near[0]}?" if near else "; our backbones are called as in list_models()"
                )
                raise UserError(f"PaddleSeg knows no type {short(repr(class_type))}{hint}")
            return super().load_component_class(class_type)

        @classmethod
        def show_msg(cls, name: str, cfg: Any) -> None:
            """Say nothing: the settings of a run are in its folder."""

    missing = [key for key in SECTIONS if not tree.get(key) and key not in ("val_dataset", "test_config")]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}")
    for key in ("train_dataset", "val_dataset", "optimizer", "lr_scheduler", "model"):
        if tree.get(key) and not (isinstance(tree[key], dict) and "type" in tree[key]):
            raise UserError(f"{path}: {key} is {short(repr(tree[key]))}; it takes keys, `type` among them")
    suffixed = os.path.splitext(path)[1] in (".yml", ".yaml")  # which is what the toolkit asks of a name
    if not suffixed:
        raise UserError(f"{path}: a settings file is called .yml or .yaml")
    return Settings._told(lambda: Builder(Config(str(expand(path)))))
