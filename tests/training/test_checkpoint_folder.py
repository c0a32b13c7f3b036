"""Checkpoints: what comes back, what is noticed, and what survives an accident at any point."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
from functools import partial

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from paddle_inline import create_model, load_weights
from paddle_inline.training import checkpoint
from paddle_inline.training.checkpoint import (
    CheckpointError,
    check_checkpoint,
    find_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_weights,
)
from paddle_inline.training.ema import Ema
from paddle_inline.training.optim import decay_groups, make_optimizer, optimizer_state
from paddle_inline.training.state import Progress, TrainingState
from paddle_inline.weights.atomic import sha256

TINY = dict(img_size=8, depth=1, embed_dim=16, num_heads=2)


def make(**overrides):
    model = create_model("inline_deit_digits", **{**TINY, **overrides})
    return model, make_optimizer("adamw", model, decay_groups(model, 0.05)), Ema(model, 0.9)


def step(model, optimizer, ema):
    model(paddle.randn([2, 3, 8, 8])).square().sum().backward()
    optimizer.set_lr(1e-3)
    optimizer.step()
    optimizer.clear_grad()
    ema.update(model)


def state(number):
    return TrainingState("inline_deit_digits", TINY, Progress(step=number))


@pytest.fixture
def saved(tmp_path):
    """A trained model and its optimizer and average, and checkpoints of steps 1, 2 and 3."""
    parts = make()
    for number in (1, 2, 3):
        step(*parts)
        model, optimizer, ema = parts
        save_checkpoint(tmp_path, model=model, optimizer=optimizer, ema=ema, state=state(number), keep_last=3)
    return tmp_path, parts


def arrays(tensors):
    return {name: value.numpy() for name, value in tensors.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_everything_comes_back_in_another_process_s_names(saved):
    folder, (model, optimizer, ema) = saved
    paddle.nn.Linear(5, 5)  # shifts the names that Paddle gives
    again, its_optimizer, its_ema = make()
    found = load_checkpoint(folder / "step_00000003", model=again, optimizer=its_optimizer, ema=its_ema)
    assert found == state(3)
    same(arrays(model.state_dict()), arrays(again.state_dict()))
    same(arrays(ema.average), arrays(its_ema.average))
    a, b = optimizer_state(model, optimizer), optimizer_state(again, its_optimizer)
    assert a.keys() == b.keys()
    for name in a:
        same(a[name], b[name])


def test_files_that_were_checked_are_not_read_for_it_again(saved, monkeypatch):
    folder, _ = saved
    hashed = []
    monkeypatch.setattr(checkpoint, "sha256", lambda path: hashed.append(path) or sha256(path))
    found = checkpoint.check_checkpoint(folder / "step_00000003")
    files = len(hashed)
    model, optimizer, ema = make()
    load_checkpoint(folder / "step_00000003", model=model, optimizer=optimizer, ema=ema, state=found)
    assert len(hashed) == files == 4
    load_checkpoint(folder / "step_00000003", model=model, optimizer=optimizer, ema=ema)
    assert len(hashed) == 2 * files


def test_the_files_load_alone_and_have_no_process_wide_names(saved):
    folder, (model, _, ema) = saved
    newest = folder / "last"
    assert newest.resolve().name == "step_00000003"
    plain = paddle.load(str(newest / "model.pdparams"))
    assert not any(key.startswith("Structured") for key in plain)
    same(arrays(plain), arrays(model.state_dict()))
    other = create_model("inline_deit_digits", **TINY)
    load_weights(other, newest / "ema.pdparams")
    same(arrays(other.state_dict()), arrays(ema.average))
    result = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=newest)
    assert result.returncode == 0


def test_the_same_state_gives_the_same_bytes(saved, tmp_path):
    folder, _ = saved
    again = make()
    load_checkpoint(folder / "step_00000003", model=again[0], optimizer=again[1], ema=again[2])
    save_checkpoint(tmp_path / "b", model=again[0], optimizer=again[1], ema=again[2], state=state(3))
    sums = [(f / "step_00000003" / "SHA256SUMS").read_text() for f in (folder, tmp_path / "b")]
    assert sums[0] == sums[1]


def test_only_the_newest_are_kept(saved):
    folder, (model, optimizer, ema) = saved
    save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(4), keep_last=2)
    assert sorted(os.listdir(folder)) == ["last", "step_00000003", "step_00000004"]


def test_a_run_that_goes_back_drops_what_came_later(saved):
    folder, (model, optimizer, ema) = saved
    save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(2), keep_last=2)
    assert sorted(os.listdir(folder)) == ["last", "step_00000001", "step_00000002"]


@pytest.mark.parametrize("file", ["model.pdparams", "ema.pdparams", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_noticed_and_the_one_before_is_taken(saved, file, damage):
    folder, parts = saved
    path = folder / "step_00000003" / file
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    before = arrays(parts[0].state_dict())
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(folder / "step_00000003", model=parts[0], optimizer=parts[1], ema=parts[2])
    same(before, arrays(parts[0].state_dict()))
    found, skipped = newest_checkpoint(folder)
    assert found.name == "step_00000002"
    assert len(skipped) == 1 and "step_00000003 is damaged" in skipped[0]


def test_what_is_no_checkpoint(saved, tmp_path):
    folder, _ = saved
    assert find_checkpoint(folder) == (folder / "step_00000003").resolve()
    assert find_checkpoint(folder / "step_00000001").name == "step_00000001"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="--pretrained"):
        find_checkpoint(folder / "last" / "model.pdparams")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "empty")
    assert newest_checkpoint(tmp_path / "empty") == (None, [])
    for name in ("step_00000001", "step_00000002", "step_00000003"):
        (folder / name / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        find_checkpoint(folder)


def test_another_model_is_refused(saved):
    folder, _ = saved
    wider, its_optimizer, _ = make(embed_dim=32)
    before = arrays(wider.state_dict())
    with pytest.raises(ValueError, match=r"- pos_embed \[1, 5, 32\]"):
        load_checkpoint(folder / "step_00000003", model=wider, optimizer=its_optimizer)
    same(before, arrays(wider.state_dict()))
    wider.name = "inline_deit_tiny"
    with pytest.raises(CheckpointError, match="of inline_deit_digits, not of inline_deit_tiny"):
        load_checkpoint(folder / "step_00000003", model=wider, optimizer=its_optimizer)


def test_a_checkpoint_is_loaded_as_a_whole_or_not_at_all(saved):
    """Optimizer state of another model beside weights that fit, sums that agree."""
    folder, _ = saved
    last = folder / "step_00000003"
    good = load_file(last / "optimizer.safetensors")
    for spoilt in (
        {**good, "head.bias/moment1_0": np.zeros(3, "float32")},
        {name: value for name, value in good.items() if not name.startswith("head.bias/")},
    ):
        save_file(spoilt, last / "optimizer.safetensors")
        sums = "".join(f"{sha256(f)}  {f.name}\n" for f in sorted(last.iterdir()) if f.name != "SHA256SUMS")
        (last / "SHA256SUMS").write_text(sums)
        model, optimizer, ema = make()
        before, averaged = arrays(model.state_dict()), arrays(ema.average)
        with pytest.raises(ValueError, match=r"another model's:\n  . head\.bias"):
            load_checkpoint(last, model=model, optimizer=optimizer, ema=ema)
        same(before, arrays(model.state_dict()))
        same(averaged, arrays(ema.average))


def test_a_format_of_the_future_is_refused(saved):
    folder, _ = saved
    path = folder / "step_00000003"
    content = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**content, "format": 99}))
    line = f"{sha256(path / 'state.json')}  state.json\n"
    (path / "SHA256SUMS").write_text(line)
    with pytest.raises(CheckpointError, match="format 99"):
        check_checkpoint(path)


@pytest.mark.parametrize("call", ["paddle.save", "save_file", "os.fsync", "rename"])
def test_a_full_disk_loses_nothing(saved, monkeypatch, call):
    folder, (model, optimizer, ema) = saved

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "paddle.save":
        monkeypatch.setattr(checkpoint.paddle, "save", full)
    elif call == "save_file":
        monkeypatch.setattr(checkpoint, "save_file", full)
    elif call == "os.fsync":
        monkeypatch.setattr(checkpoint, "flush_to_disk", full)
    else:
        monkeypatch.setattr(checkpoint.Path, "rename", full)
    with pytest.raises(CheckpointError, match="No space left on device; earlier checkpoints are untouched"):
        save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(4), keep_last=1)
    assert newest_checkpoint(folder) == (folder / "step_00000003", [])
    assert not list(folder.glob(".*"))  # nothing half-written


@pytest.mark.parametrize("file", ["model.pdparams", "optimizer.safetensors"])
def test_files_that_truly_cannot_grow(saved, file):
    """Every writer meets the limit itself, those that are not written in Python too."""
    resource = pytest.importorskip("resource")
    folder, (model, optimizer, ema) = saved
    size = (folder / "step_00000003" / file).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"File too large.*earlier checkpoints are untouched"):
            save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(4), keep_last=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest_checkpoint(folder) == (folder / "step_00000003", [])
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("writes", range(10))
def test_killed_at_any_write_of_a_save(saved, monkeypatch, writes):
    """The process is gone before the n-th write or sync: no clean-up runs. What is found is whole."""
    folder, (model, optimizer, ema) = saved
    names = ("write_weights", "save_file", "flush_to_disk", "sync_folder")
    real, count = {name: getattr(checkpoint, name) for name in names}, []

    class Killed(BaseException):
        pass

    def deadly(*arguments, call):
        count.append(call)
        if len(count) > writes:
            raise Killed
        call(*arguments)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name, call in real.items():
            patch.setattr(checkpoint, name, partial(deadly, call=call))
        save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(4), keep_last=2)
    found, skipped = newest_checkpoint(folder)
    assert skipped == []
    assert found.name in ("step_00000003", "step_00000004")
    save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state(4), keep_last=2)
    assert sorted(os.listdir(folder)) == ["last", "step_00000003", "step_00000004"]


def test_an_unwritable_folder(saved, monkeypatch, tmp_path):
    _, (model, optimizer, ema) = saved
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "file", model=model, optimizer=optimizer, ema=ema, state=state(1))
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(tmp_path / "file" / "w.pdparams", model.state_dict(), {"model": "m", "overrides": {}})
    gone = tmp_path / "gone"
    gone.mkdir()
    shutil.rmtree(gone)
    save_checkpoint(gone, model=model, optimizer=optimizer, ema=ema, state=state(1))  # made again
    assert newest_checkpoint(gone)[0].name == "step_00000001"
