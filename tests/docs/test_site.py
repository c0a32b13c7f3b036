"""The documentation builds without a warning, needs no network to be read, and its links inside hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

for name in ("sphinx", "furo", "myst_parser", "latex2mathml"):
    pytest.importorskip(name)

ROOT = Path(__file__).parents[2]


def build(source, target):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-d",
        str(target) + ".doctrees",
    ]
    return subprocess.run([*command, str(source), str(target)], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", target)
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_is_built(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").stat().st_size > 2000


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(//|https?:)', page.read_text(encoding="utf-8")
        )
        assert not loaded, page.name


def test_formulas_are_mathml(site):
    page = (site / "attention.html").read_text(encoding="utf-8")
    assert (
        page.count("<math") > 30
        and "<mfrac" in page
        and "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    )


def test_docstrings_are_shown_whole(site):
    page = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    assert "not fit (with a difference of names and shapes)" in page  # the last line of create_model's Raises
    assert "exp(-|a_i - b_j|^2 / 2)" in page  # bars and underscores as in the source


def test_a_broken_page_fails_the_build(tmp_path):
    (tmp_path / "conf.py").write_text('extensions = ["myst_parser"]\n', encoding="utf-8")
    (tmp_path / "index.md").write_text("# One\n\n[nowhere](missing.md)\n", encoding="utf-8")
    assert build(tmp_path, tmp_path / "site").returncode != 0
