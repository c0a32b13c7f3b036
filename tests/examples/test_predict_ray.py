"""examples/predict_ray.py: each picture is answered once, as `predict` does, however often the program is killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("paddle")

from paddle_inline import create_model, export_model
from paddle_inline.cli.main import main as paddle_inline

PROGRAM = Path(__file__).parents[2] / "examples" / "predict_ray.py"
PICTURES, DAMAGED = 500, 100


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("predict_ray", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an export, 500 pictures, one of them damaged, and what `predict` answers."""
    folder = tmp_path_factory.mktemp("ray")
    names = [f"class {i}" for i in range(10)]
    export_model(
        create_model("inline_deit_digits", depth=1), folder / "DIR", classes=names, log=lambda line: None
    )
    (folder / "pictures").mkdir()
    random = np.random.RandomState(0)
    for i in range(PICTURES):
        pixels = random.randint(0, 256, (28, 28 + i % 5, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i:03d}.png")
    (folder / "pictures" / f"{DAMAGED}.png").write_bytes(b"no picture")
    call = ["predict", str(folder / "pictures"), "--export", str(folder / "DIR"), "--threads", "1"]
    assert paddle_inline([*call, "--json", str(folder / "predict.json")]) == 1
    return folder


def call(place, output, *more):
    options = ["--export", place / "DIR", "--output", output, "--actors", "2", *more]
    return list(map(str, options))


def lines(output):
    return [
        json.loads(line)
        for part in sorted(output.glob("part-*.jsonl"))
        for line in part.read_text().splitlines()
    ]


def same_answers(found, expected):
    assert [one["index"] for one in found] == [one["index"] for one in expected]
    assert [one["name"] for one in found] == [one["name"] for one in expected]
    np.testing.assert_allclose(
        [one["probability"] for one in found], [one["probability"] for one in expected], atol=1e-6
    )


@pytest.mark.full  # Ray starts twice
def test_killed_and_resumed_each_picture_is_answered_once_as_predict_does(place, program, capsys):
    pytest.importorskip("ray")
    output = place / "out"
    arguments = [str(place / "pictures"), *call(place, output, "--partition-size", "50")]
    # a process of its own, since Ray stays in the one that it ran in
    command = [sys.executable, str(PROGRAM), *arguments]
    env = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdout=null, stderr=null, start_new_session=True)
    end = time.monotonic() + 300
    while not list(output.glob("part-*.jsonl")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = {part: (part.stat().st_mtime_ns, part.read_bytes()) for part in output.glob("part-*.jsonl")}
    assert first
    (output / ".part-00009.123.jsonl").write_text("half")  # what a kill can leave behind
    done = subprocess.run(command, env=env, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 1, done.stderr
    assert "1 of them could not be read" in done.stdout
    assert all((part.stat().st_mtime_ns, part.read_bytes()) == kept for part, kept in first.items())
    assert sorted(path.name for path in output.iterdir()) == [
        *(f"part-{i:05d}.jsonl" for i in range(10)),
        "plan.json",
    ]
    answered = lines(output)
    assert [Path(one["image"]).name for one in answered] == [f"{i:03d}.png" for i in range(PICTURES)]
    assert "cannot be read as an image" in answered.pop(DAMAGED)["error"]
    expected = json.loads((place / "predict.json").read_text())["images"]
    expected = [one for one in expected if "classes" in one]
    assert len(answered) == len(expected) == PICTURES - 1
    for found, wanted in zip(answered, expected):
        same_answers(found["classes"], wanted["classes"])
    assert program.main(arguments) == 0  # nothing is left to do
    assert "10 of 10 partitions are there" in capsys.readouterr().out


@pytest.mark.parametrize("struct", [False, True], ids=["bytes", "hub's struct"])
def test_parquet_answers_are_those_of_the_files(place, program, struct):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    files = sorted((place / "pictures").iterdir())[DAMAGED - 3 : DAMAGED + 4]
    data = [file.read_bytes() for file in files]
    images = [{"bytes": one, "path": "x"} for one in data] if struct else data
    table = pyarrow.table({"image": images, "key": [file.name for file in files]})
    write_table(table, place / "shard.parquet", row_group_size=3)
    options = [str(place / "shard.parquet"), "--column", "image", *call(place, place / "unused")]
    arguments = program.parse_arguments([*options, "--key", "key"])
    partitions = program.partitions_of(arguments)
    assert [one["rows"] for one in partitions] == [3, 3, 1]
    folder = place / f"parquet {struct}"
    folder.mkdir()
    classifier = program.Classifier(str(place / "DIR"), str(folder), 1, 5, 2)
    assert [classifier.answer(one) for one in partitions] == [(3, 0), (3, 1), (1, 0)]
    answered = lines(folder)
    assert [one["image"] for one in answered] == [file.name for file in files]
    expected = {
        Path(one["image"]).name: one["classes"]
        for one in json.loads((place / "predict.json").read_text())["images"]
        if "classes" in one
    }
    for one in answered:
        if one["image"] == f"{DAMAGED}.png":
            assert one["error"].startswith("cannot be read as an image")
        else:
            same_answers(one["classes"], expected[one["image"]])
    unnamed = program.partitions_of(program.parse_arguments(options))
    assert [name for one in unnamed for name, _ in program.pictures_of(one, "RGB")] == list("0123456")


def test_other_answers_are_not_mixed(place, program, capsys):
    pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    output = place / "pinned"
    arguments = program.parse_arguments([str(place / "pictures"), *call(place, output)])
    program.check_plan(arguments, program.partitions_of(arguments))
    for more, what in ((["--topk", "3"], "topk"), (["--partition-size", "100"], "pictures and partitions")):
        assert program.main([str(place / "pictures"), *call(place, output, *more)]) == 2
        assert f"holds answers to a call with other {what}" in capsys.readouterr().err
    other = place / "mine"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    assert program.main([str(place / "pictures"), *call(place, other)]) == 2
    assert "is not empty, and no answers of this program" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "no image nothing"),
        (["pictures", "--key", "key"], "--key belongs to --column"),
        (["pictures", "--topk", "0"], "--topk starts at 1"),
        (["pictures/000.png", "--column", "image"], "cannot be read as parquet"),
    ],
)
def test_mistakes_are_one_line(place, program, monkeypatch, capsys, arguments, message):
    pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(place)
    assert program.main([*arguments, *call(place, place / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (place / "none").exists()


def test_a_missing_package_is_named(place, program, monkeypatch, capsys):
    monkeypatch.setattr(program, "find_spec", lambda name: None)
    assert program.main([str(place / "pictures"), *call(place, place / "none")]) == 2
    assert "pip install 'paddle-inline[ray]'" in capsys.readouterr().err
