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


def reachable(site, page="index.html"):
    """The pages that links inside the text lead to, from the index on."""
    found, todo = set(), [(site / page).resolve()]
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        text = re.search("<article.*</article>", path.read_text(encoding="utf-8"), re.S)
        links = re.findall(r'href="([^":#]+\.html)', text[0] if text else "")
        todo += [(path.parent / link).resolve() for link in links]
    return {path.relative_to(site.resolve()).as_posix() for path in found}


def test_every_page_is_reached_from_the_index_by_links_in_the_text(site):
    pages = {
        path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")
    }
    assert "models/deit.html" in pages and pages <= reachable(site)


def test_a_page_that_no_link_leads_to_is_seen(tmp_path):
    (tmp_path / "index.html").write_text('<a href="b.html"></a><article><a href="a.html#x"></a></article>')
    for name in ("a.html", "b.html"):
        (tmp_path / name).write_text("<article></article>")
    assert reachable(tmp_path) == {"index.html", "a.html"}


def test_the_index_begins_with_an_installation_and_a_model(site):
    text = re.sub(r"<[^>]+>", "", (site / "index.html").read_text(encoding="utf-8"))
    places = [text.index(words) for words in ("pip install -e", "create_model(", "You want to")]
    assert places == sorted(places)


def test_the_search_index_knows_functions_and_words(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "create_backbone" in index and '"inject' in index


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
