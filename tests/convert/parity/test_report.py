"""What the report holds: the page, JSON, JUnit XML, reprod_log's arrays, the terminal."""

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from convert.__main__ import main
from convert.parity.comparison import Divergence, Report, Row
from convert.parity.report.html import page, write_html
from convert.parity.report.json import write_json
from convert.parity.report.junit import write_junit
from convert.parity.report.reprod_log import write_reprod_log
from convert.parity.report.terminal import all_rows, explain, overview
from paddle_inline.utils.errors import FileAccessError

SPEC = ["--opts", "depth", "1", "embed_dim", "16", "num_heads", "2"]


def row(name, error, tolerance=1e-9, kind="output", **distances):
    return Row(kind, name, (2, 3), error, error, tolerance, **distances)


@pytest.fixture
def good():
    rows = (
        row("patch_embed.proj", 0.0),
        row("blocks.0.norm1", 1e-13),
        row("blocks.0", 9e-10),
        row("head", 2e-12),
        row("(model)", 2e-12),
        row("", 1e-15, kind="loss"),
        row("head", 3e-11, 1e-8, "output gradient"),
        row("head.weight", 3e-11, 1e-8, "parameter gradient"),
    )
    versions = {"torch": "2.13.0", "paddle": "3.3.1"}
    return Report("inline_deit_digits", "float64", rows, versions=versions, machine="one core", seconds=1.5)


@pytest.fixture
def bad():
    rows = (row("stage<1>.0", 1e-3), row("stage2.0", math.nan), row("head", math.inf))
    found = Divergence("stage<1>.0", "Linear", "output", (2, 3), (1, 2), (0.125, 1.0), (0.25, 1.0))
    return Report("inline_cswin_tiny", "float64", rows, found)


class Text(HTMLParser):
    """A page's text, classes and links; unbalanced tags are an error."""

    VOID = ("meta", "rect", "path", "circle", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.classes, self.addresses, self.tags = [], [], [], [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.classes += (attributes.get("class") or "").split()
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag not in self.VOID or tag == "rect" or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.classes += (dict(attributes).get("class") or "").split()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_of_a_success(good):
    text = page([good])
    found = Text(text)
    assert "1 comparison: every layer agrees" in found.text
    assert "beyond" in found.classes  # in the legend
    assert found.classes.count("beyond") == 1
    assert "exact" in found.classes and "good" in found.classes and "bad" not in found.classes
    assert "blocks.0 [2x3]: 9.0e-10, allowed 1.0e-9" in found.text
    assert "outputs: 1.0e-9 allowed" in found.text and "output gradients: 1.0e-8 allowed" in found.text
    assert "torch 2.13.0, paddle 3.3.1" in found.text and "one core" in found.text


def test_the_page_of_a_failure(good, bad):
    found = Text(page([good, bad]))
    assert "1 of 2 comparisons differ" in found.text
    assert "First divergence: stage<1>.0" in found.text
    assert "Linear was given equal inputs and gave another output" in found.text
    assert "Shape [2, 3], the largest difference at [1, 2]" in found.text
    assert "0.125" in found.text and "0.25" in found.text
    assert found.classes.count("beyond") > 3


def test_the_page_loads_nothing(good, bad):
    text = page([good, bad])
    assert not Text(text).addresses
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)


def test_markup_in_a_name_stays_text():
    """Wherever a name of a model, layer, class, weight file or machine stands."""
    count = 0

    def name():
        nonlocal count
        count += 1
        return f'<marquee id="{count}">&amp;'

    kinds = ("output", "output gradient", "parameter gradient", "step weight", name())
    distances = {"torch_distance": 1.0, "paddle_distance": 2.0, "allowed_distance": 3.0}
    rows = tuple(row(name(), error, kind=kind, **distances) for kind in kinds for error in (1e-12, math.nan))
    found = Divergence(rows[1].name, name(), name(), (2, 3), (1, 2), (0.125, 1.0), (0.25, 1.0))
    subject = {"weights": name(), name(): name()}
    report = Report(name(), "bfloat16", rows, found, {name(): name()}, name(), subject, 1.0)
    text = Text(page([report]))
    assert "marquee" not in text.tags
    for i in range(1, count + 1):
        assert f'<marquee id="{i}">&amp;' in text.text


def test_the_page_of_an_arbitrated_comparison():
    rows = (
        row("a.0.x", 1e-6, 2e-5, torch_distance=1e-7, paddle_distance=4e-7, allowed_distance=6e-7),
        row("a.0", 1e-6, 2e-5, torch_distance=4e-7, paddle_distance=1e-7, allowed_distance=1.2e-6),
        row("(model)", 1e-6, 2e-5, torch_distance=0.0, paddle_distance=0.0, allowed_distance=4e-7),
    )
    report = Report("inline_deit_digits", "float32", rows)
    assert report.further_from_truth() == (1, 1)
    assert report.most_disputed().name == "a.0.x"
    found = Text(page([report]))
    assert "of 3 tensors PyTorch is further off on 1, Paddle on 1, the others are level" in found.text
    assert {"b0", "b16"} <= set(found.classes)


def console(width=150):
    return Console(file=io.StringIO(), width=width, color_system=None)


def test_a_report_without_rows_is_no_success_and_says_so(tmp_path):
    empty = Report("m", "float64", (), versions={"paddle": "3.3.1"})
    assert not empty.passed
    screen = console()
    screen.print(overview([empty], [("m", "float64", lambda: empty)], screen), all_rows(empty))
    explain(empty, screen)
    assert screen.file.getvalue().count("nothing was compared") == 2
    assert "m float64: nothing was compared; paddle 3.3.1" in screen.file.getvalue()
    assert "nothing compared" in Text(page([empty])).text
    write_json([empty], tmp_path / "a.json")
    write_junit([empty], tmp_path / "a.xml")
    assert json.loads((tmp_path / "a.json").read_text())["passed"] is False


def test_a_reference_is_named_by_what_it_is(good, bad):
    recorded = replace(good, reference="recorded numbers")
    screen = console()
    explain(recorded, screen)
    explain(replace(bad, reference="recorded numbers"), screen)
    said = screen.file.getvalue()
    assert "every layer agrees with recorded numbers;" in said and "differs from recorded numbers in " in said
    assert "    recorded numbers 0.125 1\n    Paddle           0.25 1" in said and "PyTorch" not in said
    text = Text(page([recorded])).text
    assert "went through Paddle, and what came out was compared with recorded numbers." in text
    assert "went through PaddlePaddle and PyTorch." in Text(page([good])).text


def test_json(good, bad, tmp_path):
    write_json([good, bad], tmp_path / "new" / "report.json")
    data = json.loads((tmp_path / "new" / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["passed"] is False
    first, second = data["reports"]
    assert first["passed"] and first["first_divergence"] is None and len(first["rows"]) == len(good.rows)
    assert first["rows"][1]["max_rel"] == 1e-13 and first["rows"][1]["passed"]
    assert second["first_divergence"] == "stage<1>.0" and second["divergence"]["index"] == [1, 2]
    assert [r["max_rel"] for r in second["rows"]] == [1e-3, "nan", "inf"]


def test_junit(good, bad, tmp_path):
    write_junit([good, bad], tmp_path / "report.xml")
    suites = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert [(s.get("tests"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("8", "0", "0"),
        ("3", "3", "0"),
    ]
    failures = suites.findall(".//failure")
    assert "the first divergence" in failures[0].get("message")
    assert suites[0][6].get("name") == "output gradient head"
    assert suites[0].get("time") == "1.500"


def test_a_page_is_whole_or_not_there(good, tmp_path):
    write_html([good], tmp_path / "page.html")
    before = (tmp_path / "page.html").read_text()
    with pytest.raises(AttributeError):
        write_html([None], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError):
        write_html([good], tmp_path / "page.html" / "page.html")


def test_a_name_that_is_no_utf_8_is_escaped(good, tmp_path):
    report = dataclasses.replace(good, subject={**good.subject, "weights": "\udcb5.pth"})
    for write in (write_html, write_json, write_junit):
        write([report], tmp_path / "out")
        (tmp_path / "out").read_text("utf-8")
    write_html([report], tmp_path / "out")
    assert r"\udcb5.pth" in (tmp_path / "out").read_text("utf-8")


def test_a_file_that_cannot_be_written_is_named(good, tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (write_html, write_json, write_junit):
        with pytest.raises(FileAccessError, match="file/report cannot be written: "):
            write([good], tmp_path / "file" / "report")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_needs_jinja2_and_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page = str(tmp_path / "page.html")
    for arguments in (["verify", "--model", "inline_deit_digits"], ["compare", "reference", "candidate"]):
        assert main([*arguments, "--html", page]) == 2
        assert "pip install jinja2" in capsys.readouterr().err


def test_reprod_log_files_are_those_of_the_guide(tmp_path):
    def results(offset):
        losses = {"loss_1": np.array(1.5 + offset)}
        return {
            "forward": {"logits": np.ones((2, 5)) + offset},
            "loss": {"loss": np.ones(())},
            "losses": losses,
        }

    report = Report("m", "float64", (row("a", 0.0),), results={"torch": results(0), "paddle": results(0.5)})
    write_reprod_log([report], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stage}_{side}.npy" for stage in ("forward", "loss", "losses") for side in ("paddle", "ref")
    }
    # how reprod_log opens them
    candidate = np.load(tmp_path / "forward_paddle.npy", allow_pickle=True).tolist()
    reference = np.load(tmp_path / "forward_ref.npy", allow_pickle=True).tolist()
    np.testing.assert_array_equal(candidate["logits"] - reference["logits"], 0.5)
    write_reprod_log([report, report], tmp_path)
    assert (tmp_path / "m_float64" / "losses_ref.npy").is_file()


class TestVerify:
    """The command, from end to end."""

    @pytest.fixture(autouse=True)
    def torch(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "150")
        return pytest.importorskip("torch")

    def test_everything_at_once(self, tmp_path, capsys):
        arguments = ["verify", "--model", "inline_deit_digits", "--dtype", "float64", "float32", "--backward"]
        arguments += ["--steps", "2", "--batch", "2"]
        for name in ("html", "json", "junit"):
            arguments += [f"--{name}", str(tmp_path / f"report.{name}")]
        arguments += ["--reprod-log", str(tmp_path / "reprod"), *SPEC]
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "inline_deit_digits float64: every layer agrees" in out
        assert "from the float64 truth PyTorch is further on" in out
        assert "layer" in out and "tolerance" in out and "blocks.0.attn.qkv" in out and "ok" in out
        data = json.loads((tmp_path / "report.json").read_text())
        assert [report["dtype"] for report in data["reports"]] == ["float64", "float32"]
        for report in data["reports"]:
            assert report["subject"]["overrides"] == {"depth": "1", "embed_dim": "16", "num_heads": "2"}
            assert report["subject"]["input"] == [2, 3, 32, 32]
            assert {r["kind"] for r in report["rows"]} >= {"output", "parameter gradient", "step weight"}
        found = Text((tmp_path / "report.html").read_text())
        assert "2 comparisons: every layer agrees" in found.text
        assert "Weights after training steps" in found.text
        stages = {path.name for path in (tmp_path / "reprod" / "inline_deit_digits_float64").iterdir()}
        assert stages == {
            f"{s}_{f}.npy" for s in ("forward", "loss", "losses", "metric") for f in ("paddle", "ref")
        }

    def test_a_difference_is_code_1(self, capsys, monkeypatch):
        from convert.parity import run

        def nudged(*args, create=run.create_pair, **options):
            paddle_model, torch_model = create(*args, **options)
            bias = paddle_model.blocks[0].mlp.fc2.bias
            bias.set_value(bias + 1e-3)
            return paddle_model, torch_model

        monkeypatch.setattr(run, "create_pair", nudged)
        assert main(["verify", "--model", "inline_deit_digits", *SPEC]) == 1
        out = capsys.readouterr().out
        assert "DIFFERS" in out and "first divergence: blocks.0.mlp.fc2 (Linear), output" in out

    def test_weights_bring_their_own_overrides(self, tmp_path, capsys):
        import paddle

        import paddle_inline

        model = paddle_inline.create_model("inline_deit_digits", num_classes=3)
        paddle.save(model.state_dict(), str(tmp_path / "mine.pdparams"))
        assert (
            main(["verify", "--weights", str(tmp_path / "mine.pdparams"), "--json", str(tmp_path / "r")]) == 0
        )
        (report,) = json.loads((tmp_path / "r").read_text())["reports"]
        assert report["model"] == "inline_deit_digits" and report["subject"]["weights"] == "mine.pdparams"
        assert report["subject"]["overrides"]["num_classes"] == "3"
        assert next(r for r in report["rows"] if r["name"] == "head")["shape"] == [32, 3]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model", "inline_diet_tiny"], "did you mean 'inline_deit_tiny'"),
            (["--model", "inline_deit_digits", "--opts", "num_class", "3"], "did you mean 'num_classes'"),
            (["--model", "inline_deit_digits", "--opts", "num_classes"], "'num_classes' has no value"),
            ([], "say what to verify"),
            (["--all", "--model", "inline_deit_tiny"], "say what to verify"),
            (["--all", "--weights", "x"], "--weights are of one model"),
            (["--model", "inline_deit_digits", "--weights", "nowhere.pdparams"], "nowhere.pdparams"),
        ],
    )
    def test_a_mistake_is_one_line(self, arguments, message, capsys):
        assert main(["verify", *arguments]) in (2, 3)
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error

    def test_what_cannot_be_written_is_said_before_anything_runs(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("convert.parity.run.compare", None)
        (tmp_path / "file").write_text("mine")
        for arguments in (
            ["--html", tmp_path],
            ["--json", tmp_path / "file" / "a"],
            ["--reprod-log", tmp_path / "file"],
        ):
            assert main(["verify", "--model", "inline_deit_digits", *map(str, arguments)]) == 6
            assert capsys.readouterr().err.startswith(f"error: {arguments[1]}")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_steps_without_timm_are_refused_before_anything_runs(self, capsys, monkeypatch):
        monkeypatch.setattr("convert.parity.run.compare", None)
        monkeypatch.setitem(sys.modules, "timm.optim", None)
        assert main(["verify", "--model", "inline_deit_digits", "--steps", "2"]) == 2
        assert "python -m paddle_inline doctor" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["--dtype", "float16"], ["--batch", "0"], ["--steps", "many"]])
    def test_a_wrong_option_is_code_2(self, arguments, capsys):
        with pytest.raises(SystemExit) as error:
            main(["verify", "--model", "inline_deit_digits", *arguments])
        assert error.value.code == 2

    def test_torch_that_is_paddle_is_refused(self, monkeypatch):
        """After `paddle.enable_compat()`, `import torch` gives Paddle: a comparison with itself."""
        import sys

        import paddle

        from convert.parity import compare

        monkeypatch.setitem(sys.modules, "torch", paddle)
        with pytest.raises(ValueError, match=r"not PyTorch: paddle.enable_compat\(\) is on"):
            compare("inline_deit_digits")

    def test_what_enable_compat_makes_of_torch_is_refused(self):
        code = """
import paddle
if hasattr(paddle, "enable_compat"):
    paddle.enable_compat()
    from convert.parity.run import check_frameworks
    try:
        check_frameworks()
    except ValueError as error:
        assert "enable_compat" in str(error)
    else:
        raise SystemExit("not refused")
"""
        root = Path(__file__).parents[3]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], cwd=root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def test_a_torch_whose_path_holds_the_word_paddle_is_torch(self, monkeypatch):
        """As in the virtual environment of a clone called paddle-inline."""
        import torch

        from convert.parity.run import check_frameworks

        monkeypatch.setattr(torch, "__file__", "/clones/paddle-inline/.venv/lib/torch/__init__.py")
        check_frameworks()


class TestPaddleAlone:
    """Recorded numbers stand in for PyTorch."""

    GOLDENS = str(Path(__file__).parents[2] / "golden" / "inline")

    @pytest.fixture(autouse=True)
    def no_torch(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.setenv("COLUMNS", "150")

    def test_a_model_and_its_page(self, tmp_path, capsys):
        arguments = ["verify", "--golden", self.GOLDENS, "--model", "inline_deit_tiny"]
        assert main([*arguments, "--html", str(tmp_path / "page.html")]) == 0
        out = capsys.readouterr().out
        assert "blocks.11.attn" in out and "parameter gradient pos_embed" in out
        assert (
            "inline_deit_tiny float64: every layer agrees with recorded numbers" in out
            and "PyTorch" not in out
        )
        assert "golden inline_deit_t" in Text((tmp_path / "page.html").read_text()).text

    def test_a_wrong_model_is_code_1(self, monkeypatch):
        from paddle_inline.layers.attention import inline

        monkeypatch.setattr(inline, "mean_tokens", lambda x: x[:, 1:].mean(axis=1))
        arguments = ["verify", "--golden", self.GOLDENS, "--model", "inline_deit_tiny", "--dtype", "float32"]
        assert main(arguments) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model", "inline_deit_digits"], "--model with one of inline_cswin_base"),
            (["--model", "inline_deit_tiny", "--steps", "3"], "leave out --steps"),
            ([], "say what to verify"),
        ],
    )
    def test_a_mistake_is_one_line(self, arguments, message, capsys):
        assert main(["verify", "--golden", self.GOLDENS, *arguments]) == 2
        assert message in capsys.readouterr().err

    def test_a_folder_without_goldens(self, tmp_path, capsys):
        assert main(["verify", "--golden", str(tmp_path), "--all"]) == 3
        assert "there is no manifest.json" in capsys.readouterr().err
