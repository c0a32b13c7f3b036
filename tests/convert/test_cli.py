"""The command line: it explains itself, answers with its exit codes, and converts folders."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert import conversion
from convert.__main__ import main
from convert.errors import EXIT_CODES, exit_code

SMALL = {"depth": 1, "embed_dim": 8, "num_heads": 2}


def save(path, **overrides):
    torch.save(torch_ref.create_model("inline_deit_digits", **{**SMALL, **overrides}).state_dict(), path)
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["inspect", "to-paddle", "to-torch", "to-hub"])
def test_help_names_every_exit_code(capsys, command):
    with pytest.raises(SystemExit) as ended:
        run(command, "--help")
    assert ended.value.code == 0
    assert EXIT_CODES in capsys.readouterr().out


def test_help_loads_no_framework():
    code = "import sys; from convert.__main__ import build_parser; build_parser().format_help();"
    code += "assert not {'paddle', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_to_paddle_and_back(tmp_path, capsys):
    path = save(tmp_path / "a.pth")
    assert run("to-paddle", path, tmp_path / "m.pdparams") == 0
    said = capsys.readouterr().out
    assert "model: create_model('inline_deit_digits', embed_dim=8, depth=1, num_heads=2), from names" in said
    assert "verified: forward pass in float64" in said
    assert f"paddle_inline.create_model(weights='{tmp_path / 'm.pdparams'}') builds it" in said
    assert run("to-torch", tmp_path / "m.pdparams", tmp_path / "b.pth", "--no-verify") == 0
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options(tmp_path):
    path = save(tmp_path / "a.pth")
    options = ["--img-size", 48, 32, "--num-classes", 3, "--no-verify", "--opts", "kernel_function", "relu"]
    assert run("to-paddle", path, tmp_path / "m.pdparams", *options) == 0
    spec = paddle_inline.create_model(weights=tmp_path / "m.pdparams").spec
    assert (spec.img_size, spec.num_classes, spec.kernel_function) == ((48, 32), 3, "relu")


def test_inspect(tmp_path, capsys):
    weights = torch_ref.create_model("inline_deit_digits", **SMALL).state_dict()
    torch.save({"model": weights, "epoch": 7, "optimizer": {}}, tmp_path / "a.pth")
    assert run("inspect", tmp_path / "a.pth") == 0
    said = capsys.readouterr().out
    assert "torch, 24 tensors; taking its weights under 'model'" in said
    assert "create_model('inline_deit_digits', embed_dim=8, depth=1, num_heads=2)" in said
    assert "no tensor shows, so taken from inline_deit_digits: kernel_function='identity'" in said
    assert "epoch=7" in said
    assert run("inspect", tmp_path / "a.pth", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["overrides"] == SMALL
    assert facts["numbers"] == sum(value.numel() for value in weights.values())
    assert (facts["side"], facts["dtypes"], facts["taken"]) == ("torch", ["float32"], "model")


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["{folder}/none.pth", "{folder}/m.pdparams"], 3, "no file"),
        (["{folder}/a.pth", "{folder}/m.onnx"], 2, "must end in"),
        (["{folder}/a.pth", "{folder}/a.pth/m.pdparams"], 2, "is a file, not a folder"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--take", "ema"], 2, "no averaged weights"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--model", "inline_deit"], 2, "did you mean"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--opts", "depht", "3"], 2, "did you mean 'depth'"),
        (
            ["{folder}/a.pth", "{folder}/m.pdparams", "--opts", "depht=3", "embed_dim=16"],
            2,
            "did you mean 'depth'",
        ),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--opts", "depth"], 2, "no value"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--img-size", "30"], 2, "must divide by 4"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--img-size", "1", "2", "3"], 2, "one side or height"),
        (["{folder}/a.pth", "{folder}/m.pdparams", "--model", "inline_pvt_tiny"], 4, "InLinePVT"),
    ],
)
def test_mistakes_have_their_codes(tmp_path, capsys, arguments, code, message):
    save(tmp_path / "a.pth")
    assert run("to-paddle", *(text.format(folder=tmp_path) for text in arguments)) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_an_output_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    path = save(tmp_path / "a.pth")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convert.conversion.write_weights", full)
    assert run("to-paddle", path, tmp_path / "m.pdparams", "--no-verify") == 6
    assert "No space left" in capsys.readouterr().err


def test_an_error_of_ours_is_not_dressed_up_as_the_user_s():
    assert exit_code(ZeroDivisionError()) is None
    assert exit_code(ValueError("Paddle's own")) is None
    assert exit_code(OSError("CUDA error")) is None


def test_errors_of_torch_ref_have_the_same_codes(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"PK")
    for path, code in ((tmp_path / "none.pth", 3), (tmp_path / "damaged.pth", 3)):
        with pytest.raises(ValueError) as caught:
            torch_ref.create_model("inline_deit_digits", weights=path)
        assert exit_code(caught.value) == code
    with pytest.raises(ValueError) as caught:
        torch_ref.create_model("inline_deit")
    assert exit_code(caught.value) == 2


@pytest.mark.parametrize("error", ["ValueError('a shape')", "OSError('(External) CUDA error(700)')"])
def test_a_bug_shows_its_stack(tmp_path, error):
    """A bug planted in the middle of a conversion: the program ends with 1 and says where."""
    code = "import convert.identify as m, sys; from convert.__main__ import main\n"
    code += f"def planted(*_): raise {error}\n"
    code += "m.recognise = planted\nsys.exit(main(sys.argv[1:]))"
    arguments = [save(tmp_path / "a.pth"), tmp_path / "m.pdparams", "--no-verify"]
    done = subprocess.run(
        [sys.executable, "-c", code, "to-paddle", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "in planted" in done.stderr and "in open_checkpoint" in done.stderr
    assert not (tmp_path / "m.pdparams").exists()


def test_one_file_s_bug_does_not_end_the_others(tmp_path, capsys, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.pth", "b.pth"):
        save(source / name)
    open_checkpoint = conversion.open_checkpoint

    def planted(path, options):
        if path.name == "a.pth":
            raise KeyError("planted")
        return open_checkpoint(path, options)

    monkeypatch.setattr(conversion, "open_checkpoint", planted)
    assert run("to-paddle", source, tmp_path / "out", "--no-verify") == 1
    said = capsys.readouterr()
    assert "1 of 2 converted" in said.out and "error 1: 'planted'" in said.out
    assert "Traceback" in said.err and "in planted" in said.err
    assert [path.name for path in (tmp_path / "out").glob("*.pdparams")] == ["b.pdparams"]


def test_a_folder_in_one_call(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    save(source / "first.pth")
    save(source / "second.pt", num_classes=3)
    (source / "broken.pth").write_bytes(b"PK\3\4 and no more")
    torch.save({"conv1.weight": torch.ones(3)}, source / "stranger.pth")
    (source / "notes.txt").write_text("not a checkpoint")
    assert run("to-paddle", source, out, "--no-verify") == 4
    said = capsys.readouterr().out
    assert "2 of 4 converted" in said
    assert "error 3" in said
    assert "error 4" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "first.pdparams",
        "first.pdparams.json",
        "second.pdparams",
        "second.pdparams.json",
    ]
    assert paddle_inline.create_model(weights=out / "second.pdparams").spec.num_classes == 3


def test_shards_in_a_folder_are_one_checkpoint(tmp_path, capsys):
    from safetensors.torch import save_file

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    weights = torch_ref.create_model("inline_deit_digits", **SMALL).state_dict()
    names = {name: f"m-{i % 2}.safetensors" for i, name in enumerate(weights)}
    for file in set(names.values()):
        save_file({name: weights[name] for name in names if names[name] == file}, source / file)
    (source / "m.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert run("to-paddle", source, out, "--no-verify") == 0
    assert "1 of 1 converted" in capsys.readouterr().out
    found = paddle.load(str(out / "m.pdparams"))
    np.testing.assert_array_equal(found["cls_token"].numpy(), weights["cls_token"].numpy())


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    save(source / "a.pt")
    save(source / "a.pth")
    assert run("to-paddle", source, tmp_path / "out", "--no-verify") == 2
    assert "a.pt has become a.pdparams" in capsys.readouterr().out
