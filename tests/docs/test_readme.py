"""The front pages: both languages in step, every link alive, every command run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fences import blocks, commands, headings, links, prose, table_numbers

from tests.data.trees import picture

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_zh.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")

# Commands that are not run here, and why that is no loss.
NOT_RUN = {
    "make": "the targets call this test",
    "python -m pip": "installs: test_extras_exist checks the names",
    "python train_paddle.py --gpus": "takes several devices; the engine's tests run two processes",
}
MAY_FAIL = {"doctor"}  # exit code 1: this machine has something to mend
# What is added to a command here, so that it ends soon.
SETTINGS = ("train.epochs=1", "train.warmup_epochs=0", "data.img_size=16")
TRIM = {"train_paddle.py": [word for setting in SETTINGS for word in ("-o", setting)]}


def reason_not_run(words):
    text = " ".join(words)
    return next((why for start, why in NOT_RUN.items() if (text + " ").startswith(start + " ")), None)


def trimmed(words):
    words = list(words)
    for name, extra in TRIM.items():
        if name in words:
            words += extra
    return words


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone, where what the commands write does no harm."""
    folder = tmp_path_factory.mktemp("clone")
    for item in ROOT.iterdir():
        if item.name not in (".git", "output", "build", "log"):
            (folder / item.name).symlink_to(item)
    for number, name in enumerate(("daisy", "tulip")):
        (folder / "flowers" / name).mkdir(parents=True)
        for i in range(10):
            picture(100 * number + i).save(folder / "flowers" / name / f"{i}.png")
    return folder


def run(words, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}
    words = [sys.executable if word == "python" else word for word in words]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


def test_headings_in_step():
    ours, theirs = headings(ENGLISH), headings(CHINESE)
    assert [level for level, _ in ours] == [level for level, _ in theirs]
    untranslated = [title for _, title in theirs[1:] if not re.search(r"[\u4e00-\u9fff]", title)]
    assert not untranslated


def test_commands_and_code_in_step():
    assert commands(ENGLISH) == commands(CHINESE)
    code = [[re.sub(r"\s*#.*", "", block) for block in blocks(text, "python")] for text in (ENGLISH, CHINESE)]
    assert code[0] == code[1]


def test_figures_in_step():
    assert table_numbers(ENGLISH) == table_numbers(CHINESE)


def test_a_page_out_of_step_is_seen():
    text = "# A\n\n```bash\npython x.py --n 1\n```\n\n| a | 1.5 |\n"
    assert commands(text) != commands(text.replace("--n 1", "--n 2"))
    assert table_numbers(text) != table_numbers(text.replace("1.5", "1.6"))
    assert headings(text) != headings(text.replace("# A", "## A"))


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_links_lead_somewhere(page):
    anchors = {
        re.sub(r"[^\w\u4e00-\u9fff -]", "", title).strip().lower().replace(" ", "-")
        for _, title in headings(page)
    }
    for target in links(page):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not re.match(r"https?://|mailto:", target):
            assert (ROOT / target.split("#")[0]).exists(), target


def test_extras_exist():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = set(
        re.findall(r"^(\w+) = \[", text.split("[project.optional-dependencies]")[1].split("\n[")[0], re.M)
    )
    used = {name for group in re.findall(r"(?:\.|whl)\[([\w,]+)\]", ENGLISH) for name in group.split(",")}
    assert used and used <= known
    for page in (ENGLISH, CHINESE):  # and each has its line
        lines = re.findall(r"^- (`\w+`.*?)(?::|\uff1a)", page, re.M)
        assert known == {name for line in lines for name in re.findall(r"`(\w+)`", line)}


def test_model_table_says_what_the_models_are():
    from paddle_inline.cli.list import COUNTED_GMACS
    from paddle_inline.models.factory import list_models, model_spec

    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", MODELS, re.M))
    assert list(rows) == [
        name for name in list_models() if model_spec(name).published != type(model_spec(name).published)()
    ]
    for name, row in rows.items():
        size, params, counted, gmacs, counted_gmacs, top1 = (cell.strip() for cell in row.split("|"))
        spec = model_spec(name)
        for cell, value in (
            (params, spec.published.params),
            (gmacs, spec.published.gmacs),
            (top1, spec.published.top1),
        ):
            assert cell == ("-" if value is None else f"{value:g}"), (name, cell)
        assert size == str(spec.img_size) and float(counted) == spec.published.built_params
        assert float(counted_gmacs) == COUNTED_GMACS[name]
        if spec.published.built_gmacs:
            share = float(counted_gmacs) / spec.published.built_gmacs
            assert 0.93 < share < 1.01, name  # below 1: a cheaper form of the same


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_front_page_has_one_table_and_one_picture(page):
    assert len(re.findall(r"^\|[-|]+\|$", prose(page), re.M)) == 1
    assert len(re.findall(r"(?<!\[)!\[", prose(page))) == 1  # behind a bracket: a badge that links


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(ENGLISH):
        if words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.fixture(scope="module")
def commands_done(clone):
    """What each command of the page did, one after the other: [(words, CompletedProcess)]."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    return [
        (words, run(trimmed(words), clone)) for words in commands(ENGLISH) if reason_not_run(words) is None
    ]


def test_every_command_runs(commands_done):
    for words, done in commands_done:
        allowed = (0, 1) if MAY_FAIL & set(words) else (0,)
        assert done.returncode in allowed, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_python_block_runs(commands_done, clone, tmp_path):
    for number, block in enumerate(blocks(ENGLISH, "python")):
        script = tmp_path / f"block{number}.py"
        script.write_text(f"import sys\nsys.path.insert(0, {str(clone)!r})\n{block}", encoding="utf-8")
        done = run(["python", str(script)], clone)
        assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"


def test_reasons_are_used():
    written = [" ".join(words) + " " for words in commands(ENGLISH)]
    assert all(any(line.startswith(start + " ") for line in written) for start in NOT_RUN)


def test_nothing_is_promised():
    for page in (ENGLISH, CHINESE):
        assert not re.search(r"TODO|coming soon|未完成", prose(page))
