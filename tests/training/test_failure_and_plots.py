"""A rank's failure on disk, and the pictures of a run."""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_inline.training import failure, plots
from paddle_inline.utils.errors import UserError


def test_a_failure_is_written_and_raised(tmp_path):
    with pytest.raises(KeyError), failure.reported(tmp_path, rank=1, world=2):
        raise KeyError("why")
    text = (tmp_path / "errors" / "rank1.txt").read_text()
    assert text.startswith("rank 1 failed: 'why'") and "Traceback" in text


def test_one_device_writes_its_failure_too(tmp_path):
    with pytest.raises(KeyError), failure.reported(tmp_path, rank=0, world=1):
        raise KeyError("why")
    text = (tmp_path / "errors" / "rank0.txt").read_text()
    assert (
        text.startswith("rank 0 failed: 'why'") and "in test_one_device_writes" in text and "hint" not in text
    )


@pytest.mark.parametrize("error", [UserError("a typo"), KeyboardInterrupt()])
def test_on_one_device_what_the_user_did_writes_no_file(tmp_path, error):
    with pytest.raises(type(error)), failure.reported(tmp_path, rank=0, world=1):
        raise error
    assert not (tmp_path / "errors").exists()


def test_of_several_ranks_the_user_s_mistakes_are_written_too(tmp_path):
    with pytest.raises(UserError), failure.reported(tmp_path, rank=1, world=2):
        raise UserError("a typo")
    assert "rank 1 failed: a typo" in (tmp_path / "errors" / "rank1.txt").read_text()


def test_out_of_memory_is_recognised_and_gets_a_hint(tmp_path):
    with pytest.raises(MemoryError) as caught, failure.reported(tmp_path, rank=0, world=1):
        paddle.zeros([1 << 46])  # 256 TiB
    assert failure.is_out_of_memory(caught.value)
    text = (tmp_path / "errors" / "rank0.txt").read_text()
    assert "ResourceExhausted" in text and "Traceback" in text
    for word in ("data.batch_size", "train.accumulation_steps", "--use-checkpoint", "--amp"):
        assert word in text.splitlines()[-1]
    assert not failure.is_out_of_memory(ValueError("memory"))


class Ended(BaseException):
    """In place of `os._exit`, which would end pytest itself."""


@pytest.fixture
def no_exit(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(failure.os, "_exit", end)


def test_rank_0_prints_the_others_failures_and_ends(tmp_path, no_exit, capsys):
    failure._write(tmp_path / "rank3.txt", 3, ValueError("lost"))
    done = type("Done", (), {"wait": staticmethod(lambda seconds: False)})
    with pytest.raises(Ended, match="1"):
        failure._watch(tmp_path, 0.0, done)
    assert "rank 3 failed: lost" in capsys.readouterr().err


def test_an_old_report_is_no_failure_of_this_run(tmp_path, no_exit):
    failure._write(tmp_path / "rank3.txt", 3, ValueError("last week"))
    answers = iter([False, True])
    done = type("Done", (), {"wait": staticmethod(lambda seconds: next(answers))})
    failure._watch(tmp_path, (tmp_path / "rank3.txt").stat().st_mtime + 60, done)


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [dict(step=i, epoch=1, loss=2.0 / i, lr=1e-3) for i in range(1, 9)]
    rows += [dict(step=8, epoch=1, top1=50.0, top5=90.0, ema_top1=60.0), dict(step=9, loss="nan", lr=0.1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plots.learning_curves(tmp_path, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 1000
    images = np.random.RandomState(0).rand(10, 3, 8, 8)
    plots.image_grid(images, list("abcdefghij"), tmp_path / "grid.png", correct=[True, False] * 5)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB")).reshape(-1, 3)
    assert {(0x1B, 0x7F, 0x4B), (0xC0, 0x39, 0x2B)} <= set(map(tuple, pixels))  # both colours


def test_pictures_of_a_run_without_rows(tmp_path):
    pytest.importorskip("matplotlib")
    plots.learning_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()
