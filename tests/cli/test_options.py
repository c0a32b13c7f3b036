"""Every option of the commands reaches what it is for; one that is new fails until it has its row."""

import argparse

import pytest

from convert import cli as convert_cli
from convert.__main__ import build_parser as convert_parser
from convert.checkpoint import ConversionOptions
from convert.parity import cli as parity_cli
from paddle_inline.cli import export, predict
from paddle_inline.cli.main import build_parser

EXPORT = {  # option: (its arguments, what create_model and export_model are given then)
    "--model": (["soft_tiny"], {"name": "soft_tiny"}),
    "--weights": (["w2"], {"loaded": "w2", "weights": "found w2"}),
    "--output": (["o2"], {"directory": "o2"}),
    "--img-size": (["64"], {"sizes": {"img_size": 64}}),
    "--num-classes": (["7"], {"sizes": {"num_classes": 7}}),
    "--dynamic-batch": ([], {"batch": None}),
    "--batch-size": (["4"], {"batch": 4}),
    "--onnx": ([], {"onnx": True}),
    "--classes": (["names.txt"], {"classes": ("a", "b")}),
    "--top1": (["71.5"], {"top1": 71.5}),
    "--no-crop": ([], {"preprocessing": {"crop_ratio": 0.9, "crop": False}}),
}
EXPORT_DEFAULTS = dict(
    name=None, loaded="w", sizes={}, directory="o", batch=1, onnx=False, int8=None, preprocessing=None
)
EXPORT_DEFAULTS.update(classes=None, top1=None, weights="found w")


def options_of(parser, command):
    """Return the options of a command, but for those that every one has."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {a.option_strings[-1] for a in commands.choices[command]._actions if a.option_strings} - {"--help"}


@pytest.mark.parametrize("option", [None, *EXPORT])
def test_options_of_export(monkeypatch, tmp_path, option):
    seen = {}

    class Model:
        name = "m"

    def create_model(name, weights, **sizes):
        seen.update(name=name, loaded=weights, sizes=sizes)
        return Model()

    def export_model(model, directory, **given):
        seen.update(directory=directory, **given)

    monkeypatch.setattr("paddle_inline.models.create_model", create_model)
    monkeypatch.setattr("paddle_inline.weights.load.find_weights", lambda path: f"found {path}")
    monkeypatch.setattr(export, "export_model", export_model)
    monkeypatch.setattr(
        export, "evaluation_of", lambda model: ({"crop_ratio": 0.9, "crop": True}, None, None)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\nb\n")
    words = [] if option is None else [option, *EXPORT[option][0]]
    arguments = build_parser().parse_args(["export", "--weights", "w", "--output", "o", *words])
    assert export.run(arguments) == 0
    changes = {} if option is None else EXPORT[option][1]
    assert seen == {**EXPORT_DEFAULTS, **changes} and (option is None or seen != EXPORT_DEFAULTS)


def test_an_export_that_differs_from_its_model_has_code_1(monkeypatch, capsys):
    def differs(*given, **more):
        raise export.ExportError("it differs")

    monkeypatch.setattr("paddle_inline.models.create_model", lambda *given, **more: None)
    monkeypatch.setattr("paddle_inline.weights.load.find_weights", lambda path: path)
    monkeypatch.setattr(export, "export_model", differs)
    assert export.run(build_parser().parse_args(["export", "--weights", "w", "--output", "o"])) == 1
    assert capsys.readouterr().err == "error: it differs\n"


CONVERT = {  # option: (its arguments, the field of ConversionOptions, its value)
    "--take": (["ema"], "take", "ema"),
    "--model": (["soft_tiny"], "model", "soft_tiny"),
    "--opts": (
        ["img_size", "(64, 96)", "attn_type", "ISSI"],
        "overrides",
        {"img_size": (64, 96), "attn_type": "ISSI"},
    ),
    "--skip-calls": ([], "skip_calls", True),
    "--img-size": (["64"], "img_size", 64),
    "--num-classes": (["3"], "num_classes", 3),
    "--no-verify": ([], "verify", False),
}


@pytest.mark.parametrize("command", ["to-paddle", "to-torch", "inspect"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("option", [None, *CONVERT, "--img-size 2"])
def test_options_of_a_conversion(monkeypatch, capsys, command, training, option):
    if command == "inspect" and (
        training or option in ("--img-size", "--img-size 2", "--num-classes", "--no-verify")
    ):
        assert option is None or training or option.split()[0] not in options_of(convert_parser(), "inspect")
        return
    seen = []

    class Looked:
        def __init__(self, *given):
            seen.append(("inspect", *given))

        heading = lines = lambda self: []
        open = lambda self: None  # noqa: E731

    class Done:
        output = "o"

        class identity:
            @staticmethod
            def call_with(output):
                return f"create_model(weights={output!r})"

    monkeypatch.setattr(convert_cli, "Inspection", Looked)
    monkeypatch.setattr(convert_cli, "convert", lambda *given, log: seen.append(("plain", *given)) or Done)
    for side in ("paddle", "torch"):
        monkeypatch.setattr(
            f"convert.training_run.training_to_{side}",
            lambda source, out, options, log, side=side: seen.append(
                ("training", source, out, side, options)
            ),
        )
    arguments, field, value = CONVERT.get(option, (["64", "96"], "img_size", (64, 96)))
    words = [] if option is None else [option.split()[0], *arguments]
    places = ["f"] if command == "inspect" else ["f", "o"]
    more = ["--training"] if training else []
    given = convert_parser().parse_args([command, *places, *more, *words])
    assert given.run(given) == 0
    expected = ConversionOptions(**({} if option is None else {field: value}))
    assert option is None or expected != ConversionOptions()
    if command == "inspect":
        assert seen == [("inspect", "f", expected)]
    else:
        side = command[len("to-") :]
        assert seen == [("training" if training else "plain", "f", "o", side, expected)]


VERIFY = {
    "--weights": (["w"], {"weights": "w"}),
    "--backward": ([], {"backward": True}),
    "--steps": (["3"], {"steps": 3}),
    "--batch": (["4"], {"batch": 4}),
    "--seed": (["5"], {"seed": 5}),
    "--opts": (["depth", "1"], {"depth": 1}),
    "--no-arbiter": ([], {"arbiter": False}),
    "--dtype": (["float32"], {"dtype": "float32"}),
}
VERIFY_DEFAULTS = dict(
    weights=None, backward=False, steps=0, batch=None, seed=0, arbiter=True, dtype="float64"
)


@pytest.mark.parametrize("option", [None, *VERIFY])
def test_options_of_verify(monkeypatch, option):
    seen = []
    monkeypatch.setattr("convert.parity.run.compare", lambda name, **given: seen.append((name, given)))
    monkeypatch.setattr("convert.parity.steps.import_timm", lambda: None)
    words = [] if option is None else [option, *VERIFY[option][0]]
    given = convert_parser().parse_args(["verify", "--model", "soft_tiny", *words])
    for name, dtype, job in parity_cli._jobs(given):
        assert (name, dtype) == ("soft_tiny", given.dtype[0])
        job()
    changes = {} if option is None else VERIFY[option][1]
    assert seen == [("soft_tiny", {**VERIFY_DEFAULTS, **changes})]
    assert option is None or seen[0][1] != VERIFY_DEFAULTS


RECORD = {
    "--model": (["soft_tiny"], {"name": "soft_tiny"}),
    "--framework": (["torch"], {"framework": "torch"}),
    "--dtype": (["float32"], {"dtype": "float32"}),
    "--truth": (["t"], {"truth": True}),
    **{option: row for option, row in VERIFY.items() if option not in ("--no-arbiter", "--dtype")},
}


@pytest.mark.parametrize("option", [None, *RECORD])
def test_options_of_record(monkeypatch, option):
    seen, names = [], ("framework", "name", "weights", "dtype", "seed", "backward", "batch")
    monkeypatch.setattr(
        "convert.parity.run.record",
        lambda *given, **more: seen.append({**dict(zip(names, given)), **more}) or (None, None),
    )
    monkeypatch.setattr("convert.parity.steps.import_timm", lambda: None)
    words = [] if option is None else [option, *RECORD[option][0]]
    given = convert_parser().parse_args(["record", "d", "--framework", "paddle", "--model", "m", *words])
    assert given.run(given) == 0
    defaults = {**VERIFY_DEFAULTS, "framework": "paddle", "name": "m", "truth": False}
    del defaults["arbiter"]
    changes = {} if option is None else RECORD[option][1]
    assert seen == [{**defaults, **changes}] and (option is None or seen != [defaults])


@pytest.mark.parametrize("passed", [[True], [False], [True, False], [True, True]])
@pytest.mark.parametrize("kind", ["html", "json", "junit", "reprod_log"])
def test_every_file_of_a_comparison_is_written_and_its_code_says_whether_all_agree(monkeypatch, kind, passed):
    written = []
    for name in ("html", "json", "junit", "reprod_log"):
        monkeypatch.setattr(
            parity_cli,
            f"write_{name}",
            lambda reports, path, name=name: written.append((name, len(reports), path)),
        )
    for name in ("all_rows", "explain"):
        monkeypatch.setattr(parity_cli, name, lambda *given: "")
    words = ["verify", "--model", "m", f"--{kind.replace('_', '-')}", "file"]
    arguments = convert_parser().parse_args(words)
    reports = [type("R", (), {"passed": each})() for each in passed]
    code = parity_cli._finish(reports, arguments, parity_cli._console(), in_full=False)
    assert code == (0 if all(passed) else 1) and written == [(kind, len(passed), "file")]


# Options that the tests above, those of predict (tests/inference/test_answers.py) or of their own files set (of int8:
# tests/inference/test_calibration.py).
KNOWN = {
    "export": {*EXPORT, "--triton", "--ovms", "--name", "--int8", "--calibrate", "--max-drop"},
    "predict": {
        *("--export", "--model", "--weights", "--classes", "--topk", "--batch-size", "--device", "--threads"),
        *("--precision", "--engine", "--json", "--html"),
    },
}
KNOWN_CONVERT = {
    "inspect": {"--json", "--take", "--model", "--opts", "--skip-calls"},
    "to-paddle": {*CONVERT, "--training", "--into", "--into-take"},
    "to-torch": {*CONVERT, "--training", "--into", "--into-take"},
    "to-hub": {*CONVERT, "--license"},
    "verify": {*VERIFY, "--model", "--all", "--golden", "--html", "--json", "--junit", "--reprod-log"},
    "record": set(RECORD),
    "compare": {"--truth", "--html", "--json", "--junit", "--reprod-log"},
}


@pytest.mark.parametrize("command", KNOWN)
def test_every_option_has_a_test(command):
    assert options_of(build_parser(), command) == KNOWN[command]


@pytest.mark.parametrize("command", KNOWN_CONVERT)
def test_every_option_of_convert_has_a_test(command):
    assert options_of(convert_parser(), command) == KNOWN_CONVERT[command]


@pytest.mark.parametrize("words", [["--batch-size", "0"], ["--topk", "0"]])
def test_numbers_below_one_are_refused(words):
    arguments = build_parser().parse_args(["predict", "a.png", *words])
    with pytest.raises(ValueError, match="it must be at least 1"):
        predict.run(arguments)
