"""python -m paddle_inline predict: tables, JSON, pages, and what a user's mistake looks like."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_inline import create_model, save_pretrained
from paddle_inline.cli import predict
from paddle_inline.cli.main import main
from paddle_inline.cli.output import stdout_to_null
from paddle_inline.inference import backends, predictor
from paddle_inline.inference.backends import NO_BFLOAT16
from paddle_inline.inference.export import export_model
from paddle_inline.utils.errors import UserError
from paddle_inline.utils.streams import escaped, readable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_model(create_model("inline_deit_digits", depth=1), folder, log=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("a.png", "b.JPG", "c.png")):
        pixels = np.random.RandomState(i).randint(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def call(*words):
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return predict.run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_table_json_and_page(exported, photos, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("not an image")
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    code = call(photos, bad, "--export", exported, "--topk", 2, "--json", out, "--html", html)
    output = capsys.readouterr()
    assert code == 1 and "bad.png cannot be read" in output.err
    assert output.err.startswith("inline_deit_digits by Paddle Inference on cpu in fp32\n")
    assert "a.png" in output.out and "ReduceMean" not in output.out
    answers = json.loads(out.read_text())
    assert answers["unreadable"] == [str(bad)]
    assert [len(row["classes"]) for row in answers["images"]] == [2, 2, 2]
    assert html.read_text().count("<figure>") == 3
    assert call(photos / "a.png", "--export", exported, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "inline_deit_digits"


def test_the_command_takes_a_folder_of_the_hub(photos, tmp_path, capsys):
    save_pretrained(create_model("inline_deit_digits", depth=1), tmp_path / "m", classes=list("abcdefghij"))
    assert call(photos / "a.png", "--weights", tmp_path / "m", "--topk", 1, "--json", "-") == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers["model"] == "inline_deit_digits"
    assert answers["images"][0]["classes"][0]["name"] in "abcdefghij"
    with pytest.raises(UserError, match="m is of inline_deit_digits, not of soft_tiny: leave --model out"):
        call(photos, "--weights", tmp_path / "m", "--model", "soft_tiny")


def test_the_command_wants_a_model(photos):
    with pytest.raises(ValueError, match="needs --export DIR, or --weights"):
        call(photos)


@pytest.mark.parametrize("more", [(), ("--html",), ("--json",), ("--html", "--json")], ids=" ".join)
@pytest.mark.parametrize("threads", [1, 2])
def test_one_image_a_thread_is_in_memory_at_a_time(exported, tmp_path, monkeypatch, threads, more):
    """However many there are, and whatever is written: memory does not grow with the number of files."""
    made, alive, lock = [], [], threading.Lock()

    def read(path, mode):
        image = Image.new("RGB", (400, 300))
        with lock:
            made.append(weakref.ref(image))
            alive.append(sum(reference() is not None for reference in made))
        return image

    for i in range(11):
        (tmp_path / f"{i}.png").touch()
    monkeypatch.setattr(predict, "read_image", read)
    outputs = [word for option in more for word in (option, tmp_path / option.strip("-"))]
    words = ("--export", exported, "--batch-size", 4, "--threads", threads, *outputs)
    assert call(tmp_path / "*.png", *words) == 0
    assert len(alive) == 11 and set(alive) <= set(range(1, threads + 1))


def test_threads_work_ahead_by_so_many_and_in_order():
    started, slow = [], threading.Event()

    def work(item):
        started.append(item)
        if item == 0:
            slow.wait(10)  # the others are done before it
        return -item

    found = predict.in_order(work, range(20), threads=2, ahead=6)
    threading.Timer(0.05, slow.set).start()
    assert next(found) == 0
    assert max(started) <= 6  # those ahead, and one in the place of what is taken
    assert list(found) == [-item for item in range(1, 20)]
    assert list(predict.in_order(work, [], 2, 6)) == []


def test_what_fails_in_a_thread_ends_the_work_and_starts_no_more():
    started = []

    def work(item):
        started.append(item)
        if item == 3:
            raise OSError("of 3")
        return item

    with pytest.raises(OSError, match="of 3"):
        list(predict.in_order(work, range(1000), threads=1, ahead=2))
    assert len(started) < 10


def test_what_is_kept_of_an_image_is_small(exported, tmp_path, monkeypatch):
    for i in range(48):
        (tmp_path / f"{i}.png").touch()
    monkeypatch.setattr(predict, "read_image", lambda path, mode: Image.new(mode, (400, 300)))
    words = (tmp_path / "*.png", "--export", exported, "--json", tmp_path / "j", "--html", tmp_path / "h")
    call(*words)  # what is loaded once
    tracemalloc.start()
    try:
        call(*words)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * 400 * 300 * 3 / 4  # of the pixels of all images together


ODD = (b"\xb5\xe7.png", "\u7535\u56fe \U0001f600.png".encode(), b"a\nb.png", b"<b>&.png")


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name in ODD:
        try:
            Image.new("RGB", (9, 9)).save(open(os.fsencode(folder) + b"/" + name, "wb"), "png")  # noqa: SIM115
        except (OSError, UnicodeError):
            pytest.skip("this file system takes UTF-8 alone")
    return folder


class Stream(io.TextIOWrapper):
    """A standard output of some encoding, as strict as Python makes it."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding, "strict")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "gbk"])
@pytest.mark.parametrize("output", ["table", "-", "file"])
def test_any_name_goes_to_any_output(exported, odd_names, tmp_path, monkeypatch, encoding, output):
    monkeypatch.setattr(sys, "stdout", Stream(encoding))
    more = {"table": (), "-": ("--json", "-"), "file": ("--json", tmp_path / "j", "--html", tmp_path / "h")}[
        output
    ]
    words = [str(word) for word in ("predict", odd_names, "--export", exported, "--topk", 1, *more)]
    assert main(words) == 0
    printed = sys.stdout.text()
    assert sys.stdout.errors == "strict"  # as it was
    if output == "table":
        lines = printed.splitlines()
        assert len(lines) == 5 and sum("\\udcb5\\udce7.png" in line for line in lines) == 1
        assert sum(r"a\nb.png" in line for line in lines) == 1
        return
    text = printed if output == "-" else (tmp_path / "j").read_text("utf-8")
    names = [row["image"] for row in json.loads(text)["images"]]
    assert {os.path.basename(os.fsencode(name)) for name in names} == set(ODD)
    if output == "file":
        page = (tmp_path / "h").read_text("utf-8")
        assert r"\udcb5\udce7.png" in page and "&lt;b&gt;&amp;.png" in page and "<b>&" not in page


def test_names_in_utf_8_are_read_where_the_system_has_another_encoding():
    name = "\u7535".encode().decode("ascii", "surrogateescape")
    assert (readable(name), escaped(name), escaped("\udcb5 \u7535")) == ("\u7535", "\u7535", "\\udcb5 \u7535")


def test_class_names_that_are_no_utf_8(exported, photos, tmp_path, capsys):
    weights = tmp_path / "named"
    shutil.copytree(exported, weights)
    card = json.loads((weights / "card.json").read_text())
    card["classes"] = ["\udcb5\udce7", "<i>", "c\td", *"3456789"]
    (weights / "card.json").write_text(json.dumps(card))
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    assert call(photos, "--export", weights, "--topk", 10, "--json", out, "--html", html) == 0
    assert json.loads(out.read_text())["images"][0]["classes"]
    assert r"\udcb5\udce7" in capsys.readouterr().out and r"\udcb5\udce7" in html.read_text()


def test_a_run_that_fails_leaves_no_file_and_the_earlier_one(exported, photos, tmp_path, monkeypatch):
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    html.write_text("earlier")

    def fails(self, images):
        raise RuntimeError("device lost")

    monkeypatch.setattr(predict.Predictor, "logits", fails)
    with pytest.raises(RuntimeError, match="device lost"):
        call(photos, "--export", exported, "--json", out, "--html", html)
    assert [path.name for path in tmp_path.iterdir()] == ["o.html"]
    assert html.read_text() == "earlier"


def test_json_of_no_readable_image_is_whole(exported, tmp_path, capsys):
    (tmp_path / "a.png").write_text("no image")
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    assert call(tmp_path / "a.png", "--export", exported, "--json", out, "--html", html) == 1
    facts = {
        "model": "inline_deit_digits",
        "engine": "Paddle Inference",
        "device": "cpu",
        "precision": "fp32",
    }
    assert json.loads(out.read_text()) == {**facts, "images": [], "unreadable": [str(tmp_path / "a.png")]}
    assert "could not be read: a.png" in html.read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("asked", "native", "taken", "notes"),
    [
        ("fp32", False, "fp32", []),
        ("bf16", False, "fp32", [f"note: {NO_BFLOAT16}"]),
        ("bf16", True, "bf16", []),
        ("auto", False, "fp32", ["note: precision fp32: this processor does not multiply bf16"]),
        (
            "auto",
            True,
            "bf16",
            ["note: precision bf16: the export's classes in bf16 were those in fp32 for 16 of 16 images"],
        ),
    ],
)
def test_the_precision_that_is_taken_is_said_in_text_and_json(
    exported, photos, tmp_path, monkeypatch, capsys, asked, native, taken, notes
):
    shutil.copytree(exported, tmp_path / "e")
    card = json.loads((exported / "card.json").read_text())
    card["files"]["onnx"], card["bf16"] = "model.onnx", {"images": 16, "agree": 16}
    (tmp_path / "e" / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(predictor, "multiplies_bfloat16", lambda: native)
    monkeypatch.setattr(backends, "multiplies_bfloat16", lambda: native)
    monkeypatch.setattr(backends, "_has_openvino", lambda: True)
    monkeypatch.setattr(predict.Predictor, "logits", lambda self, images: np.zeros((len(images), 10)))
    words = ["--export", tmp_path / "e", "--engine", "openvino", "--precision", asked, "--json", "-"]
    assert main([str(word) for word in ("predict", photos, *words)]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["precision"] == taken
    lines = output.err.splitlines()
    assert f"inline_deit_digits by OpenVINO on cpu in {taken}" in lines
    assert [line for line in lines if line.startswith("note:")] == notes and len(lines) == 1 + len(notes)


def test_json_looks_as_python_writes_it(exported, photos, tmp_path):
    out = tmp_path / "o.json"
    call(photos, "--export", exported, "--json", out)
    assert out.read_text() == json.dumps(json.loads(out.read_text()), indent=2, ensure_ascii=False) + "\n"


def test_outputs_may_be_streams(exported, photos, tmp_path):
    assert call(photos, "--export", exported, "--json", os.devnull, "--html", os.devnull) == 0
    assert not Path(os.devnull).is_file()


def test_the_standard_output_by_its_path_is_json_alone(exported, photos, capsys):
    assert call(photos, "--export", exported, "--json", "/dev/stdout") == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 3


def test_a_closed_standard_output_is_no_failure(exported, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    words = ["predict", str(photos), "--export", str(exported), "--json", str(tmp_path / "o.json")]
    assert main(words) == 0 and sys.stdout is None
    assert len(json.loads((tmp_path / "o.json").read_text())["images"]) == 3


def test_a_reader_that_leaves_early_stops_no_file(exported, photos, tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert call(photos, "--export", exported, "--json", tmp_path / "o.json") == 0
        monkeypatch.undo()
    assert len(json.loads((tmp_path / "o.json").read_text())["images"]) == 3


def test_a_page_without_jinja2_is_refused_before_anything_runs(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match="pip install jinja2"):
        call(photos, "--export", "nowhere", "--html", "page.html")


def test_standard_output_is_json_alone(exported, photos):
    """Paddle's kernels print at their first run, which the program keeps out of its own output."""
    command = [sys.executable, "-m", "paddle_inline", "predict", str(photos), "--export", str(exported)]
    done = subprocess.run([*command, "--json", "-"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "inline_deit_digits by Paddle Inference on cpu in fp32\n")
    assert len(json.loads(done.stdout)["images"]) == 3


def test_the_process_s_output_is_silenced_for_a_while(capfd):
    with stdout_to_null():
        os.write(1, b"from C++")
    print("after")
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--topk", 0), "--topk is 0; it must be at least 1"),
        (("--device", "gpux"), "device 'gpux' must be cpu, gpu or gpu:N"),
        (("--json", "nowhere/o.json"), r"nowhere/o\.json cannot be written: No such file or directory"),
        (("--classes", "nowhere"), "no file nowhere"),
        (("--json", "./o", "--html", "o"), r"--json and --html are both \./o: give them a file each"),
        (("--model", "soft_tiny"), "exclude each other"),
    ],
)
def test_a_mistake_is_a_users_error(exported, photos, words, message):
    with pytest.raises(UserError, match=message):
        call(photos, "--export", exported, *words)


@pytest.mark.parametrize(
    ("engine", "precision", "gpus", "device"),
    [
        ("auto", "fp32", 1, "gpu"),
        ("paddle", "fp32", 2, "gpu"),
        ("auto", "fp32", 0, "cpu"),
        ("openvino", "fp32", 1, "cpu"),
        ("auto", "bf16", 1, "cpu"),
    ],
)
def test_a_gpu_is_taken_where_paddle_has_one_and_nothing_asks_for_the_cpu(
    monkeypatch, engine, precision, gpus, device
):
    monkeypatch.setattr("paddle.device.is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr("paddle.device.cuda.device_count", lambda: gpus)
    assert predict.default_device(engine, precision) == device
    monkeypatch.setattr("paddle.device.is_compiled_with_cuda", lambda: False)
    assert predict.default_device(engine, precision) == "cpu"
