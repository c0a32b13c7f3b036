"""The faults of `make test-mutations` can all be planted, and the program that plants them tells what is noticed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import run  # noqa: E402
from faults import Fault, FaultError, planted, problems, read_faults, read_list  # noqa: E402

sys.path.remove(str(HERE))


def test_every_planted_text_is_found_exactly_once():
    """A change of the product moves the list with it."""
    faults = read_faults()
    assert problems(faults, ROOT) == []
    folders = Counter("/".join(fault.file.split("/")[:2]) for fault in faults if fault.file.count("/"))
    for part in ("training", "data", "weights", "inference"):
        assert folders[f"paddle_inline/{part}"] >= 20, part
    assert sum(count for name, count in folders.items() if name.startswith("convert")) >= 30
    assert len(set(map(str, faults))) == len(faults) >= 150


TREE = {
    "m.py": "def larger(a, b):\n    return a > b\n\n\ndef twice(a):\n    return 2 * a\n",
    "test_m.py": "import m\n\n\ndef test_larger():\n    assert m.larger(2, 1) and not m.larger(1, 2)\n",
    "test_wrong.py": "def test_wrong():\n    assert False\n",
}
LIST = """# two faults: what is larger, and what is as large
file m.py
tests test_m.py

- a > b
+ a < b

- a > b
+ a >= b
"""
PROGRAM = (
    "import sys, pathlib, run; sys.exit(run.main(sys.argv[3:], *map(pathlib.Path, sys.argv[1:3]), load=()))"
)


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        (tmp_path / "tree" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    (tmp_path / "lists").mkdir()
    return tmp_path


def start(tree, text, *arguments):
    (tree / "lists" / "toy.txt").write_text(text)
    command = [sys.executable, "-c", PROGRAM, tree / "tree", tree / "lists", *arguments]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_one_fault_is_noticed_and_one_is_not(tree):
    done = start(tree, LIST)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "noticed  toy.txt:5 m.py: a > b => a < b",
        "SURVIVED toy.txt:8 m.py: a > b => a >= b",
        *("", "   1 of   2   50%  m.py", "   1 of   2   50%  all"),
    ]
    assert {path.name: path.read_text() for path in (tree / "tree").iterdir()} == TREE


@pytest.mark.parametrize(("noticed", "code"), [(20, 0), (19, 0), (18, 1), (0, 1)])
def test_95_percent_are_to_be_noticed(monkeypatch, capsys, noticed, code):
    faults = [Fault("m/n.py", "a", "b", ())] * 20
    monkeypatch.setattr(run, "read_faults", lambda folder: faults)
    monkeypatch.setattr(run, "run", lambda *given: [(fault, i < noticed) for i, fault in enumerate(faults)])
    assert run.main([], load=()) == code
    assert f"{noticed} of  20" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_tests_that_fail_by_themselves_notice_nothing(tree):
    done = start(tree, LIST.replace("test_m.py", "test_wrong.py"))
    assert done.returncode == 2 and "test_wrong.py fail without a fault" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- a > b\n+ a <", "- a > c\n+ a <", "toy.txt:5 m.py: a > c => a < b: the text occurs 0 times"),
        ("- a > b\n+ a <", "- a\n+ a <", "the text occurs 5 times"),
        ("+ a < b", "+ a <", "not Python any more"),
        ("test_m.py", "test_n.py", "no such tests ['test_n.py']"),
        ("file m.py", "file n.py", "n.py"),
    ],
)
def test_a_fault_that_cannot_be_planted_is_said(tree, old, new, message):
    (tree / "lists" / "toy.txt").write_text(LIST.replace(old, new))
    found = problems(read_faults(tree / "lists"), tree / "tree")
    assert message in "\n".join(found)


def test_what_is_no_list(tmp_path):
    (tmp_path / "a.txt").write_text("file m.py\nchange a to b\n")
    with pytest.raises(FaultError, match=r"a\.txt:2: 'change a to b' is no line of a list"):
        read_list(tmp_path / "a.txt")


def test_a_text_of_several_lines_is_replaced_or_taken_out(tmp_path):
    (tmp_path / "a.txt").write_text(
        "file m.py\ntests t.py\n\n-     a = 1\n-     b = 2\n+     b = 3\n\n- c = 1\n"
    )
    first, second = read_list(tmp_path / "a.txt")
    source = "if True:\n    a = 1\n    b = 2\nc = 1\n"
    assert planted(source, first) == "if True:\n    b = 3\nc = 1\n"
    assert planted(source, second) == "if True:\n    a = 1\n    b = 2\n\n"
