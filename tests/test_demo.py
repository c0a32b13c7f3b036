"""make demo: its verdict, and its table; the commands it runs have tests of their own."""

import json

import pytest
from rich.console import Console

import demo


def row(name, error=1e-12, tolerance=1e-9, kind="output"):
    return {
        "kind": kind,
        "name": name,
        "max_rel": error,
        "tolerance": tolerance,
        "passed": error <= tolerance,
    }


def reports(error=1e-12):
    return [
        {
            "dtype": dtype,
            "rows": [
                row("blocks.0.mlp", error),
                row(""),
                row("head", kind="output gradient"),
                row("head.weight", 1e-10, kind="parameter gradient"),
            ],
        }
        for dtype in ("float32", "float64")
    ]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The demo's commands replaced: what each of them leaves behind, and the codes they end with."""
    state = {"accuracy": 97.8, "error": 1e-12, "codes": [0, 0, 0], "commands": []}
    monkeypatch.chdir(tmp_path)

    def run(command, quiet=False):
        state["commands"].append(command)
        demo.RUN.mkdir(parents=True, exist_ok=True)
        if command.startswith("train_paddle.py"):
            lines = [{"step": 1, "loss": 2.3}, {"top1": 12.5}, {"top1": state["accuracy"]}, {"top1": 50.0}]
            (demo.RUN / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        elif command.startswith("-m convert verify"):
            demo.FIGURES.write_text(json.dumps({"reports": reports(state["error"])}))
        return state["codes"][len(state["commands"]) - 1]

    monkeypatch.setattr(demo, "run", run)
    return state


def test_it_trains_converts_verifies_and_says_what_it_made(steps, capsys):
    demo.FOLDER.mkdir(parents=True)
    (demo.FOLDER / "of_an_earlier_run").touch()
    assert demo.main() == 0
    assert [command.split()[0] for command in steps["commands"]] == ["train_paddle.py", "-m", "-m"]
    assert str(demo.TORCH_WEIGHTS) in steps["commands"][2]
    assert not (demo.FOLDER / "of_an_earlier_run").exists()
    out = capsys.readouterr().out
    assert "97.80% of the held-out digits are recognised" in out
    assert "float64: 2 gradients, 0 of them wrong; worst 1.0e-10 of 1e-09 allowed (head.weight)" in out


def test_too_little_learned_is_a_failure(steps, capsys):
    steps["accuracy"] = 96.9
    assert demo.main() == 1
    assert "FAILED: 96.90%" in capsys.readouterr().out


def test_a_layer_that_differs_is_a_failure(steps, capsys):
    steps["error"], steps["codes"] = 1e-3, [0, 0, 1]
    assert demo.main() == 1
    out = capsys.readouterr().out
    assert "1.0e-03" in out
    assert "FAILED: the two frameworks differ" in out


@pytest.mark.parametrize("broken", [0, 1])
def test_a_step_that_fails_ends_the_demo(steps, broken):
    steps["codes"][broken] = 6
    assert demo.main() == 6
    assert len(steps["commands"]) == broken + 1


def test_the_table_has_a_row_for_each_layer_with_both_precisions():
    console = Console(width=120)
    with console.capture() as captured:
        console.print(demo.layer_table(reports()))
    lines = [line for line in captured.get().splitlines() if "1e-09" in line]
    assert [line.split()[1] for line in lines] == ["blocks.0.mlp", "(model)"]
    assert all(line.count("1.0e-12") == 2 and line.count("1e-09") == 2 for line in lines)
