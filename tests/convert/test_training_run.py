"""A run that changes its framework half-way ends where it would have ended: AdamW, schedule, averages."""

import hashlib
import json
import math
import pickle
from collections import OrderedDict
from copy import deepcopy

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
import train_paddle
from convert import paddle_to_torch
from convert.__main__ import main
from convert.conversion import ConversionOptions
from convert.errors import UnfitWeightsError
from convert.training_layout import position, scaler_to_paddle, scaler_to_torch
from convert.training_run import training_to_paddle, training_to_torch
from paddle_inline.training.checkpoint import check_checkpoint, load_checkpoint, save_checkpoint
from paddle_inline.training.ema import Ema
from paddle_inline.training.log import read_metrics
from paddle_inline.training.optim import decay_groups, make_optimizer, optimizer_state
from paddle_inline.training.state import Progress, TrainingState
from paddle_inline.weights.lazy_array import WeightsFileError
from paddle_inline.weights.load import open_weights
from tests.convert.hostile import TRAP, Trap

SMALL = {
    "inline_deit_digits": {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 16},
    "soft_digits": {"num_classes": 4, "embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)},
}
STEPS, DECAY, AVERAGE = 20, 0.05, 0.9
QUIET = ConversionOptions(verify=False)


def rate(step):
    """Linear warm-up, then a cosine."""
    return 1e-3 * min((step + 1) / 5, 0.5 * (1 + math.cos(math.pi * step / (3 * STEPS))))


def batch(step, spec):
    random = np.random.RandomState(step)
    size = spec.img_size if isinstance(spec.img_size, int) else spec.img_size[0]
    return random.standard_normal((4, 3, size, size)), random.randint(0, spec.num_classes, 4)


def torch_groups(model, single):
    if single:
        return [{"params": list(model.parameters())}]
    no_decay = getattr(model, "NO_DECAY", ())
    decays = {
        name: p.ndim > 1 and not name.endswith(".bias") and not any(part in name for part in no_decay)
        for name, p in model.named_parameters()
    }
    parameters = dict(model.named_parameters())
    return [
        {"params": [parameters[name] for name, on in decays.items() if on], "weight_decay": DECAY},
        {"params": [parameters[name] for name, on in decays.items() if not on], "weight_decay": 0.0},
    ]


class TorchRun:
    def __init__(self, name, single=False):
        self.name = name
        self.model = torch_ref.create_model(name, **SMALL[name]).double().train()
        self.optimizer = torch.optim.AdamW(torch_groups(self.model, single), lr=rate(0), weight_decay=DECAY)
        self.average = deepcopy(self.model.state_dict())

    def train(self, first, last):
        for step in range(first, last):
            images, labels = (torch.from_numpy(value) for value in batch(step, self.model.spec))
            for group in self.optimizer.param_groups:
                group["lr"] = rate(step)
            loss = torch.nn.functional.cross_entropy(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].mul_(AVERAGE).add_(value, alpha=1 - AVERAGE)
                else:
                    self.average[name].copy_(value)
        return self

    def save(self, path, wrap=""):
        for group in self.optimizer.param_groups:
            group["lr"] = rate(STEPS)
        torch.save(
            {
                "model": OrderedDict((wrap + name, value) for name, value in self.model.state_dict().items()),
                "optimizer": self.optimizer.state_dict(),
                "lr_scheduler": {"base_values": [1e-3], "metric": None, "t_initial": 60},
                "max_accuracy": np.float64(71.5),
                "epoch": 4,
                "config": {"TRAIN": {"EPOCHS": 12}},
                "state_dict_ema": self.average,
                "max_accuracy_e": 72.5,
            },
            path,
        )
        return path

    def load(self, path):
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"], strict=True)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["state_dict_ema"]
        return saved


class PaddleRun:
    def __init__(self, name):
        paddle.set_default_dtype("float64")
        self.model = paddle_inline.create_model(name, **SMALL[name])
        self.model.train()
        self.optimizer = make_optimizer("adamw", self.model, decay_groups(self.model, DECAY))
        self.ema = Ema(self.model, AVERAGE)

    def train(self, first, last):
        for step in range(first, last):
            images, labels = (paddle.to_tensor(value) for value in batch(step, self.model.spec))
            self.optimizer.set_lr(rate(step))
            paddle.nn.functional.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            self.ema.update(self.model)
        return self

    def save(self, folder):
        state = TrainingState(
            self.model.name,
            SMALL[self.model.name],
            Progress(epoch=4, step=STEPS, best_top1=71.5, best_ema_top1=72.5),
            rate=rate(STEPS),
            steps_per_epoch=5,
            config={
                "train": {"epochs": 12, "weight_decay": DECAY, "optimizer": {"name": "adamw", "eps": 1e-8}}
            },
        )
        return save_checkpoint(folder, model=self.model, optimizer=self.optimizer, ema=self.ema, state=state)

    def load(self, folder):
        return load_checkpoint(folder, model=self.model, optimizer=self.optimizer, ema=self.ema)

    def as_torch(self, tensors):
        return paddle_to_torch({name: value.numpy() for name, value in tensors.items()}, self.model)


def furthest(ours, theirs):
    """The largest difference of two sets of weights, relative to the largest weight of its tensor."""
    return max(
        np.abs(ours[name] - value.numpy()).max() / max(value.abs().max().item(), 1e-3)
        for name, value in theirs.items()
        if value.is_floating_point()
    )


@pytest.fixture(scope="module", params=[False, True], ids=["two groups", "one group"])
def handed_over(request, tmp_path_factory):
    """(whether all parameters decay, the run in PyTorch after 40 steps, its checkpoint of 20 in Paddle)."""
    folder = tmp_path_factory.mktemp("run")
    run = TorchRun("inline_deit_digits", request.param).train(0, STEPS)
    made = training_to_paddle(run.save(folder / "a.pth", "module."), folder / "checkpoints", QUIET)
    return request.param, run.train(STEPS, 2 * STEPS), made


def test_from_torch_to_paddle(handed_over):
    single, run, made = handed_over
    ours = PaddleRun("inline_deit_digits")
    state = ours.load(made)
    progress = state.progress
    assert (progress.step, progress.epoch, state.rate) == (STEPS, 4, rate(STEPS))
    assert (progress.best_top1, progress.best_ema_top1) == (71.5, 72.5)
    if single:  # the one group decays as a whole, so Paddle's rule must not be used
        ours.optimizer = paddle.optimizer.AdamW(parameters=ours.model.parameters(), weight_decay=DECAY)
        ours.load(made)
    ours.train(STEPS, 2 * STEPS)
    assert furthest(ours.as_torch(ours.model.state_dict()), run.model.state_dict()) < 1e-8
    assert furthest(ours.as_torch(ours.ema.average), run.average) < 1e-8


def test_from_paddle_to_torch(tmp_path):
    name = "inline_deit_digits"
    run, theirs = PaddleRun(name).train(0, STEPS), TorchRun(name)
    training_to_torch(run.save(tmp_path), tmp_path / "a.pth", QUIET)
    run.train(STEPS, 2 * STEPS)
    saved = theirs.load(tmp_path / "a.pth")
    assert (saved["epoch"], saved["max_accuracy"], saved["max_accuracy_e"]) == (4, 71.5, 72.5)
    assert saved["lr_scheduler"] == {"t_initial": 60}
    assert saved["config"] == {"TRAIN": {"EPOCHS": 12}}
    assert theirs.optimizer.param_groups[0]["lr"] == rate(STEPS)
    theirs.train(STEPS, 2 * STEPS)
    assert furthest(run.as_torch(run.model.state_dict()), theirs.model.state_dict()) < 1e-8
    assert furthest(run.as_torch(run.ema.average), theirs.average) < 1e-8


def test_there_and_back_is_bit_for_bit(tmp_path):
    name = "inline_deit_digits"
    run = TorchRun(name).train(0, 3)
    first = torch.load(run.save(tmp_path / "a.pth"), weights_only=False)
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "checkpoints", QUIET)
    second = torch.load(training_to_torch(made, tmp_path / "b.pth", QUIET), weights_only=True)
    assert first["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    for key in ("model", "state_dict_ema"):
        assert list(second[key]) == list(first[key])
        for item, value in first[key].items():
            assert torch.equal(second[key][item], value), item
    for number, slot in first["optimizer"]["state"].items():
        for item, value in slot.items():
            assert torch.equal(second["optimizer"]["state"][number][item], value), (number, item)
    for a, b in zip(first["optimizer"]["param_groups"], second["optimizer"]["param_groups"]):
        assert a == b
    assert second["lr_scheduler"] == first["lr_scheduler"]
    assert (second["epoch"], second["max_accuracy"]) == (4, 71.5)
    assert second["config"] == first["config"]


def test_a_run_without_averages_leads_to_a_file_that_their_program_with_averages_reads(tmp_path):
    """It asks for `max_accuracy_e`, and begins the average with the weights where there is none."""
    name = "inline_deit_digits"
    contents = torch.load(TorchRun(name).train(0, 3).save(tmp_path / "a.pth"), weights_only=False)
    del contents["state_dict_ema"], contents["max_accuracy_e"]
    torch.save(contents, tmp_path / "a.pth")
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "checkpoints", QUIET)
    back = torch.load(training_to_torch(made, tmp_path / "b.pth", QUIET), weights_only=True)
    assert back["max_accuracy_e"] == 0.0 and "state_dict_ema" not in back
    again = training_to_paddle(tmp_path / "b.pth", tmp_path / "again", QUIET)
    assert check_checkpoint(again).progress.best_ema_top1 == -1.0


def test_soft_s_checkpoints_are_timm_s(tmp_path):
    """`epoch` is there the index of the last epoch done, and the weights stand under `state_dict`."""
    run = TorchRun("soft_digits").train(0, 12)
    first = {
        "epoch": 2,
        "arch": "soft_digits",
        "state_dict": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "version": 2,
        "metric": 61.5,
    }
    torch.save(first, tmp_path / "a.pth")
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "checkpoints", QUIET)
    progress = check_checkpoint(made).progress
    assert (progress.epoch, progress.step, progress.best_top1) == (3, 12, 61.5)
    second = torch.load(training_to_torch(made, tmp_path / "b.pth", QUIET), weights_only=True)
    assert {key: second[key] for key in ("epoch", "arch", "version", "metric")} == {
        "epoch": 2,
        "arch": "soft_digits",
        "version": 2,
        "metric": 61.5,
    }
    assert all(torch.equal(second["state_dict"][name], value) for name, value in first["state_dict"].items())
    for number, slot in first["optimizer"]["state"].items():
        for item, value in slot.items():
            assert torch.equal(second["optimizer"]["state"][number][item], value), (number, item)


def skipping(run, steps):
    """The optimizer's state of a run whose loss scaler has skipped so many steps."""
    for slot in run.optimizer.state.values():
        slot["step"] -= steps
    return run


def test_steps_that_a_loss_scaler_skipped_are_in_the_position_and_not_in_the_optimizer(tmp_path):
    run = skipping(TorchRun("inline_deit_digits").train(0, STEPS), 3)
    made = training_to_paddle(run.save(tmp_path / "a.pth"), tmp_path / "checkpoints", QUIET)
    state = check_checkpoint(made)
    assert (state.progress.step, state.progress.epoch, state.steps_per_epoch) == (STEPS, 4, 5)
    ours = PaddleRun("inline_deit_digits")
    ours.load(made)
    name, slot = next(iter(optimizer_state(ours.model, ours.optimizer).items()))
    assert slot["beta1_pow_acc"].item() == pytest.approx(0.9 ** (STEPS - 3 + 1), rel=1e-12), name
    back = torch.load(training_to_torch(made, tmp_path / "b.pth", QUIET), weights_only=True)
    assert {slot["step"].item() for slot in back["optimizer"]["state"].values()} == {STEPS - 3}
    assert back["epoch"] == 4


TORCH_SCALER = {
    "scale": 8192.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 17,
}


@pytest.mark.parametrize("name, key", [("inline_deit_digits", "scaler"), ("soft_digits", "amp_scaler")])
def test_a_loss_scaler_crosses_and_comes_back(tmp_path, name, key):
    contents = torch.load(TorchRun(name).train(0, 4).save(tmp_path / "a.pth"), weights_only=False)
    contents[key] = TORCH_SCALER
    torch.save(contents, tmp_path / "a.pth")
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "checkpoints", QUIET)
    state = check_checkpoint(made)
    assert state.scaler == {
        "scale": 8192.0,
        "incr_ratio": 2.0,
        "decr_ratio": 0.5,
        "incr_every_n_steps": 2000,
        "decr_every_n_nan_or_inf": 1,
        "incr_count": 17,
        "decr_count": 0,
        "use_dynamic_loss_scaling": True,
    }
    back = torch.load(training_to_torch(made, tmp_path / "b.pth", QUIET), weights_only=True)
    assert back[key] == TORCH_SCALER


@pytest.mark.parametrize("saved", [None, {}, 7, {**TORCH_SCALER, "scale": "big"}, {"scale": 2.0}])
def test_what_is_no_loss_scaler_is_left_out(saved):
    assert scaler_to_paddle(saved) is None
    assert scaler_to_torch(None) is None


def test_a_run_trained_further_in_paddle_keeps_what_came_from_pytorch(tmp_path, monkeypatch):
    """Groups, the entries of its scheduler, the loss scaler, the counters of skipped steps; not its old settings."""
    pytest.importorskip("sklearn")
    per_epoch, name = 1433 // 256, "inline_deit_digits"
    sizes = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 8}
    monkeypatch.setitem(SMALL, name, sizes)
    theirs = TorchRun(name)
    theirs.model.float()
    steps = 2 * per_epoch
    for step in range(steps):
        images, labels = (torch.from_numpy(value) for value in batch(step, theirs.model.spec))
        loss = torch.nn.functional.cross_entropy(theirs.model(images.float()), labels)
        theirs.optimizer.zero_grad()
        loss.backward()
        theirs.optimizer.step()
    skipping(theirs, 2)
    theirs.average = theirs.model.state_dict()
    contents = torch.load(theirs.save(tmp_path / "a.pth"), weights_only=False)
    contents.update(epoch=2, scaler=TORCH_SCALER, config={"TRAIN": {"EPOCHS": 12}})
    contents["lr_scheduler"]["t_initial"] = 12 * per_epoch
    torch.save(contents, tmp_path / "a.pth")
    paddle.set_default_dtype("float32")
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "converted", QUIET)

    (tmp_path / "run.yaml").write_text(
        "model: {name: inline_deit_digits, drop_path_rate: 0, overrides: {depth: 1, embed_dim: 16, num_heads: 2}}\n"
        "data: {dataset: digits, img_size: 8, batch_size: 256, num_workers: 0}\n"
        "train: {epochs: 12, warmup_epochs: 1, lr_batch: null}\n"
        "aug: {auto_augment: none, mixup: 0, cutmix: 0}\n"
        "ema: {decay: 0.9}\nvisualdl: false\n"
    )
    call = ["--cfg", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "out")]
    assert train_paddle.main([*call, "--resume", str(made), "--stop-after", "1"]) == 0
    assert train_paddle.main([*call, "--resume", "auto", "--stop-after", "1"]) == 0  # carried on twice
    last = tmp_path / "out" / name / "default" / "checkpoints" / "last"
    before, after = check_checkpoint(made), check_checkpoint(last)
    assert (after.origin, after.scaler) == (before.origin, before.scaler)
    assert after.progress.step == 4 * per_epoch and after.config["train"]["epochs"] == 12
    back = torch.load(training_to_torch(last, tmp_path / "b.pth", QUIET), weights_only=True)
    assert back["scaler"] == TORCH_SCALER and back["epoch"] == 4
    assert back["lr_scheduler"] == contents["lr_scheduler"] and back["config"] == contents["config"]
    assert {slot["step"].item() for slot in back["optimizer"]["state"].values()} == {4 * per_epoch - 2}
    for ours, first in zip(back["optimizer"]["param_groups"], contents["optimizer"]["param_groups"]):
        assert {**ours, "lr": 0} == {**first, "lr": 0}

    # The best is of weights that this run has evaluated, those it began with among them, and not the 71.5 stated.
    folder = tmp_path / "out" / name / "default"
    rows = [row for row in read_metrics(folder) if "top1" in row]
    assert [row["epoch"] for row in rows] == [2, 3, 4] and before.progress.best_top1 == 71.5
    assert after.progress.best_top1 == max(row["top1"] for row in rows) == back["max_accuracy"] < 71.5
    assert after.progress.best_ema_top1 == max(row["ema_top1"] for row in rows)
    assert (folder / "best_model.pdparams").is_file() and (folder / "best_model_ema.pdparams").is_file()
    assert "states a best top-1 of 71.50%; those weights are not here" in (folder / "train.log").read_text()

    # One whose epochs are done has its best weights, too, and nothing else to do.
    done = [*call, "--resume", str(made), "-o", "train.epochs=2", "--tag", "done"]
    assert train_paddle.main(done) == 0
    folder = folder.with_name("done")
    best, _ = open_weights(folder / "best_model.pdparams")
    model, _ = open_weights(made / "model.pdparams")
    assert all(np.array_equal(best[key].read(), value.read()) for key, value in model.items())
    log = (folder / "train.log").read_text()
    said = f"best top-1 {rows[0]['top1']:.2f}% (epoch 2)"
    assert f"nothing is left to do after 2 epochs, {said}" in log and "(epoch 0)" not in log


@pytest.mark.parametrize(
    ("contents", "steps", "expected"),
    [
        ({"epoch": 2, "max_accuracy": 1.0}, 18, (2, 18, True)),
        ({"epoch": 2, "config": {}, "scaler": {"scale": 2.0}}, 17, (2, 17, False)),
        ({"epoch": 2, "arch": "soft_tiny", "version": 2}, 27, (3, 27, True)),
        ({"epoch": 2, "arch": "soft_tiny", "amp_scaler": {"scale": 2.0}}, 25, (3, 25, False)),
        ({"epoch": 0, "max_accuracy": 0.0}, 0, (0, 0, True)),
        ({"max_accuracy": 0.0}, 7, (0, 7, True)),
        (
            {"epoch": 2, "config": {"train": {"epochs": 300}}, "lr_scheduler": {"t_initial": 2700}},
            16,
            (2, 18, True),
        ),
    ],
)
def test_how_far_a_pytorch_run_is(contents, steps, expected):
    assert position(contents, steps) == expected


def test_more_steps_than_the_schedule_has_are_refused():
    contents = {"epoch": 2, "config": {"TRAIN": {"EPOCHS": 300}}, "lr_scheduler": {"t_initial": 2700}}
    with pytest.raises(UnfitWeightsError, match="19 steps, and its schedule 18 in 2 epochs"):
        position(contents, 19)


@pytest.mark.parametrize("handed_over", [False], indirect=True)
def test_a_run_that_forgets_its_moments_ends_elsewhere(handed_over):
    """So the tests above can fail."""
    _, run, made = handed_over
    ours = PaddleRun("inline_deit_digits")
    ours.load(made)
    ours.optimizer = make_optimizer("adamw", ours.model, decay_groups(ours.model, DECAY))
    ours.train(STEPS, 2 * STEPS)
    assert furthest(ours.as_torch(ours.model.state_dict()), run.model.state_dict()) > 1e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return TorchRun("inline_deit_digits").train(0, 1).save(tmp_path_factory.mktemp("one") / "a.pth")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda saved: saved.pop("optimizer"), "no optimizer's state"),
        (lambda saved: saved["optimizer"]["param_groups"].pop(), "1 group, of 14 tensors, which is not"),
        (lambda saved: saved["optimizer"]["param_groups"][0]["params"].pop(), "of 13, 26 tensors"),
        (lambda saved: saved["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), "is not AdamW over"),
        (lambda saved: saved["optimizer"]["state"][0]["exp_avg"].fill_(math.nan), "no real numbers"),
        (lambda saved: saved["optimizer"]["state"][0]["exp_avg_sq"].fill_(-1.0), "negative"),
        (lambda saved: saved["optimizer"]["state"][0].update(step="ten"), "no count"),
        (lambda saved: saved["optimizer"]["state"].update({0: [1]}), "not AdamW's"),
        (lambda saved: saved["optimizer"].update(param_groups=7), "groups of parameters are not AdamW's"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(params=7), "groups of parameters"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(params=[[1]]), "groups of parameters"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(eps={}), "groups of parameters"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(betas=0.9), "groups of parameters"),
        (lambda saved: saved["optimizer"]["param_groups"][1].update(betas=(0.9, 1.0)), "groups of param"),
        (lambda saved: saved["state_dict_ema"].pop("pos_embed"), "- pos_embed"),
        (lambda saved: saved["state_dict_ema"].update(pos_embed=torch.ones(3)), r"\+ pos_embed \[3\]"),
    ],
)
def test_an_optimizer_that_is_not_this_model_s_is_refused(tmp_path, checkpoint, spoil, message):
    saved = torch.load(checkpoint, weights_only=False)
    spoil(saved)
    torch.save(saved, tmp_path / "a.pth")
    with pytest.raises((WeightsFileError, ValueError), match=message):
        training_to_paddle(tmp_path / "a.pth", tmp_path / "checkpoints", QUIET)
    assert not (tmp_path / "checkpoints").exists()


def test_both_ways_on_the_command_line_and_verified(tmp_path, checkpoint, capsys):
    folder, back = tmp_path / "checkpoints", tmp_path / "back.pth"
    assert main(["to-paddle", "--training", str(checkpoint), str(folder)]) == 0
    assert main(["to-torch", "--training", str(folder / "last"), str(back)]) == 0
    said = capsys.readouterr().out
    assert said.count("verified: forward pass in float64") == 2
    assert f"wrote {folder / 'step_00000020'}" in said
    facts = json.loads((tmp_path / "back.pth.json").read_text())
    assert facts["verification"]["passed"]
    assert facts["output"]["sha256"] == hashlib.sha256(back.read_bytes()).hexdigest()
    state = json.loads((folder / "last" / "state.json").read_text())
    assert state["origin"]["source"] == {"a.pth": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    first, second = (torch.load(file, weights_only=False) for file in (checkpoint, back))
    assert all(torch.equal(first["model"][name], value) for name, value in second["model"].items())


def reseal(folder):
    """Write the sums of a changed checkpoint, as whoever changed it would."""
    files = sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.parametrize(
    "spoil, sealed, message",
    [
        (lambda folder: (folder / "state.json").write_text("{}"), False, "its SHA-256 differs"),
        (lambda folder: (folder / "state.json").write_text('{"format": 1}'), True, "state.json lacks"),
        (lambda folder: (folder / "model.pdparams").unlink(), False, "is missing"),
        (
            lambda folder: (folder / "model.pdparams").write_bytes(pickle.dumps(Trap(folder))),
            True,
            "asks for",
        ),
        (lambda folder: (folder / "SHA256SUMS").unlink(), False, "no checkpoint"),
    ],
)
def test_a_checkpoint_folder_of_a_stranger(tmp_path, checkpoint, capsys, spoil, sealed, message):
    made = training_to_paddle(checkpoint, tmp_path / "checkpoints", QUIET)
    spoil(made)
    if sealed:
        reseal(made)
    assert main(["to-torch", "--training", str(made), str(tmp_path / "b.pth"), "--no-verify"]) == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()
    assert not (made / TRAP).exists()


def test_a_run_keeps_its_sizes(tmp_path):
    with pytest.raises(ValueError, match="keeps its input size"):
        training_to_paddle(tmp_path / "a.pth", tmp_path, ConversionOptions(num_classes=3))


@pytest.mark.parametrize("keys", [["ema", "module"], ["swa_model"]])
def test_an_average_goes_along_under_any_key(tmp_path, checkpoint, keys):
    saved = torch.load(checkpoint, weights_only=False)
    entry = average = saved.pop("state_dict_ema")
    for key in reversed(keys):
        entry = {key: entry}
    torch.save({**saved, **entry}, tmp_path / "a.pth")
    made = training_to_paddle(tmp_path / "a.pth", tmp_path / "run" / "checkpoints", QUIET)
    assert (made / "ema.pdparams").exists()
    back = torch.load(training_to_torch(tmp_path / "run", tmp_path / "b.pth", QUIET), weights_only=True)
    assert all(torch.equal(back["state_dict_ema"][name], value) for name, value in average.items())


def test_a_file_is_no_run(tmp_path, checkpoint):
    with pytest.raises(WeightsFileError, match=r"a\.pth is a file; --training takes a checkpoint's folder"):
        training_to_torch(checkpoint, tmp_path / "b.pth", QUIET)
    with pytest.raises(WeightsFileError, match="no checkpoint"):
        training_to_torch(tmp_path / "gone", tmp_path / "b.pth", QUIET)
