"""A rank's failure on disk, and the pictures of a run."""

import json

import numpy as np
import pytest
from PIL import Image

from paddle_inline.training import failure, plots


def test_a_failure_is_written_and_raised(tmp_path):
    with pytest.raises(KeyError), failure.reported(tmp_path, rank=1, world=2):
        raise KeyError("why")
    text = (tmp_path / "errors" / "rank1.txt").read_text()
    assert text.startswith("rank 1 failed: 'why'") and "Traceback" in text


def test_one_rank_alone_writes_nothing(tmp_path):
    with pytest.raises(KeyError), failure.reported(tmp_path, rank=0, world=1):
        raise KeyError("why")
    assert not (tmp_path / "errors").exists()


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
    rows = [dict(update=i, epoch=1, loss=2.0 / i, lr=1e-3) for i in range(1, 9)]
    rows += [dict(update=8, epoch=1, top1=50.0, top5=90.0, ema_top1=60.0), dict(update=9, loss="nan", lr=0.1)]
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
