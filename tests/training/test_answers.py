"""What a model answers, by class: the tables, the pictures, and the answers of all ranks."""

import csv
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from PIL import Image

import train_paddle
from paddle_inline.training import answers as module
from paddle_inline.training import lettering, plots
from paddle_inline.training.answers import Answers, confusion_of, mistakes_of, write_report
from paddle_inline.utils.errors import FileAccessError

NAMES = ("cat", "a,b", "猫")
LABELS = [0, 0, 0, 1, 1, 2]
LOGITS = [[3, 0, 0], [0, 4, 0], [0, 0, 1], [0, 9, 0], [5, 0, 0], [0, 0, 0.5]]


class Source:
    """Six images of three classes."""

    classes, labels = NAMES, LABELS

    def __len__(self):
        return len(self.labels)

    def name(self, index):
        return f"DATA/{index}.png" if index != 4 else "DATA/\udcb5.png"


def loader(*batches):
    samples = SimpleNamespace(load=lambda key: (np.full((3, 8, 8), key[1] / 6), LABELS[key[1]], 0))
    return SimpleNamespace(samples=samples, batches=[[(0, index) for index in batch] for batch in batches])


def answered(*batches, labels=LABELS, outputs=3):
    found = Answers(loader(*batches), len(labels))
    for batch in batches:
        logits = [LOGITS[index] + [-9.0] * (outputs - 3) for index in batch]
        found.note(paddle.to_tensor(logits, "float32"), paddle.to_tensor([labels[index] for index in batch]))
    return found


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_answers_belong_to_their_images_whatever_the_batches():
    found = answered([3, 0], [5, 1, 2], [4])
    assert found.numbers.tolist() == [0, 1, 2, 1, 0, 2] and found.outputs == 3
    expected = [np.exp(max(row)) / np.exp(row).sum() for row in LOGITS]
    assert found.certainty == pytest.approx(expected, rel=1e-6)
    assert confusion_of(found, LABELS).tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert mistakes_of(found, LABELS).tolist() == [4, 1, 2]  # the most certain first


def test_large_logits_have_a_certainty():
    found = Answers(loader([0]), 1)
    found.note(paddle.to_tensor([[1e4, 0.0]]), paddle.to_tensor([1]))
    assert found.certainty.tolist() == [1.0]


def test_an_image_that_cannot_be_read_does_not_count():
    found = answered([0, 1, 2, 3, 4, 5], labels=[0, -1, 0, 1, 1, 2])
    assert found.numbers.tolist() == [0, -1, 2, 1, 0, 2]
    assert confusion_of(found, LABELS).sum() == 5 and mistakes_of(found, LABELS).tolist() == [4, 2]


def test_the_answers_of_all_ranks_are_brought_together(monkeypatch):
    """Two ranks, each with every second image; the sum of what they noted is what one rank notes of all."""
    ranks = [answered([0, 2], [4]), answered([1, 3, 5])]
    ranks[1].outputs = 0  # as of a rank without an image
    arrays = {"numbers": [], "certainty": []}

    def reduce(values, world, largest=False):
        assert world == 2
        if largest:
            return np.maximum(values, 3)
        kind = "numbers" if values.dtype == np.int64 else "certainty"
        arrays[kind].append(values)
        return sum(arrays[kind])

    monkeypatch.setattr(module, "all_reduce_array", reduce)
    for rank in ranks:
        rank.gather(2)
    whole = answered(range(6))
    assert ranks[1].numbers.tolist() == whole.numbers.tolist() and ranks[1].outputs == 3
    assert ranks[1].certainty.tolist() == whole.certainty.tolist()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    lines = write_report(
        folder, answered(range(6)), Source(), loader(range(6)), mean=[0.0] * 3, std=[1.0] * 3
    )
    return folder, lines


def test_the_tables(written):
    folder, _ = written
    assert table(folder / "classes.csv") == [
        ["class", "name", "images", "correct", "top1", "answered", "precision", "mistaken_for", "times"],
        ["0", "cat", "3", "1", "33.33", "2", "50.00", "a,b", "1"],
        ["1", "a,b", "2", "1", "50.00", "2", "50.00", "cat", "1"],
        ["2", "猫", "1", "1", "100.00", "2", "50.00", "", "0"],
    ]
    assert table(folder / "confusion.csv") == [
        ["label, then the answers", "cat", "a,b", "猫"],
        ["cat", "1", "1", "1"],
        ["a,b", "1", "1", "0"],
        ["猫", "0", "0", "1"],
    ]
    rows = table(folder / "mistakes.csv")
    assert [row[:3] for row in rows] == [
        ["image", "label", "answer"],
        ["DATA/\\udcb5.png", "a,b", "cat"],
        ["DATA/1.png", "cat", "a,b"],
        ["DATA/2.png", "cat", "猫"],
    ]
    assert float(rows[1][3]) == pytest.approx(np.exp(5) / (np.exp(5) + 2), abs=1e-6)


def test_the_lines_for_the_log(written):
    assert written[1] == [
        "lowest accuracies: cat 33.33% of 3, a,b 50.00% of 2",
        "most often taken: cat for a,b (1), cat for 猫 (1), a,b for cat (1)",
    ]


def test_the_pictures(written):
    pytest.importorskip("matplotlib")
    for name in ("confusion.png", "mistakes.png"):
        assert Image.open(written[0] / name).size[0] > 400


def test_without_a_mistake_there_is_no_picture_of_one(tmp_path):
    (tmp_path / "mistakes.png").write_text("of an earlier evaluation")
    right = answered([0, 3, 5])
    lines = write_report(tmp_path, right, Source(), loader([0, 3, 5]), mean=[0.0] * 3, std=[1.0] * 3)
    assert lines == ["every answer is right"] and not (tmp_path / "mistakes.png").exists()
    assert len(table(tmp_path / "mistakes.csv")) == 1


def test_outputs_beyond_the_names_are_shown_where_they_are_answered(tmp_path):
    found = answered(range(6), outputs=1000)
    found.numbers[0] = 700
    write_report(tmp_path, found, Source(), loader(range(6)), mean=[0.0] * 3, std=[1.0] * 3)
    assert table(tmp_path / "confusion.csv")[0] == ["label, then the answers", *NAMES, "class 700"]
    assert table(tmp_path / "classes.csv")[4][:4] == ["700", "class 700", "0", "0"]


def test_a_thousand_classes_are_drawn_as_those_that_are_confused_most(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    matrix = np.diag(np.full(1000, 50))
    matrix[7, 900], matrix[3, 4] = 9, 8
    shown = []
    monkeypatch.setattr(plots, "drawn", lambda name, number: shown.append(number) or name)
    plots.confusion(matrix, [f"n{i}" for i in range(1000)], list(range(1000)), tmp_path / "a.png")
    assert len(shown) == plots.MOST_CLASSES and {3, 4, 7, 900} <= set(shown) and shown == sorted(shown)


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_are_drawn(tmp_path, classes):
    pytest.importorskip("matplotlib")
    plots.confusion(
        np.zeros((classes, classes), int), list("ab")[:classes], range(classes), tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").exists()


def test_what_drawing_raises_is_a_line_and_the_tables_are_there(tmp_path, monkeypatch):
    def raises(*args, **kwargs):
        raise IndexError("no colour")

    monkeypatch.setattr(plots, "confusion", raises)
    monkeypatch.setattr(plots, "image_grid", raises)
    found = answered(range(6))
    lines = write_report(tmp_path, found, Source(), loader(range(6)), mean=[0.0] * 3, std=[1.0] * 3)
    assert lines[2:] == ["no confusion.png: IndexError: no colour", "no mistakes.png: IndexError: no colour"]
    assert {path.name for path in tmp_path.iterdir()} == {"classes.csv", "confusion.csv", "mistakes.csv"}


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "classes.csv").mkdir()
    with pytest.raises(FileAccessError, match=r"classes\.csv cannot be written"):
        write_report(tmp_path, answered([0]), Source(), loader([0]), mean=[0.0] * 3, std=[1.0] * 3)


def test_names_whose_letters_no_font_has_are_their_numbers():
    pytest.importorskip("matplotlib")
    assert lettering.drawn("cat", 3) == "cat" and lettering.drawn("\U000f0000", 3) == "class 3"
    assert lettering.drawn("x" * 300, 3) == "x" * (lettering.LONGEST_NAME - 1) + "…"


def test_images_are_drawn_from_all_classes():
    labels = [0] * 50 + [1] * 2 + [2] * 50
    assert plots.spread(labels, 8) == [0, 1, 2, 50, 51, 52, 53, 54]
    assert [labels[i] for i in plots.spread(labels, 2)] == [0, 1]
    assert plots.spread(list(range(1000)), 4) == [0, 250, 500, 750]
    assert plots.spread([], 4) == [] and plots.spread([5], 4) == [0]


@pytest.mark.parametrize("given", [["--report", "a"], ["--metrics", "a"]])
def test_a_report_goes_with_an_evaluation(capsys, given):
    assert train_paddle.main(given) == 2
    assert f"{given[0]} goes with --eval" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    given = ["--eval", "--report", str(tmp_path / "file" / "a")]
    assert train_paddle.main(given) == 2
    assert "cannot be made" in capsys.readouterr().err
