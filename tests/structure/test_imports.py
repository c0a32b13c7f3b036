"""Who may import whom: between the packages in a fresh interpreter, between a package's layers by `ast`."""

import ast
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up: a module imports only from its own row and those above it here. A new one needs a row.
IMPORT_LAYERS = {
    "paddle_inline": (
        "utils",
        "weights",
        "ops",
        "layers",
        "models",
        "hub",
        "config",
        "data",
        "training",
        "inference",
        "compare",
        "toolkits",
        "detection",
        "segmentation",
        "cli",
        "__main__",
    ),
    "torch_ref": ("utils", "weights", "ops", "layers", "models", "hub", "timm_registry"),
    "convert": (
        "errors",
        "backbones",
        "mapping",
        "families",
        "formats",
        "claims",
        "identify",
        "beside",
        "checkpoint",
        "summary",
        "parity",
        "verify",
        "conversion",
        "hub",
        "put_back",
        "inspection",
        "training_layout",
        "optimizer_state",
        "training_run",
        "torch_onnx",
        "cli",
        "__main__",
    ),
    "convert/parity": (
        "tolerance",
        "listener",
        "recording",
        "inputs",
        "metrics",
        "result",
        "arbiter",
        "comparison",
        "golden",
        "steps",
        "capture",
        "models",
        "run",
        "report",
        "cli",
    ),
}


LOOPS = ("paddle_inline.ops.loops", "paddle_inline.data.pixel_loops")  # compiled by Numba, which is optional


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def modules_of(package):
    """The dotted names of all modules of a package, but for its __main__, and for LOOPS without Numba."""
    names = [module.name for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]
    left_out = () if find_spec("numba") else LOOPS
    return [package, *(name for name in names if not name.endswith("__main__") and name not in left_out)]


def test_importing_the_package_alone_loads_no_framework():
    run_python("import sys, paddle_inline; assert not {'paddle', 'torch'} & set(sys.modules)")


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("paddle_inline", {"torch", "torch_ref", "convert", "timm"}),
        ("torch_ref", {"paddle", "paddle_inline"}),
    ],
    ids=["paddle_inline", "torch_ref"],
)
def test_every_module_of_a_package_does_without_the_other_side(package, banned):
    if package == "torch_ref":
        pytest.importorskip("torch")
    imports = f"for name in {modules_of(package)}: importlib.import_module(name)"
    run_python(f"import importlib, sys\n{imports}\nassert not (found := {banned} & set(sys.modules)), found")


def test_a_fresh_interpreter_sees_a_banned_import():
    with pytest.raises(AssertionError, match="json"):
        run_python("import sys, json; assert not (found := {'json'} & set(sys.modules)), found")


def layer_violations(package, layers):
    """`file imports layer` for each import of a higher layer, wherever in a file it stands."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("__init__",):
            continue  # the package's own face hands out names lazily
        if parts[0] not in layers:
            yield f"{path.name} has no place in IMPORT_LAYERS"
            continue
        for target in sorted(imported_layers(path, package)):
            if target in layers and layers.index(target) > layers.index(parts[0]):
                yield f"{'/'.join(parts)} imports {target}"


def imported_layers(path, package):
    """The modules and folders right inside the package that a file imports."""
    here = (package.name, *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from {name[1] for name in names if name[0] == package.name and len(name) > 1}


@pytest.mark.parametrize("package", IMPORT_LAYERS)
def test_layers_import_downwards_only(package):
    assert not list(layer_violations(ROOT / package, IMPORT_LAYERS[package]))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ops/a.py", "from ..layers.b import c"),
        ("ops/a.py", "from .. import layers"),
        ("ops/a.py", "def f():\n    import package.layers.b"),
        ("errors.py", "from . import layers"),
        ("new.py", ""),
    ],
)
def test_a_wrong_import_is_seen(tmp_path, file, source):
    path = tmp_path / "package" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert list(layer_violations(tmp_path / "package", ("errors", "ops", "layers")))
    path.write_text("from ..errors import d\nfrom . import e" if "ops" in file else "import os")
    assert file == "new.py" or not list(layer_violations(tmp_path / "package", ("errors", "ops", "layers")))
