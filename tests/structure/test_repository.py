"""What a repository's host reads: workflows, templates, the citation. Each names what is there."""

import re
from pathlib import Path

import pytest
import yaml

import paddle_inline

ROOT = Path(__file__).parents[2]
FILES = [*sorted(ROOT.glob(".github/**/*.yml")), ROOT / "CITATION.cff"]


def targets_called(text):
    """Return the targets of `make` that the lines of a workflow call."""
    return {
        word
        for line in re.findall(r"run: make (.*)", text)
        for word in line.split()
        if re.match("[a-z]", word)
    }


def make_targets():
    return set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_workflows_call_targets_that_are_there():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    called = targets_called(text)
    assert called == {"lint", "test-fast", "test-golden", "test-paddle26", "docs"}
    assert called <= make_targets()
    assert not targets_called("      - run: make nothing") <= make_targets()


def test_the_matrix_is_what_the_package_says_it_runs_on():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(pythons) <= set(re.findall(r"Python :: (3\.\d+)", project))
    assert {pythons[0], pythons[-1]} == {"3.9", "3.13"}


def test_forms_ask_for_what_helps():
    """A form has a name, and every question a label; the one on faults asks for what `doctor` prints."""
    forms = [path for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if path.name != "config.yml"]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"]
        assert all(part["attributes"]["label"] for part in form["body"] if part["type"] != "markdown")
    assert "paddle_inline doctor" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == paddle_inline.__version__
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(paper["title"] in readme for paper in citation["references"])


def test_every_family_has_a_card_and_every_model_its_row():
    cards = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("docs/models/*.md")}
    assert sorted(cards) == ["cswin", "deit", "pvt", "soft", "swin"]
    for name in paddle_inline.list_models():
        family = "soft" if name.startswith("soft") else name.split("_")[1]
        assert f"`{name}`" in cards[family]
