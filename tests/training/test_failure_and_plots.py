"""A rank's failure on disk, and the pictures of a run."""

import io
import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from PIL import Image
from rich.console import Console

from paddle_inline.training import failure, plots, report
from paddle_inline.training.log import RunLog
from paddle_inline.training.state import Progress
from paddle_inline.utils.errors import UserError


def test_a_failure_is_written_and_raised(tmp_path):
    with pytest.raises(KeyError), failure.reported(tmp_path, rank=1, world=2):
        raise KeyError("why")
    text = (tmp_path / "errors" / "rank1.txt").read_text()
    assert text.startswith("rank 1 failed: 'why'") and "Traceback" in text


def test_a_failure_may_name_anything(tmp_path):
    with pytest.raises(RuntimeError), failure.reported(tmp_path, 0, 1):
        raise RuntimeError("\udcb5.jpg")
    assert r"failed: \udcb5.jpg" in (tmp_path / "errors" / "rank0.txt").read_text("utf-8")


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
    device = "(External) CUDA error(2), out of memory.", "CUBLAS error(3), CUBLAS_STATUS_ALLOC_FAILED"
    assert all(failure.is_out_of_memory(OSError(text)) for text in device)
    for way in ("data.batch_size", "train.accumulation_steps", "--use-checkpoint"):
        assert way in failure.OUT_OF_MEMORY


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


def test_curves_of_one_epoch_and_of_many(tmp_path, monkeypatch):
    """Whole epochs on every axis, the best marked and named, the held-out loss beside the training's."""
    pytest.importorskip("matplotlib")
    rows = [dict(step=3, epoch=1, loss=2.0, lr=1e-3), dict(step=3, epoch=1, top1=50.0, held_out_loss=1.5)]
    rows += [dict(step=6, epoch=2, loss=0.5, lr=1e-3), dict(step=6, epoch=2, top1=40.0, held_out_loss=1.9)]
    seen = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    for count in (2, 4):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
        plots.learning_curves(tmp_path, tmp_path / "curves.png")
    for figure, last in zip(seen, (1, 2)):
        for axis in figure.axes:
            assert axis.get_xlabel() == "epoch" and axis.get_xlim() == (0, 1.03 * last)
            assert all(float(tick).is_integer() for tick in axis.get_xticks())
        left, middle, right = figure.axes
        assert [line.get_label() for line in left.lines[1:]] == ["training", "held-out"]
        assert [tuple(line.get_xdata()) for line in left.lines] == [tuple(range(1, last + 1))] * 3
        assert middle.get_legend().get_texts()[0].get_text() == "weights: best 50.00 % (epoch 1)"
        assert list(middle.lines[-1].get_data()) == [[1], [50.0]] and len(right.lines) == 1


def test_a_loss_of_nothing_is_drawn_without_a_warning(tmp_path, recwarn):
    """As of one class in all."""
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(dict(step=1, epoch=1, loss=0.0, lr=1e-3)) + "\n")
    plots.learning_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists() and not recwarn.list


NAMES = [
    "price_$5_to_$10",
    "$",
    "$x",
    r"\$\frac{1}$",
    "_^{}",
    "猫",
    "a\nb",
    "b\udcb5\udce7",
    "%",
    "",
    "x" * 300,
]


def test_class_names_are_drawn_verbatim(tmp_path, recwarn):
    text = pytest.importorskip("matplotlib.text")
    drawn, draw = [], text.Text.set_text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text.Text, "set_text", lambda self, s: (drawn.append(s), draw(self, s))[1])
        plots.image_grid(np.zeros((len(NAMES), 3, 8, 8)), NAMES, tmp_path / "grid.png")
    assert {name.encode("utf-8", "backslashreplace").decode() for name in NAMES} <= set(drawn)
    assert not [warning for warning in recwarn if "font" in str(warning.message)]


def test_any_class_names_are_drawn(tmp_path, recwarn):
    """Names of every kind of character, lone surrogates and control characters among them."""
    pytest.importorskip("matplotlib")
    draws = np.random.RandomState(0)
    ranges = [
        (1, 0x20),
        (0x20, 0x7F),
        (0x80, 0x250),
        (0x590, 0x700),
        (0x4E00, 0x4F00),
        (0xD800, 0xE000),
        (0x1F300, 0x1F600),
    ]
    marks = list("$_^{}\\%#&<>'\"")
    names = []
    for _ in range(16):
        letters = [
            chr(draws.randint(*ranges[i])) for i in draws.randint(0, len(ranges), draws.randint(0, 12))
        ]
        names.append("".join(draws.permutation(letters + list(draws.choice(marks, draws.randint(0, 6))))))
    plots.image_grid(np.zeros((len(names), 3, 8, 8)), names, tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[0] > 1000
    assert not [warning for warning in recwarn if "font" in str(warning.message)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_pictures_of_any_number_of_channels(tmp_path, channels):
    pytest.importorskip("matplotlib")
    images = plots.denormalise(np.zeros((2, channels, 8, 8)), [0.5] * channels, [0.5] * channels)
    plots.image_grid(images, ["a", "b"], tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[0] > 100


def test_more_classes_than_the_data_has_and_images_without_label(tmp_path):
    pytest.importorskip("matplotlib")

    class Always5(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.weight = self.create_parameter([1])

        def forward(self, images):
            return paddle.nn.functional.one_hot(paddle.full([images.shape[0]], 5, "int64"), 1000)

    labels = paddle.to_tensor([0, -1])
    path = tmp_path / "predictions.png"
    plots.predictions(
        Always5(), paddle.zeros([2, 3, 8, 8]), labels, ["a", "b"], path, mean=[0] * 3, std=[1] * 3
    )
    assert path.exists()
    assert plots.class_name(["a", "b"], -1) == "class -1" and plots.class_name(["a", "b"], 1) == "b"


def test_the_backend_and_the_style_stay_the_users(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"axes.facecolor": "red"}):
        plt.switch_backend("svg")
        before, own = dict(matplotlib.rcParams), plt.figure()
        plots.image_grid(np.zeros((1, 3, 8, 8)), ["a"], tmp_path / "grid.png")
        plots.learning_curves(tmp_path, tmp_path / "curves.png")
        assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == "svg"
        with matplotlib.rc_context(
            {"text.usetex": True}
        ):  # LaTeX may be missing, and to it % begins a comment
            plots.image_grid(np.zeros((1, 3, 8, 8)), ["%"], tmp_path / "tex0.png")
            plots.learning_curves(tmp_path, tmp_path / "tex1.png")
            assert matplotlib.rcParams["text.usetex"]
        assert (tmp_path / "tex0.png").exists() and (tmp_path / "tex1.png").exists()
        assert plt.get_fignums() == [own.number] and plt.gcf() is own
        plt.close(own)
        plt.switch_backend("agg")


ERRORS = [
    IndexError("list index"),
    ValueError("$"),
    OSError("no disk"),
    MemoryError(),
    RuntimeError("x" * 999),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_drawing_raises_is_a_line(tmp_path, monkeypatch, error):
    """At a run's beginning and at its end."""

    def raises(*args, **kwargs):
        raise error

    for name in ("image_grid", "learning_curves", "predictions"):
        monkeypatch.setattr(plots, name, raises)
    log = RunLog(tmp_path, visualdl=False, console=Console(file=io.StringIO()))
    samples = SimpleNamespace(load=lambda key: (np.zeros((3, 8, 8)), 0, 0))
    loader = SimpleNamespace(samples=samples, batches=[[(0, 0)]])
    report.show_samples(log, loader, ["a"], mean=[0] * 3, std=[1] * 3)
    run = SimpleNamespace(
        eval_loader=loader,
        eval_source=type("Source", (list,), {"classes": ["a"], "labels": [0]})([0]),
        components=SimpleNamespace(model=None),
    )
    report.finish(log, run, Progress(), mean=[0] * 3, std=[1] * 3, seconds=1)
    lines = (tmp_path / "train.log").read_text().splitlines()
    for line, what in zip(lines, ("no sample images", "no curves.png", "no predictions.png")):
        assert f"{what}: {type(error).__name__}: " in line
    assert len(lines) == 4 and "everything is in" in lines[-1]
