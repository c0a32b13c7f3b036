"""A whole comparison of two forms on forty pictures: its files, its going on after a kill, its refusals."""

import csv
import json
import re
import shutil

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_inline.cli.main import main
from paddle_inline.compare import comparison, figure, trial
from paddle_inline.compare.comparison import compare, estimate
from paddle_inline.compare.plan import make_plan
from paddle_inline.compare.timing import peak_of
from paddle_inline.compare.workers import run_jobs
from paddle_inline.layers.attention import list_attentions
from paddle_inline.utils.errors import UserError

pytest.importorskip("matplotlib")
COUNTS_MEMORY = peak_of(lambda: None) is not None  # Paddle 2.6 does not


def words(pictures, output, *more):
    start = [
        "compare",
        "--forms",
        "softmax",
        "linear_relu",
        "--data",
        str(pictures),
        "--seeds",
        "1",
        "--epochs",
        "1",
    ]
    return [*start, "--output", str(output), "--workers", "1", "--rounds", "1", *more]


@pytest.fixture(scope="module")
def done(pictures, quick, tmp_path_factory):
    """The folder of a finished comparison, and what the command printed."""
    output = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *given, **how: lines.append(" ".join(map(str, given))))
        assert main(words(pictures, output)) == 0
    return output, lines


@pytest.fixture
def again(done, tmp_path):
    """A copy of the finished comparison, to be changed."""
    return shutil.copytree(done[0], tmp_path / "again")


def test_one_line_a_form(done):
    output, lines = done
    titles, *rows = lines[-4:-1]
    assert titles.split()[0] == "form"
    assert sorted(row.split()[0] for row in rows) == ["linear_relu", "softmax"]
    assert lines[-1] == f"the page: {output / 'index.html'}"
    assert any(re.match(r"softmax, seed 0: \d+\.\d\d %, \d+ s; 1 of 2, about", line) for line in lines)


def test_the_results_say_what_was_measured(done):
    results = json.loads((done[0] / "results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    softmax, linear = rows["softmax"], rows["linear_relu"]
    assert results["trained"]["done"] == 2 and results["data"]["held_out_images"] == 8
    assert softmax["params"] == linear["params"] and softmax["macs"] > linear["macs"]
    assert (softmax["rank"], softmax["head_width"], softmax["kind"]) == (16, 16, "quadratic")
    assert linear["rank"] < 16 and linear["kind"] == "confused"
    for row in (softmax, linear):
        assert 0 <= row["top1"] <= 100 and len(row["curve"]) == 1
        assert row["speed"] > 0 and row["training_speed"] > 0
        assert row["memory"] > 0 if COUNTS_MEMORY else row["memory"] is None
        assert len(row["local_by_block"]) == 4 and 0 < row["local"] < 100
        assert row["without_local"] is not None and row["without_random"] is not None
        assert [found["tokens"] for found in row["growth"]] == [9, 16, 36]
        assert np.array(row["maps"]["middle"]).shape == (8, 8)
    if COUNTS_MEMORY:
        assert softmax["memory_slope"] > linear["memory_slope"] > 0


def test_the_page_holds_everything_itself(done):
    page = (done[0] / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "http" not in page and "url(" not in page
    assert "2 forms of attention in one network" in page and "width=device-width" in page
    for form in ("softmax", "linear_relu"):
        assert page.count(f'data-form="{form}"') >= 6  # a row, a point, four curves, a map
    assert page.count("<svg") == 4 + COUNTS_MEMORY and page.count("data:image/png") == 5
    assert "linear, rows not one to one" in page and "Held-out accuracy" in page


def test_the_table_and_the_picture(done):
    with open(done[0] / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["form"] for row in rows] == ["softmax", "linear_relu"]
    assert float(rows[0]["top1"]) >= 0 and rows[0]["rank"] == "16"
    assert Image.open(done[0] / "results.png").size[0] > 1000


def test_the_legend_of_the_picture_lies_beside_the_points(done, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn, savefig = [], Figure.savefig

    def save(self, *given, **more):
        drawn.append(self)
        savefig(self, *given, **more)

    monkeypatch.setattr(Figure, "savefig", save)
    figure.draw(json.loads((done[0] / "results.json").read_text()), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.get_window_extent()) and legend.y0 > 0
    assert not legend.overlaps(axes.xaxis.label.get_window_extent())


def test_a_finished_comparison_trains_and_times_nothing(again, plan, monkeypatch):
    for name in ("train", "timing"):
        monkeypatch.setattr(comparison, name, None)
    before = json.loads((again / "results.json").read_text())
    after = compare(plan, again, rounds=1, report=lambda line: None)
    assert json.loads(json.dumps(after["rows"])) == before["rows"]


def test_what_a_kill_has_left_is_kept_and_the_rest_is_done(pictures, done, tmp_path, monkeypatch):
    plan = make_plan(
        ["softmax", "linear_relu"], "inline_deit_digits", str(pictures), 1, 1, list(list_attentions())
    )
    output = tmp_path / "out"

    def killed(given, form, *rest):
        if form.name == "linear_relu":
            raise KeyboardInterrupt
        return trial.train(given, form, *rest)

    monkeypatch.setattr(comparison, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(plan, output, stages=["train"], report=lambda line: None)
    first = next(output.rglob("result.json"))
    kept, written = first.read_bytes(), first.stat().st_mtime_ns
    monkeypatch.setattr(comparison, "train", trial.train)
    lines = []
    compare(plan, output, stages=["train"], report=lines.append)
    assert lines[0] == "1 of 2 trainings done before: 1 to go"
    assert (first.read_bytes(), first.stat().st_mtime_ns) == (kept, written)
    for path in sorted(output.rglob("result.json")):  # the same numbers as without the kill
        mine, theirs = (json.loads(p.read_text()) for p in (path, done[0] / path.relative_to(output)))
        assert mine["losses"] == theirs["losses"] and mine["inputs"] == theirs["inputs"]


def test_a_training_that_is_cut_off_goes_on_from_its_checkpoint(pictures, tmp_path, monkeypatch):
    plan = make_plan(["softmax"], "inline_deit_digits", str(pictures), 1, 2, list(list_attentions()))
    form = plan.forms[0]
    whole = trial.train(plan, form, 0, tmp_path / "whole")

    class Killed(trial._Curves):
        def on_epoch_start(self, progress):
            if progress.epoch == 1:
                raise KeyboardInterrupt
            super().on_epoch_start(progress)

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_Curves", Killed)
        with pytest.raises(KeyboardInterrupt):
            trial.train(plan, form, 0, tmp_path / "cut")
    resumed = trial.train(plan, form, 0, tmp_path / "cut")
    assert (resumed["curve"], resumed["losses"]) == (whole["curve"], whole["losses"])
    states = [trial.trained_model(plan, form, 0, tmp_path / name).state_dict() for name in ("whole", "cut")]
    for name, tensor in states[0].items():
        np.testing.assert_array_equal(tensor.numpy(), states[1][name].numpy())
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_training_that_diverges_is_a_result(plan, tmp_path, monkeypatch):
    def diverge(*given):
        raise trial.NotFinite("the loss is nan at step 3")

    monkeypatch.setattr(trial, "fit", diverge)
    lines = []
    results = compare(plan, tmp_path / "out", stages=["train", "inspect", "page"], report=lines.append)
    assert lines[0].startswith("softmax, seed 0: diverged")
    for row in results["rows"]:
        assert row["top1"] is None and row["notes"] == ["1 of 1 training diverged: the loss is nan at step 3"]
    assert "every training diverged" in (tmp_path / "out" / "index.html").read_text()


def test_other_settings_are_refused_and_more_seeds_are_not(again, pictures, capsys):
    assert main(words(pictures, again, "--epochs", "2")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"holds another comparison \(epochs: 1 there, 2 here\).*--output", line)
    known = list(list_attentions())
    comparison.begin(make_plan(["inline"], "inline_deit_digits", str(pictures), 3, 1, known), again)
    assert json.loads((again / "comparison.json").read_text())["settings"]["seeds"] == 3


def test_other_data_is_refused_before_it_is_learnt_from(again, pictures, plan, monkeypatch):
    path = next(path for path in again.rglob("result.json") if "linear_relu" in str(path))
    path.unlink()
    monkeypatch.setattr(trial, "inputs_digest", lambda run: "other")
    monkeypatch.setattr(trial, "fit", None)
    with pytest.raises(
        UserError, match=r"the data has changed: linear_relu with seed 0 has inputs other, softmax had"
    ):
        compare(plan, again, stages=["train"], report=print)


def test_the_inputs_are_the_bytes_of_pictures_and_names(pictures, plan, tmp_path):
    digests = []
    for change in (None, "pixel", "name"):
        folder = shutil.copytree(pictures, tmp_path / str(change))
        if change == "pixel":  # one of the first batch, which is all pictures here
            Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "train" / "above" / "0.png")
        if change == "name":
            (folder / "val" / "below" / "3.png").rename(folder / "val" / "below" / "4.png")
        other = make_plan(["softmax"], "inline_deit_digits", str(folder), 1, 1, list(list_attentions()))
        digests.append(
            trial.inputs_digest(trial.build.build_run(other.config(other.forms[0], 0, tmp_path), 0, 1))
        )
    assert len(set(digests)) == 3


def test_a_folder_of_something_else_is_left_alone(plan, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds no comparison but thesis\.txt: choose another folder"):
        compare(plan, tmp_path, report=print)


def test_a_damaged_file_is_named(again, plan):
    (again / "speed.json").write_text("{")
    with pytest.raises(UserError, match=r"speed\.json is damaged: remove it"):
        compare(plan, again, stages=["page"], report=print)


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_a_plan_that_is_none_is_damaged(plan, tmp_path, text):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(UserError, match=r"comparison\.json is damaged: remove it"):
        compare(plan, tmp_path, report=print)


def test_a_check_of_the_data_opens_it_once(plan, tmp_path, monkeypatch):
    opened, build_train = [], comparison.build.build_train
    monkeypatch.setattr(
        comparison.build, "build_train", lambda *given: opened.append(given) or build_train(*given)
    )
    run = comparison.check_data(plan, tmp_path)
    assert len(opened) == 1 and len(run.train_source) >= run.images_per_step
    assert len(next(iter(run.components.load(0, 0)))[1]) == run.images_per_step


def test_data_that_cannot_be_trained_on_leaves_no_folder(pictures, tmp_path, capsys):
    few = tmp_path / "few"
    for part in ("train", "val"):
        for name in ("above", "below"):
            shutil.copytree(pictures / "val" / name, few / part / name)
    for data, message in (
        (few, "8 pictures to learn from, fewer than the 32"),
        (tmp_path / "no", "no such path"),
    ):
        for more in ([], ["--dry-run"]):
            assert main(words(data, tmp_path / "out", *more)) == 2
            assert message in capsys.readouterr().err
            assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--forms", "sofmax"], "did you mean 'softmax'"),
        (["--workers", "0"], "--workers is 0"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(pictures, tmp_path, more, message, capsys):
    assert main(words(pictures, tmp_path / "out", *more)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^error: .*{message}", lines[0])


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(pictures, plan, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(words(pictures, output, "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"softmax +0\.208 M parameters +15\.14 M multiply-adds +\d+ ms a step", lines[0])
    assert re.match(r"2 trainings of 1 step: about 0 minutes on 1 process,", lines[2])
    assert not output.exists()
    assert estimate(plan, output, 1)["trainings"] == 2


def test_jobs_run_in_processes_of_their_own_and_failures_come_back():
    jobs = [(1, 2), (3, 4), (5, 8)]
    import operator

    assert sorted(run_jobs(operator.mul, jobs, 2)) == [((1, 2), 2), ((3, 4), 12), ((5, 8), 40)]
    assert list(run_jobs(operator.mul, jobs, 1)) == [((1, 2), 2), ((3, 4), 12), ((5, 8), 40)]
    with pytest.raises(ZeroDivisionError):
        list(run_jobs(operator.truediv, [(1, 1), (1, 0)], 2))


def test_narrow_networks_begin_with_wider_weights():
    wide, kept = paddle.nn.Linear(64, 64), paddle.nn.Linear(64, 64)
    wide.weight.set_value(0.02 * paddle.randn([64, 64]))
    before = kept.weight.numpy()
    model = paddle.nn.LayerList([wide, kept])
    trial.widen(model)
    assert np.std(wide.weight.numpy()) == pytest.approx(1 / 8, rel=0.1)
    np.testing.assert_array_equal(kept.weight.numpy(), before)  # Xavier's, 0.125


def test_a_silent_training_is_silent_in_a_notebook(monkeypatch):
    """Where rich displays what is printed, whatever file it was to go to."""
    import io

    from rich import console

    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    assert console.Console(file=io.StringIO()).is_jupyter
    file = io.StringIO()
    trial.console_to(file).print("no checkpoint")
    assert file.getvalue() == "no checkpoint\n"
