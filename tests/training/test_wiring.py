"""Every setting is seen in what is built of it: the program runs up to its loop, and the table says what has changed.

A new setting fails until it has a row below; a setting that does not reach what it is for fails in its row.
(Above 300 lines: the table of all settings is one.)
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import numpy as np
import paddle
import pytest

from paddle_inline import create_model
from paddle_inline.config.schema import Config, known_settings
from paddle_inline.data import sources
from paddle_inline.data.sampler import epoch_order
from paddle_inline.data.split import Split
from paddle_inline.layers.drop_path import DropPath
from paddle_inline.ops.inline_attention import uses_fused_attention
from paddle_inline.training import build, build_data, build_gpu, program
from paddle_inline.training.callbacks import LogProgress, StopOnRequest
from paddle_inline.training.checkpoint import save_weights
from paddle_inline.training.evaluate import Accuracy
from paddle_inline.training.losses import soft_target_cross_entropy
from paddle_inline.training.resume import CheckpointManager

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
BASE = {
    "model.name": "inline_deit_digits",
    "model.overrides.depth": 1,
    "data.dataset": "digits",
    "data.img_size": 40,  # above 32 pixels images are cropped
    "data.num_workers": 0,
    "train.epochs": 10,
    "train.warmup_epochs": 2,
    "train.lr_batch": "null",
    "train.accumulation_steps": 1,
    "visualdl": "false",
}
STEPS = 1433 // 128  # an epoch


@dataclass
class Seen:
    """What `program.main` has built when it is about to train."""

    run: Any
    options: Any
    callbacks: list
    folder: Any
    log: dict[str, Any]
    resumed: dict[str, Any]
    opened: dict[bool, tuple]
    synchronised: bool
    fused_attention: bool = False
    autotuned: bool = False
    tf32: Any = None

    def callback(self, kind):
        return next(each for each in self.callbacks if isinstance(each, kind))

    def step(self, name, *, train=True):
        """Return the step of a transform that is of this class; None: it has none."""
        loader = self.run.load(0, 0) if train else self.evaluation
        steps = loader.samples.transform.steps
        return next((step for step in steps if type(step).__name__ == name), None)

    def images(self):
        """Return the loader of the training images of the first epoch."""
        return self.run.load(0, 0)

    @property
    def evaluation(self):
        """The loader of the held-out images."""
        return self.run.validate.__closure__[0].cell_contents


@pytest.fixture(scope="module")
def build_it(tmp_path_factory):
    """Return the function (settings, more arguments) -> Seen, which builds once for the same settings."""
    kept = {}
    digits = {train: sources.open_source("digits", train=train) for train in (True, False)}

    def build_it(settings, *arguments, gpu=False):
        key = repr((settings, arguments, gpu))
        if key in kept:
            return kept[key]
        seen = dict(callbacks=[], opened={}, synchronised=False, log={}, resumed={})
        values = {**BASE, "output": str(tmp_path_factory.mktemp("run")), **settings}

        def open_source(dataset, path="", *, train, zip_mode=False, mode="RGB", split=None):
            seen["opened"][train] = (dataset, path, zip_mode, *([] if split is None else [split]))
            return digits[train]

        def synchronise(model, world):
            seen["synchronised"] = True

        def fit(run, progress, options, callbacks):
            seen.update(run=run, options=options, callbacks=callbacks)
            return False

        class Log(program.RunLog):
            def __init__(self, folder, **given):
                seen.update(log=given, folder=folder)
                super().__init__(folder, **{**given, "visualdl": False})

        class Manager(CheckpointManager):
            def resume(self, requested, log, **given):
                seen["resumed"] = dict(given, requested=requested)
                return self.state.progress

        nothing = SimpleNamespace(describe=skip, show_samples=skip, finish=skip)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build_data, "open_source", open_source)
            patch.setattr(build, "synchronise", synchronise)
            patch.setattr(build, "to_dict", dataclasses.asdict)  # as the real one, a tenth of the time
            patch.setattr(program.settings, "to_yaml", lambda config: "")
            for name, stand_in in (
                ("fit", fit),
                ("RunLog", Log),
                ("CheckpointManager", Manager),
                ("report", nothing),
            ):
                patch.setattr(program, name, stand_in)
            if gpu:
                patch.setattr(build_gpu, "use_fused_attention", lambda on: seen.update(fused_attention=on))
                patch.setattr(build_gpu, "autotune", lambda: seen.update(autotuned=True) or "tuned")
                patch.setattr(build_gpu, "allow_tf32", lambda on: seen.update(tf32=on))
                patch.setattr(paddle.device, "get_device", lambda: "gpu:0")
                patch.setattr(paddle.amp, "decorate", lambda models, **given: models)
            assert program.main(["--opts", *flat(values), *arguments]) == 0
        kept[key] = Seen(**seen)
        return kept[key]

    return build_it


def skip(*arguments, **more):
    """Do nothing."""


def flat(settings):
    return [str(text) for pair in settings.items() for text in pair]


def rates(*steps):
    return lambda seen: [seen.run.schedule(step) for step in steps]


def of_step(name, *fields, train=True):
    def found(seen):
        step = seen.step(name, train=train)
        return None if step is None else [getattr(step, field) for field in fields]

    return found


def of_normalize(field, train=True):
    """Return the function that reads the mean or deviation of the channels."""
    return lambda seen: getattr(seen.step("ToArray", train=train).normalize, field).ravel().tolist()


def of(*path):
    """Return the function that follows attributes from what was seen."""

    def found(seen):
        for name in path:
            seen = getattr(seen, name)
        return seen

    return found


def decays(seen):
    return {group["weight_decay"] for group in seen.run.optimizer._param_groups}


def loss_of_one(seen):
    """Return the loss of logits 2, 0, 0 ... for class 0: about 0.8 without smoothing."""
    logits = np.zeros((1, 10), "float32")
    logits[0, 0] = 2
    return round(seen.run.loss_fn(paddle.to_tensor(logits), paddle.to_tensor([0])).item(), 4)


def drop_rates(seen):
    return max((layer.rate for layer in seen.run.model.sublayers() if isinstance(layer, DropPath)), default=0)


def dropout(seen):
    return {layer.p for layer in seen.run.model.sublayers() if isinstance(layer, paddle.nn.Dropout)}


def begins_with_seed_5(seen):
    """Return whether the model's weights are those that a generator with seed 5 draws."""
    paddle.seed(5)
    model = create_model(seen.run.model.name, **seen.run.model.overrides)
    return bool((model.head.weight == seen.run.model.head.weight).all())


def reduced(seen):
    """Return whether pictures of training, and held-out ones, may be decoded at a fraction of their size."""
    return tuple(loader.samples.reduced_decoding for loader in (seen.images(), seen.evaluation))


NO_MIXUP = {"aug.mixup": 0, "aug.cutmix": 0}
SGD = {"train.optimizer.name": "sgd"}
DECAYS = {"train.lr_scheduler.name": "step", "train.lr_scheduler.decay_epochs": 5}
SMALL = {"model.overrides.depth": 2}
AVERAGED = {"ema.decay": 0.9}


@dataclass
class Row:
    """A setting, a value that is not its default, and what is to be seen then."""

    key: str
    value: Any
    look: Callable[[Seen], Any]
    expected: Any
    given: dict[str, Any] = dataclasses.field(default_factory=dict)  # other settings, in both
    gpu: bool = False


ROWS = [
    Row(
        "model.name",
        "inline_deit_tiny",
        of("run", "model", "name"),
        "inline_deit_tiny",
        {"data.img_size": 48},
    ),
    Row(
        "model.num_classes",
        12,
        lambda s: (s.run.model.head.weight.shape[1], s.run.mixup.num_classes),
        (12, 12),
    ),
    Row("model.in_chans", 1, lambda s: s.run.model.patch_embed.proj.weight.shape[1], 1),
    Row("model.in_chans", 1, lambda s: s.images().samples.transform.mode, "L"),
    Row("model.in_chans", 4, lambda s: s.evaluation.samples.transform.mode, "RGBA"),
    Row("model.in_chans", 1, lambda s: round(s.step("ToArray").normalize.mean.ravel()[0].item(), 6), 0.449),
    Row("model.drop_rate", 0.25, dropout, {0.25}),
    Row("model.drop_path_rate", 0.3, drop_rates, 0.3, SMALL),
    Row("model.label_smoothing", 0.2, of("run", "mixup", "smoothing"), 0.2),
    Row("model.label_smoothing", 0.0, loss_of_one, 0.7966, NO_MIXUP),
    Row("model.overrides", "{embed_dim: 48}", lambda s: s.run.model.head.weight.shape[0], 48),
    Row(
        "model.overrides",
        "{attn_type: performer, attn_options: {num_features: 5}}",
        lambda s: [buffer.shape for buffer in s.run.model.blocks[0].attn.buffers()],
        [[5, 16]],
    ),
    Row(
        "data.dataset", "cifar10", of("opened"), {True: ("cifar10", "", False), False: ("cifar10", "", False)}
    ),
    Row(
        "data.data_path", "/a", of("opened"), {True: ("digits", "/a", False), False: ("digits", "/a", False)}
    ),
    Row(
        "data.val_split",
        0.25,
        of("opened"),
        {part: ("digits", "", False, Split(0.25, 0)) for part in (True, False)},
    ),
    Row("data.zip_mode", "true", of("opened"), {True: ("digits", "", True), False: ("digits", "", True)}),
    Row("data.batch_size", 64, lambda s: len(s.images().batches[0]), 64),
    Row("data.batch_size", 64, lambda s: len(s.evaluation.batches[0]), 64),
    Row("data.batch_size", 64, of("options", "steps_per_epoch"), 1433 // 64),
    Row("data.img_size", 48, of("run", "model", "img_size"), (48, 48)),
    Row("data.img_size", 48, of_step("RandomResizedCrop", "size"), [48]),
    Row("data.img_size", [48, 64], of_step("RandomResizedCrop", "size"), [[48, 64]]),
    Row("data.img_size", 48, of_step("CenterCrop", "size", train=False), [48]),
    Row("data.interpolation", "bilinear", of_step("RandomResizedCrop", "resample"), [2]),
    Row("data.interpolation", "bilinear", of_step("Resize", "resample", train=False), [2]),
    Row("data.interpolation", "bilinear", lambda s: s.step("RandAugment").geometry.resample, 2),
    Row("data.num_workers", 1, lambda s: (s.images().num_workers, s.evaluation.num_workers), (1, 1)),
    Row("data.on_bad_image", "skip", lambda s: s.images().samples.on_bad_image, "skip"),
    Row("data.on_bad_image", "skip", lambda s: s.evaluation.samples.on_bad_image, "skip"),
    Row("data.reduced_decoding", "true", reduced, (True, False)),
    Row("data.mean", "[0,0,0]", of_normalize("mean"), [0, 0, 0]),
    Row("data.mean", "[0,0,0]", of_normalize("mean", train=False), [0, 0, 0]),
    Row("data.mean", "[0,0,0]", lambda s: s.step("RandAugment").geometry.fill, (0, 0, 0)),
    Row("data.std", "[1,2,3]", of_normalize("std"), [1, 2, 3]),
    Row("data.std", "[1,2,3]", of_normalize("std", train=False), [1, 2, 3]),
    Row("train.epochs", 12, of("options", "epochs"), 12),
    Row("train.epochs", 8, lambda s: s.run.schedule(9 * STEPS), 5e-6),
    Row("train.warmup_epochs", 4, lambda s: round(s.run.schedule(2 * STEPS + 1), 9), 2.5025e-4),
    Row("train.cooldown_epochs", 3, of("options", "epochs"), 13),
    Row("train.base_lr", 1e-3, lambda s: round(s.run.schedule(STEPS + 1), 9), 5.0025e-4),
    Row("train.warmup_lr", 1e-6, rates(0), [1e-6]),
    Row("train.min_lr", 1e-6, rates(10 * STEPS + 1), [1e-6]),
    Row("train.lr_batch", 64, rates(0, 10 * STEPS + 1), [1e-6, 1e-5]),
    Row("train.lr_scaled", "base", rates(0, 10 * STEPS + 1), [5e-7, 5e-6], {"train.lr_batch": 64}),
    Row("train.lr_per", "epoch", rates(1, STEPS - 1), [5e-7, 5e-7]),
    Row("train.weight_decay", 0.3, decays, {0.0, 0.3}),
    Row("train.clip_grad", 2.5, of("options", "clip"), 2.5),
    Row("train.clip_grad", 0, of("options", "clip"), None),
    Row("train.accumulation_steps", 2, lambda s: (s.options.accumulation, s.options.steps_per_epoch), (2, 5)),
    Row("train.accumulation_steps", 3, lambda s: len(s.images().batches), 9),
    Row(
        "train.accumulation_steps",
        2,
        of("run", "ema", "decay"),
        0.81,
        {"ema.decay": 0.9, "ema.lr_batch": 128},
    ),
    Row("train.use_checkpoint", "true", of("run", "model", "spec", "recompute"), True),
    Row("train.sync_bn", "true", of("synchronised"), True),
    Row("train.auto_resume", "true", lambda s: s.resumed["requested"], "auto"),
    Row("model.resume", "auto", lambda s: s.resumed["requested"], "auto"),
    Row("train.max_bad_losses", 7, of("options", "max_bad_losses"), 7),
    Row("train.lr_scheduler.name", "linear", rates(10 * STEPS + 1), [5e-6], {"train.min_lr": 1e-7}),
    Row("train.lr_scheduler.name", "step", rates(9 * STEPS + 1), [5e-4]),
    Row("train.lr_scheduler.decay_epochs", 6, rates(5 * STEPS + 1), [5e-4], DECAYS),
    Row("train.lr_scheduler.decay_rate", 0.5, rates(5 * STEPS + 1), [2.5e-4], DECAYS),
    Row("train.optimizer.name", "adam", lambda s: type(s.run.optimizer).__name__, "Adam"),
    Row("train.optimizer.name", "sgd", lambda s: type(s.run.optimizer).__name__, "Momentum"),
    Row("train.optimizer.eps", 1e-6, of("run", "optimizer", "_epsilon"), 1e-6),
    Row(
        "train.optimizer.betas",
        "[0.8,0.9]",
        lambda s: (s.run.optimizer._beta1, s.run.optimizer._beta2),
        (0.8, 0.9),
    ),
    Row("train.optimizer.momentum", 0.7, of("run", "optimizer", "_momentum"), 0.7, SGD),
    Row("aug.scale", "[0.2,0.9]", of_step("RandomResizedCrop", "scale"), [(0.2, 0.9)]),
    Row("aug.ratio", "[0.5,2]", of_step("RandomResizedCrop", "ratio"), [(0.5, 2)]),
    Row("aug.hflip", 0.25, of_step("RandomFlip", "p"), [0.25]),
    Row("aug.rotation", 15, of_step("RandomRotation", "degrees"), [15]),
    Row("aug.color_jitter", 0.2, of_step("ColorJitter", "high"), [1.2], {"aug.auto_augment": "none"}),
    Row("aug.auto_augment", "rand-m5-n3", of_step("RandAugment", "magnitude", "count"), [5, 3]),
    Row("aug.reprob", 0.75, of_step("RandomErasing", "p"), [0.75]),
    Row("aug.remode", "const", of_step("RandomErasing", "mode"), ["const"]),
    Row("aug.recount", 4, of_step("RandomErasing", "count"), [4]),
    Row("aug.mixup", 0.3, of("run", "mixup", "mixup"), 0.3),
    Row("aug.mixup", 0, of("run", "mixup"), None, {"aug.cutmix": 0}),
    Row("aug.mixup", 0, lambda s: s.run.loss_fn is soft_target_cross_entropy, False, {"aug.cutmix": 0}),
    Row("aug.cutmix", 0.5, of("run", "mixup", "cutmix"), 0.5),
    Row("aug.cutmix_minmax", "[0.2,0.4]", of("run", "mixup", "cutmix_minmax"), [0.2, 0.4]),
    Row("aug.cutmix_boxes", "timm-0.4", of("run", "mixup", "old_boxes"), True),
    Row("aug.mixup_prob", 0.25, of("run", "mixup", "prob"), 0.25),
    Row("aug.mixup_switch_prob", 0.75, of("run", "mixup", "switch_prob"), 0.75),
    Row("aug.mixup_mode", "elem", of("run", "mixup", "mode"), "elem"),
    Row("ema.decay", 0.9, lambda s: s.run.ema and s.run.ema.decay, 0.9),
    Row("ema.lr_batch", 64, of("run", "ema", "decay"), 0.81, AVERAGED),
    Row("ema.warmup", "true", of("run", "ema", "warmup"), True, AVERAGED),
    Row(
        "amp.level", "O1", of("options", "amp"), {"enable": True, "level": "O1", "dtype": "float16"}, gpu=True
    ),
    Row("amp.level", "O2", lambda s: s.run.optimizer._multi_precision, True, gpu=True),
    Row("amp.level", "O1", lambda s: s.run.scaler is not None, True, gpu=True),
    Row("amp.dtype", "bfloat16", lambda s: s.options.amp["dtype"], "bfloat16", {"amp.level": "O1"}, gpu=True),
    Row("amp.dtype", "bfloat16", lambda s: s.run.scaler is not None, False, {"amp.level": "O1"}, gpu=True),
    Row("gpu.prefetch", 3, lambda s: s.images().ahead, 3, gpu=True),
    Row("gpu.prefetch", 0, lambda s: type(s.evaluation).__name__, "Loader", gpu=True),
    Row("gpu.fused_update", "false", lambda s: s.run.optimizer.fused, False, gpu=True),
    Row("gpu.fused_update", "false", lambda s: len(s.run.ema.flats), 0, AVERAGED, gpu=True),
    Row("gpu.fused_attention", "false", of("fused_attention"), False, gpu=True),
    Row("gpu.autotune", "false", of("autotuned"), False, gpu=True),
    Row("gpu.tf32", "false", of("tf32"), False, gpu=True),
    Row("test.crop", "false", of_step("CenterCrop", "size", train=False), None),
    Row("test.resize", "short", of_step("Resize", "short", train=False), [True]),
    Row("test.crop_ratio", 0.5, of_step("Resize", "size", train=False), [80]),
    Row("test.reduced_decoding", "true", reduced, (False, True)),
    Row("output", "/OUT", lambda s: str(s.folder), "/OUT/inline_deit_digits/default"),
    Row("tag", "mine", lambda s: (s.folder.name, s.options.run_folder.name), ("mine", "mine")),
    Row("seed", 5, of("options", "seed"), 5),
    Row("seed", 5, lambda s: s.images().samples.seed, 5),
    Row("seed", 5, lambda s: [i for _, i in s.images().batches[0]], epoch_order(1433, 5, 0)[:128].tolist()),
    Row("seed", 5, begins_with_seed_5, True),
    Row("print_freq", 7, lambda s: (s.callback(LogProgress).print_freq, s.options.print_freq), (7, 7)),
    Row("save_freq", 2, of("options", "save_freq"), 2),
    Row("save_steps", 4, of("options", "save_steps"), 4),
    Row("keep_last", 5, lambda s: s.callback(CheckpointManager).keep_last, 5),
    Row("save_optimizer", "true", lambda s: s.callback(CheckpointManager).with_optimizer, True),
    Row("visualdl", "true", lambda s: s.log["visualdl"], True),
    Row("histogram_freq", 3, lambda s: s.callback(LogProgress).histogram_freq, 3),
]
# Those that no run gets to see have tests of their own below.
ELSEWHERE = {"model.pretrained", "eval_mode", "throughput_mode"}


@pytest.mark.filterwarnings("ignore:AmpScaler", "ignore:User defined")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.key}={row.value}")
def test_a_setting_is_seen_in_what_is_built(build_it, row, tmp_path):
    value = str(tmp_path) if row.key == "output" else row.value
    expected = row.expected.replace("/OUT", str(tmp_path)) if row.key == "output" else row.expected
    found = row.look(build_it({**row.given, row.key: value}, gpu=row.gpu))
    usual = row.look(build_it(row.given, gpu=row.gpu))
    print(row.key, usual, found)
    assert found == expected or found == pytest.approx(expected, rel=1e-9)
    assert usual != found, f"{row.key} has no effect"


def test_every_setting_has_a_row():
    rows, known = {row.key for row in ROWS} | ELSEWHERE, set(known_settings())
    assert not known - rows, "add to ROWS what a run shows of these settings, off their defaults"
    assert not rows - known, "these are no settings any more"


def test_pretrained_weights_are_those_that_a_run_begins_with(build_it, tmp_path):
    model = build_it({}).run.model
    weights = {name: paddle.full_like(value, 0.5) for name, value in model.state_dict().items()}
    save_weights(tmp_path / "w.pdparams", weights, {"model": model.name, "overrides": model.overrides})
    seen = build_it({"model.pretrained": str(tmp_path / "w.pdparams")})
    assert all((value == 0.5).all() for value in seen.run.model.state_dict().values())
    average = build_it({"model.pretrained": str(tmp_path / "w.pdparams"), **AVERAGED}).run.ema.average
    assert all((value == 0.5).all() for value in average.values())
    assert not (build_it({}).run.model.head.weight == 0.5).any()


@pytest.mark.parametrize("how", [["--opts", "eval_mode", "true"], ["--eval"]])
def test_evaluation_alone_is_asked_for_by_a_setting_or_a_flag(monkeypatch, how):
    called = []
    monkeypatch.setattr(program, "only_evaluate", lambda config, args: called.append("eval") or 0)
    assert program.main(how) == 0 and called == ["eval"]


@pytest.mark.parametrize("how", [["--opts", "throughput_mode", "true"], ["--throughput"]])
def test_the_speed_alone_is_asked_for_by_a_setting_or_a_flag(monkeypatch, how):
    called = []
    monkeypatch.setattr(program, "throughput", lambda config: called.append("speed") or 0)
    assert program.main(how) == 0 and called == ["speed"]


# flag -> (its arguments, the setting that it is, what that is then)
FLAGS = {
    "--cfg": ([str(ROOT / "configs" / "quickstart.yaml")], "data.dataset", "digits"),
    "--model": (["inline_pvt_tiny"], "model.name", "inline_pvt_tiny"),
    "--dataset": (["folder"], "data.dataset", "folder"),
    "--val-split": (["0.1"], "data.val_split", 0.1),
    "--data-path": (["/d"], "data.data_path", "/d"),
    "--img-size": (["64", "96"], "data.img_size", [64, 96]),
    "--num-classes": (["7"], "model.num_classes", 7),
    "--epochs": (["7"], "train.epochs", 7),
    "--lr": (["3e-4"], "train.base_lr", 3e-4),
    "--workers": (["3"], "data.num_workers", 3),
    "--batch-size": (["6"], "data.batch_size", 6),
    "--output": (["/o"], "output", "/o"),
    "--tag": (["t"], "tag", "t"),
    "--resume": (["auto"], "model.resume", "auto"),
    "--pretrained": (["/w"], "model.pretrained", "/w"),
    "--amp": ([], "amp.level", "O1"),
    "--accumulation-steps": (["3"], "train.accumulation_steps", 3),
    "--use-checkpoint": ([], "train.use_checkpoint", True),
    "--model-ema-decay": (["0.9"], "ema.decay", 0.9),
    "--save-steps": (["5"], "save_steps", 5),
    "--on-bad-image": (["skip"], "data.on_bad_image", "skip"),
    "--zip": ([], "data.zip_mode", True),
    "--opts": (["seed", "4"], "seed", 4),
    "-o": (["seed=4"], "seed", 4),
    "--amp-opt-level": (["O2"], "amp.level", "O2"),
    "--model-ema": ([], "ema.decay", 0.99996),
}
# Those that are no settings: tested above, below, or without effect by intent.
OTHER_FLAGS = {
    *(
        "--help",
        "--force",
        "--eval",
        "--metrics",
        "--report",
        "--throughput",
        "--stop-after",
        "--gpus",
        "--local_rank",
    ),
    *("--find-unused-params", "--model-ema-force-cpu", "--cache-mode"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_reaches_its_setting(flag):
    arguments, key, expected = FLAGS[flag]
    usual, found = Config(), program.configure(program.parse([flag, *arguments]))
    for name in key.split("."):
        usual, found = getattr(usual, name), getattr(found, name)
    assert found == expected != usual


@pytest.mark.parametrize(
    "total, expected", [("6", (6, 0)), ("20", (20, 0)), ("21", (11, 10)), ("310", (300, 10))]
)
def test_epochs_are_those_of_the_whole_run(total, expected):
    args = program.parse(["--cfg", str(ROOT / "configs" / "inline_pvt_t.yaml"), "--epochs", total])
    train = program.configure(args).train
    assert (train.epochs, train.cooldown_epochs) == expected
    assert f"--epochs {total}: " in args.notes[0]


def test_one_side_is_a_square():
    assert program.configure(program.parse(["--img-size", "64"])).data.img_size == 64


def test_every_flag_has_a_row(monkeypatch):
    known = []

    def look(parser, argv=None):
        known.extend(action.option_strings[-1] for action in parser._actions)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", look)
    program.parse([])
    assert set(known) == {*FLAGS, *OTHER_FLAGS}


def test_flags_that_are_no_settings_reach_what_they_are_for(build_it):
    usual, asked = build_it({}), build_it({}, "--force", "--stop-after", "2")
    assert (usual.resumed["force"], asked.resumed["force"]) == (False, True)
    assert (usual.callback(StopOnRequest).last, asked.callback(StopOnRequest).last) == (None, 2)
    assert usual.resumed["rank_dependent"] == ["dropout and stochastic depth", "mixup"]


@pytest.mark.parametrize("level", ["O0", "O1"])
def test_an_evaluation_computes_as_the_settings_say(monkeypatch, level, capsys):
    """Of `--eval`, of its model and of `--throughput`: what `auto_cast` is given, on a GPU, and what is set there."""
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    model = SimpleNamespace(name="m", spec=SimpleNamespace(num_classes=2))
    monkeypatch.setattr(program.described_eval, "follow", lambda *a, **k: [])
    monkeypatch.setattr(program.described_eval, "build_model", lambda *a: model)
    monkeypatch.setattr(program, "known_classes", lambda *a: (None, "", []))
    loader = SimpleNamespace(samples=None, batches=[])
    found = SimpleNamespace(classes=list("ab")), loader, []
    monkeypatch.setattr(program.build, "build_eval", lambda *a, **k: found)
    monkeypatch.setattr(program.build, "build_model", lambda *a: model)
    seen = []
    monkeypatch.setattr(program, "evaluate", lambda *a, **given: seen.append((a, given)) or Accuracy(1, 1, 1))
    monkeypatch.setattr(program, "forward_speed", lambda *a: seen.append(a[2]) or 1.0)
    switched = []
    monkeypatch.setattr(build_gpu, "allow_tf32", switched.append)
    monkeypatch.setattr(build_gpu, "autotune", lambda: "tuned")
    level = [
        "--opts",
        "amp.level",
        level,
        "data.batch_size",
        "2",
        "gpu.tf32",
        "false",
        "gpu.fused_attention",
        "false",
    ]
    said = []
    for mode in (["--eval", "--pretrained", "/w"], ["--throughput"]):
        assert program.main([*mode, *level]) == 0
        said.append(capsys.readouterr().err)
    amp = {"enable": True, "level": "O1", "dtype": "float16"} if "O1" in level else None
    ((evaluated, batches), given), measured = seen
    assert evaluated is model and given == {"world": 1, "amp": amp} and measured == amp
    assert batches.loader is loader and batches.ahead == 2 and loader.host  # moved ahead, as in training
    assert switched == [False, False] and all("note: tuned" in text for text in said)
    assert (
        all("fused_attention False" in text for text in said) and uses_fused_attention()
    )  # again, afterwards
