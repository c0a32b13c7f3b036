"""The files of settings that come with the package: found by name, as bases, and copied out."""

from pathlib import Path

import pytest

from paddle_inline.cli import main as cli
from paddle_inline.config import files
from paddle_inline.config.load import ConfigError, load_config
from paddle_inline.toolkits.settings import read_settings

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without a configs/, as of a user of the wheel."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "quickstart.yaml",
        "configs/quickstart.yaml",
        "./configs/quickstart.yaml",
        "../quickstart.yaml",
    ],
)
def test_a_name_finds_the_file_that_comes_with_the_package(name):
    assert files.packaged(name) == CONFIGS / "quickstart.yaml"


@pytest.mark.parametrize("name", ["", "/quickstart", "zoo/../quickstart", "detection", "configs", "quick"])
def test_other_names_find_nothing(name):
    assert files.packaged(name) is None
    assert files.find(name, beside="a") == str(Path("a", name)) or not name or name.startswith("/")


def test_every_file_has_a_name_that_finds_it():
    every = {
        p for suffix in ("yaml", "yml") for p in CONFIGS.rglob(f"*.{suffix}") if p.parent.name != "_base_"
    }
    named = {files.packaged(name) for name in files.names()}
    assert named == {path for path in every if path.parent.name != "demo_dense"}


def test_a_file_of_ones_own_comes_first_and_the_packaged_one_is_named(tmp_path):
    notes = []
    assert load_config("quickstart", notes=notes).model.name == "inline_deit_digits"
    assert notes == [f"settings: {CONFIGS / 'quickstart.yaml'}, which comes with the package"]
    Path("quickstart").write_text("seed: 7\n")
    notes.clear()
    assert load_config("quickstart", notes=notes).seed == 7 and notes == []


@pytest.mark.parametrize("base", ["inline_pvt_t", "inline_pvt_t.yaml", "[quickstart, inline_pvt_t]"])
def test_a_base_may_come_with_the_package(tmp_path, base):
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "mine.yaml"
    own.write_text(f"base: {base}\nseed: 3\n")
    config = load_config(str(own))
    assert (config.seed, config.model.name) == (3, "inline_pvt_tiny")
    own.with_name("inline_pvt_t.yaml").write_text("model: {name: soft_digits}\n")
    if base.endswith("yaml"):  # the file beside it is meant
        assert load_config(str(own)).model.name == "soft_digits"


def test_a_base_of_a_toolkit_may_come_with_the_package(tmp_path):
    own = tmp_path / "mine.yml"
    own.write_text("_BASE_: [mask_rcnn_inline_pvt_tiny_1x]\nepoch: 1\n")
    settings = read_settings(str(own), "_BASE_", section="detection")
    packaged = read_settings(str(CONFIGS / "detection" / "mask_rcnn_inline_pvt_tiny_1x.yml"), "_BASE_")
    assert settings == {**packaged, "epoch": 1}


def test_a_name_with_a_slip_is_answered_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"quickstrat: no such .* did you mean quickstart\? .*configs` lists"
    ):
        load_config("quickstrat")
    assert files.nearest("semantic_fpn_inline_pvt_tny_40k.yml", "segmentation").startswith(
        "; did you mean segmentation/semantic_fpn_inline_pvt_tiny_40k?"
    )


def test_configs_lists_what_each_is(capsys):
    assert cli.main(["configs", "inline_*_t"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  inline")]
    assert [row[0] for row in rows] == ["inline_cswin_t", "inline_deit_t", "inline_pvt_t", "inline_swin_t"]
    assert all(row[1].startswith("InLine-") for row in rows)


def test_configs_copies_one_out_and_writes_over_nothing(tmp_path, capsys):
    assert cli.main(["configs", "zoo/agent", "--copy", "."]) == 0
    assert capsys.readouterr().out == "agent.yaml\n"
    assert Path("agent.yaml").read_bytes() == (CONFIGS / "zoo" / "agent.yaml").read_bytes()
    Path("agent.yaml").write_text("seed: 1\n")
    assert cli.main(["configs", "zoo/agent", "--copy", "agent.yaml"]) == 2
    assert "agent.yaml is there already" in capsys.readouterr().err
    assert Path("agent.yaml").read_text() == "seed: 1\n"


def test_what_is_copied_out_still_finds_its_base():
    for name in ("zoo/agent", "inline_deit_t"):
        assert cli.main(["configs", name, "--copy", "copy.yaml"]) == 0
        assert load_config("copy.yaml") == load_config(name)
        Path("copy.yaml").unlink()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["zoo/*", "--copy", "a.yaml"],
            "--copy takes one file, and 'zoo/*' names 28: zoo/agent, zoo/angular",
        ),
        (["quikstart"], "no file of settings is called 'quikstart'; did you mean quickstart?"),
    ],
)
def test_mistakes_of_configs_are_one_line(capsys, arguments, said):
    assert cli.main(["configs", *arguments]) == 2
    assert said in capsys.readouterr().err and not list(Path().iterdir())


def test_train_of_the_commands_is_the_training_program(capsys):
    assert cli.main(["train"]) == 2
    assert "nothing to train: give a file of settings, or pictures" in capsys.readouterr().err
    assert cli.main(["train", "--cfg", "quickstart", "-o", "train.epoch=1"]) == 2
    assert "-o: unknown key 'train.epoch'; did you mean 'train.epochs'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["detection/mask_rcnn_inline_pvt_tiny_1x", "segmentation/upernet_inline_swin_tiny_160k"]
)
def test_a_file_of_detection_or_segmentation_is_none_of_classification(tmp_path, name):
    with pytest.raises(ConfigError, match=r"has _base_, .*`python -m paddle_inline\.detection`"):
        load_config(name)
    (tmp_path / "own.yaml").write_text(f"base: {name}\n")
    with pytest.raises(ConfigError, match=r"has _base_"):
        load_config("own.yaml")


def test_a_folder_is_no_file_of_settings(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="run: is a folder, not a file of settings; give a YAML file"):
        load_config("run")
    (tmp_path / "run" / "config.yaml").write_text("tag: a\n")
    with pytest.raises(ConfigError, match=r"give run.config\.yaml, the settings of the run"):
        load_config("run")
