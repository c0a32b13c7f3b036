"""What `import paddle_inline` hands out: every name, at its home, for people and editors, and nothing loaded before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paddle_inline

ROOT = Path(__file__).parents[2]
NAMES = [
    "Predictor",
    "__version__",
    "create_attention",
    "create_backbone",
    "create_model",
    "export_model",
    "from_pretrained",
    "list_attentions",
    "list_models",
    "load_weights",
    "read_image",
    "save_pretrained",
]


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there():
    assert sorted(paddle_inline.__all__) == NAMES
    for name in [*NAMES, "layers", "models", "ops"]:
        assert getattr(paddle_inline, name) is not None
        assert name in dir(paddle_inline)
    with pytest.raises(AttributeError, match="module 'paddle_inline' has no attribute 'create_modle'"):
        _ = paddle_inline.create_modle


def test_editors_see_the_names_where_they_come_from():
    """The imports for type checkers are those that are made when a name is first asked for."""
    tree = ast.parse(Path(paddle_inline.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING" and not paddle_inline.TYPE_CHECKING
    seen = {alias.name: f".{node.module or ''}" for node in block.body for alias in node.names}
    assert seen == {**paddle_inline._HOMES, **dict.fromkeys(paddle_inline._FOLDERS, ".")}


def test_importing_loads_nothing_but_the_package():
    """Nor typing, pathlib or the like: importing costs what importing an empty file does."""
    code = "import importlib, sys; before = set(sys.modules); import paddle_inline; print(*set(sys.modules) - before)"
    assert run_python(code).split() == ["paddle_inline"]


def test_a_name_is_given_without_paddle_s_messages():
    code = "import os; os.environ['OMP_NUM_THREADS'] = '2'; import paddle_inline; paddle_inline.create_model"
    assert run_python(f"import sys; sys.stderr = sys.stdout; {code}") == ""


def test_the_heavy_names_are_loaded_when_asked_for():
    code = "import sys, paddle_inline; paddle_inline.list_models; print('paddle_inline.inference' in sys.modules)"
    assert run_python(code).split()[-1] == "False"


def test_both_packages_have_one_version():
    pytest.importorskip("torch")
    import torch_ref

    assert paddle_inline.__version__ == torch_ref.__version__ == "0.2.0"
