"""A family is added to a copy of the packages by the steps of docs/new_family.md, and everything knows it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convert.families import FAMILIES, small_models
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from paddle_inline.models import factory

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).with_name("toy")
CONFIG = """# The toy mixer on ImageNet-1K: no published result.
# python train_paddle.py --cfg configs/toy_tiny.yaml --data-path IMAGENET
base: base_imagenet.yaml
model: {name: toy_tiny}
data: {img_size: 32, batch_size: 512}
"""


def inserted(text, before, line):
    """`text` with a line in front of the one that starts with `before`."""
    assert text.count(f"\n{before}") == 1, before
    return text.replace(f"\n{before}", f"\n{line}\n{before}")


def add_family(root):
    """Follow docs/new_family.md in a copy; returns the files written or changed."""
    changes = {}

    def change(path, edit):
        text = (root / path).read_text(encoding="utf-8") if (root / path).exists() else ""
        (root / path).write_text(edit(text), encoding="utf-8")
        changes[path] = True

    for package in ("paddle_inline", "torch_ref"):
        change(f"{package}/models/toy.py", lambda _: (TOY / "model.py").read_text(encoding="utf-8"))
        change(
            f"{package}/models/factory.py",
            lambda text: inserted(
                re.sub(r"(from \. import .*), soft\n", r"\1, soft, toy\n", text),
                "}",
                "    toy.Toy: toy.VARIANTS,",
            ),
        )
        change(
            f"{package}/models/__init__.py",
            lambda text: (
                text + "from .toy import Toy\n"
                'toy_tiny = variant("toy_tiny", Toy)\n'
                'toy_small = variant("toy_small", Toy)\n'
            ),
        )
    change("convert/families/toy.py", lambda _: (TOY / "family.py").read_text(encoding="utf-8"))
    change(
        "convert/families/__init__.py",
        lambda text: inserted(
            text.replace(
                "from . import cswin, deit, pvt, soft, swin",
                "from . import cswin, deit, pvt, soft, swin, toy",
            ),
            "}",
            '    "Toy": toy.FAMILY,',
        ),
    )
    change("configs/toy_tiny.yaml", lambda _: CONFIG)
    return set(changes)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """(folder of the packages with the toy family, the files that it took)."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("paddle_inline", "torch_ref", "convert", "tests", "benchmarks", "configs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root, add_family(root)


def run(root, *arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_names_every_file(copy):
    page = (ROOT / "docs/new_family.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/.]+)` \|", page, re.M)
    family = {name.replace("FAMILY", "toy").replace("VARIANT", "toy_tiny") for name in named}
    assert family == copy[1]


def test_a_file_of_the_family_is_recognised_and_the_twins_are_verified(copy, tmp_path):
    pytest.importorskip("torch")
    code = """
import sys, torch, torch_ref
from convert.__main__ import main
torch.save(torch_ref.create_model("toy_small", num_classes=7, mlp_ratio=3).state_dict(), sys.argv[1])
assert main(["inspect", sys.argv[1], "--json"]) == 0
assert main(["to-paddle", sys.argv[1], sys.argv[2]]) == 0
assert main(["verify", "--model", "toy_tiny", "--backward"]) == 0
"""
    done = run(copy[0], "-c", code, tmp_path / "a.pth", tmp_path / "a.pdparams")
    facts = json.loads(done.splitlines()[0])
    assert (facts["model"], facts["overrides"]) == ("toy_small", {"mlp_ratio": 3, "num_classes": 7})
    assert facts["assumed"] == {"img_size": 32}
    assert "verified: forward pass in float64" in done
    assert "toy_tiny float64: every layer agrees" in done


def test_the_model_is_exported_and_its_config_is_loaded(copy, tmp_path):
    code = """
import sys
from paddle_inline import create_model, list_models
from paddle_inline.config.load import load_config
from paddle_inline.inference.export import export_model
assert {"toy_tiny", "toy_small"} <= set(list_models())
name = load_config("configs/toy_tiny.yaml").model.name
card = export_model(create_model(name), sys.argv[1])
assert card["model"] == "toy_tiny" and len(card["checks"]) == 2, card
"""
    run(copy[0], "-c", code, tmp_path / "out")


def test_the_suite_runs_over_the_family(copy):
    pytest.importorskip("torch")
    files = ["test_controls.py", "test_small.py", "test_steps.py"]
    options = ["-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "toy and not float32 and not bfloat16"]
    paths = [f"tests/convert/parity/{file}" for file in files]
    done = run(copy[0], "-m", "pytest", *options, *paths, "tests/inference/test_export.py")
    assert "failed" not in done
    assert int(re.search(r"(\d+) passed", done)[1]) >= 8, done


def test_every_family_has_its_adapter_and_no_adapter_is_left_over():
    assert {model.__name__ for model in factory.FAMILIES} == set(FAMILIES)


@pytest.mark.parametrize("label", small_models())
def test_a_landmark_is_of_one_family_alone(label):
    small = small_models()[label]
    for side in ("torch", "paddle"):
        shapes = shapes_of(skeleton(small.name, small.overrides), side)
        found = [family for family in FAMILIES.values() if family.recognises(shapes)]
        assert len(found) == 1 and label in found[0].small


@pytest.mark.parametrize("label", small_models())
def test_a_small_model_is_recognised_by_its_tensors(label):
    small = small_models()[label]
    shapes = shapes_of(skeleton(small.name, small.overrides), "paddle")
    found = identify(shapes, small.name)
    wanted = vars(factory.model_spec(small.name, **small.overrides))
    got = vars(factory.model_spec(found.name, **found.overrides))
    different = {key for key in wanted if got[key] != wanted[key]}
    assert different <= {
        "published",
        "window_size",
        *found.assumed,
    }  # one window of the whole grid has many names
