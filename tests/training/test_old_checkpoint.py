"""A checkpoint of version 0.1 goes on in the present code as it did in that version."""

import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

import train_paddle
from paddle_inline.training.checkpoint import check_checkpoint, checkpoints_in, newest_checkpoint
from paddle_inline.training.log import read_metrics
from paddle_inline.training.state import Progress
from paddle_inline.utils import compiled

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoint_0_1"
STEPS, AT = 22, 15  # of the run, and of its checkpoint, in the middle of the second epoch


def test_the_state_is_read(tmp_path):
    state = check_checkpoint(GOLDEN / f"update_{AT:08d}")
    best = dict(best_top1=1.3736263736263736, best_epoch=1, best_ema_top1=9.89010989010989, best_ema_epoch=1)
    assert state.progress == Progress(epoch=1, step=AT, **best)
    assert (state.model, state.overrides["embed_dim"]) == ("inline_deit_digits", 16)
    assert (state.steps_per_epoch, state.world, state.rate) == (11, 1, 0.001176247049061237)
    assert state.config["train"]["base_lr"] == 4e-3 and state.classes == list("0123456789")
    assert (state.scaler, state.origin) == (None, None)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The folder of the run, gone on with to its end."""
    pytest.importorskip("sklearn")
    output = tmp_path_factory.mktemp("resumed")
    folder = output / "inline_deit_digits" / "default"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copytree(GOLDEN / f"update_{AT:08d}", folder / "checkpoints" / f"update_{AT:08d}")
    shutil.copy(GOLDEN / "metrics.jsonl", folder)
    call = ["--cfg", str(GOLDEN / "run.yaml"), "--output", str(output), "--resume", "auto"]
    with compiled.paused():  # of Paddle's own operators, as that version's were
        assert train_paddle.main(call) == 0
    return folder


def test_it_goes_on_to_the_same_weights_byte_for_byte(resumed):
    """Of the weights and their average. Another processor, or Paddle version, adds in another order."""
    last, skipped = newest_checkpoint(resumed / "checkpoints")
    assert last.name == f"step_{STEPS:08d}" and not skipped
    for name in ("model.pdparams", "ema.pdparams"):
        ours, recorded = (paddle.load(str(folder / name)) for folder in (last, GOLDEN / "final"))
        assert ours.keys() == recorded.keys()
        for key, value in recorded.items():
            np.testing.assert_allclose(ours[key].numpy(), value.numpy(), rtol=0, atol=1e-5, err_msg=key)
        if same_arithmetic(resumed):
            assert all(ours[key].numpy().tobytes() == recorded[key].numpy().tobytes() for key in recorded)


def same_arithmetic(folder):
    """Whether this machine gave the recorded losses and norms to the last bit in the steps that both have made."""
    recorded, now = (
        [(row["loss"], row["grad_norm"]) for row in read_metrics(f) if "loss" in row and row["step"] > AT]
        for f in (GOLDEN, folder)
    )
    assert len(now) == len(recorded) == STEPS - AT
    return now == recorded


def test_the_old_and_the_new_stand_side_by_side(resumed):
    """Old folders are found, ordered by their step and deleted like new ones; old rows of the metrics are kept."""
    names = [path.name for path in checkpoints_in(resumed / "checkpoints")]
    assert names == ["update_00000015", "step_00000020", "step_00000022"]
    rows = read_metrics(resumed)
    assert [row["step"] for row in rows] == [row["step"] for row in read_metrics(GOLDEN)]
    assert all("update" not in row for row in rows)
    before = [row for row in read_metrics(GOLDEN) if row["step"] <= AT]
    assert rows[: len(before)] == before
    assert rows[-1]["top1"] == pytest.approx(read_metrics(GOLDEN)[-1]["top1"], abs=1.5)


def test_another_checkpoint_goes_on_elsewhere(resumed, tmp_path):
    """So the comparison above can fail: without the moments the weights part."""
    moments = load_file(GOLDEN / f"update_{AT:08d}" / "optimizer.safetensors")
    assert any(np.abs(value).max() > 0 for key, value in moments.items() if key.endswith("moment1"))
    call = ["--cfg", str(GOLDEN / "run.yaml"), "--output", str(tmp_path)]
    start = str(GOLDEN / f"update_{AT:08d}" / "model.pdparams")
    assert train_paddle.main([*call, "--pretrained", start, "--stop-after", "1"]) == 0
    last = newest_checkpoint(tmp_path / "inline_deit_digits" / "default" / "checkpoints")[0]
    ours, recorded = (paddle.load(str(f / "model.pdparams")) for f in (last, GOLDEN / "final"))
    assert max(np.abs(ours[key].numpy() - recorded[key].numpy()).max() for key in recorded) > 1e-3
