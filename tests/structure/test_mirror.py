"""paddle_inline and torch_ref are twins: ops/, layers/ and models/ say the same, but for a table of reasons.

Compared by `ast`, without importing either framework: files, classes, functions, argument names, defaults,
the names that are set on `self`, and the rows of VARIANTS.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ops", "layers", "models")

# What stands on one side only ("-" paddle_inline, "+" torch_ref), and why. An entry that is untrue fails.
ALLOWED = {
    "- layers/basic.py: class Module": "torch casts floating tensors alone anyway; its Module is nn.Module",
    "- layers/basic.py: def Module._apply(self, func: Any, *args: Any, **kwargs: Any)": "as above",
    "- layers/basic.py: def _uniform(fan_in: int)": "torch initialises its convolutions so by default",
    "- layers/basic.py: def TanhGELU.forward(self, x: Tensor)": "only Paddle is translated to ONNX",
    "- layers/basic.py: def LayerNorm.forward(self, x: Tensor)": "Paddle rounds epsilon to float32",
    "- layers/basic.py: class GELU": "its gradient is slow on Paddle's CPU alone",
    "- layers/basic.py: def GELU.forward(self, x: Tensor)": "as above",
    "- layers/basic.py: def Linear.forward(self, x: Tensor)": "as above, its bias's",
    "- layers/basic.py: def Conv1d.forward(self, x: Tensor)": "as above",
    "- layers/basic.py: def Conv2d.forward(self, x: Tensor)": "as above",
    "- layers/basic.py: def Conv2d.tokens(self, x: Tensor)": "as above",
    "- layers/basic.py: def Conv2d._geometry(self)": "as above",
    "- layers/basic.py: def Conv2d._is_product(self, x: Tensor)": "as above",
    "- layers/basic.py: def Conv2d._tokens(self, x: Tensor)": "as above",
    "- layers/basic.py: def is_depthwise(convolution: nn.Conv2D)": "as above",
    "- layers/basic.py: def is_filter(convolution: Any, x: Tensor)": "as above",
    "- layers/window_attention.py: def _at_once(branches, windows, qkv, size)": "as above",
    "- layers/mlp.py: def Mlp._is_plain(self, x)": "as above",
    "- layers/basic.py: def exact_epsilon_scale(epsilon: float)": "as above",
    "- layers/batch_norm.py: def BatchNorm2d.forward(self, x: Tensor)": "Paddle's running variance is the biased one",
    "- layers/initialised.py: def _xavier(fan_in: int, fan_out: int, gain: float)": "torch has it",
    "- ops/eager.py: file": "PyTorch's own operators are quick on a CPU",
    "- ops/eager_filters.py: file": "as above",
    "- ops/eager_windows.py: file": "as above",
    "- ops/kernels.py: file": "as above",
    "- ops/loops.py: file": "as above",
    "- ops/inline_attention.py: def _filter_grouped(v: Tensor, kernel: Tensor, size: Size)": (
        "only Paddle is traced for any batch"
    ),
    "- ops/inline_attention.py: def _filter_shifted(v: Tensor, kernel: Tensor, size: Size)": "as above",
    "- ops/softmax_free.py: def _is_filter(filter, x)": "its loops are for Paddle's tensors",
    "- ops/softmax_free.py: def _largest(x: Tensor, axis: list[int])": "only Paddle is translated to ONNX",
    "- ops/tokens.py: def _heads_by_loops(parts, num_heads, keep)": "its loops are for Paddle's tensors",
    "- ops/tokens.py: def centre_tokens(x: Tensor, factor: float)": "torch broadcasts as fast",
    "- ops/tokens.py: def subtract_row(x: Tensor, row: Tensor)": "as above",
    "- ops/tokens.py: def swap_axes(x: Tensor, axis: int)": "as above",
}

# Files of ops/attention/ and layers/attention/ that speak to a framework themselves.
OWN_TEXT = {"verbs.py"}

# What the packages cannot import from one another: (file of paddle_inline, file of torch_ref, function).
SAME_TEXT = (
    ("utils/paths.py", "utils/paths.py", "expand"),
    ("weights/told.py", "weights.py", "shown_sizes"),
)


def shape_of(package):
    """Every statement that the two packages must share, as a set of lines."""
    return {
        f"{path.relative_to(package).as_posix()}: {line}"
        for folder in FOLDERS
        for path in sorted((package / folder).rglob("*.py"))
        for line in file_shape(path)
    }


def file_shape(path):
    yield "file"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from body_shape(tree.body, "")
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VARIANTS":
            rows = zip(node.value.keys, node.value.values)
            yield from (f"VARIANTS {ast.unparse(name)}: {ast.unparse(row)}" for name, row in rows)


def body_shape(body, owner):
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield f"class {owner}{node.name}"
            yield from body_shape(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"def {owner}{node.name}({ast.unparse(node.args)})"
            for name in attributes_set(node):
                yield f"{owner}self.{name}"


def attributes_set(function):
    """The names that a method sets on self, by assignment or as a registered parameter or buffer."""
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) == "self":
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in REGISTER and node.args:
            yield ast.unparse(node.args[0]).strip("'")


REGISTER = {"self.register_buffer", "self.register_parameter", "self.add_parameter", "self.add_sublayer"}


def difference(paddle_side, torch_side):
    lines = {f"- {line}" for line in paddle_side - torch_side} | {
        f"+ {line}" for line in torch_side - paddle_side
    }
    alone = {line for line in lines if line.endswith(": file")}  # what stands in it goes without saying
    return alone | {line for line in lines if f"{line.split(': ')[0]}: file" not in alone}


def test_the_packages_are_twins():
    found = difference(shape_of(ROOT / "paddle_inline"), shape_of(ROOT / "torch_ref"))
    assert not sorted(found - set(ALLOWED)), "on one side only, and no reason in ALLOWED"
    assert not sorted(set(ALLOWED) - found), "in ALLOWED, but no longer true"


def test_models_are_the_same_text():
    """They are written with the verbs of ops/ and layers/ alone, so nothing in them knows a framework."""
    for path in (ROOT / "paddle_inline" / "models").glob("*.py"):
        twin = ROOT / "torch_ref" / "models" / path.name
        assert path.read_text(encoding="utf-8") == twin.read_text(encoding="utf-8"), path.name


def test_forms_of_attention_are_the_same_text():
    """As far as they are written with the verbs of ops/attention/verbs.py."""
    files = [*(ROOT / "paddle_inline" / "ops" / "attention").glob("*.py")]
    files += (ROOT / "paddle_inline" / "layers" / "attention").glob("*.py")
    assert len(files) > 5
    for path in files:
        if path.name not in OWN_TEXT:
            twin = ROOT / "torch_ref" / path.relative_to(ROOT / "paddle_inline")
            assert path.read_text(encoding="utf-8") == twin.read_text(encoding="utf-8"), path.name


def function_text(path, name):
    """The source of a file's function."""
    source = path.read_text(encoding="utf-8")
    functions = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return ast.get_source_segment(source, functions[0])


@pytest.mark.parametrize(("paddle_file", "torch_file", "name"), SAME_TEXT, ids=lambda part: part)
def test_functions_that_both_packages_hold_are_the_same_text(paddle_file, torch_file, name):
    ours, twin = ROOT / "paddle_inline" / paddle_file, ROOT / "torch_ref" / torch_file
    assert function_text(ours, name) == function_text(twin, name)


def test_another_line_in_a_function_shows(tmp_path):
    original = ROOT / "torch_ref" / "weights.py"
    changed = tmp_path / "weights.py"
    changed.write_text(
        original.read_text(encoding="utf-8").replace('"head.bias"', '"fc.bias"'), encoding="utf-8"
    )
    assert function_text(changed, "shown_sizes") != function_text(original, "shown_sizes")


def write_twins(folder, source):
    for package in ("a", "b"):
        for name in FOLDERS:
            (folder / package / name).mkdir(parents=True)
        (folder / package / "layers" / "mlp.py").write_text(source)
    return folder / "a", folder / "b"


SOURCE = """
VARIANTS = {"small": Spec(64, depth=2)}

class Mlp(Module):
    def __init__(self, dim, rate=0.0):
        self.fc1 = Linear(dim, dim)
        self.register_buffer("table", None)

def scale(x, by=2):
    return x * by
"""
CHANGES = {
    "depth=2": ("depth=3", "VARIANTS 'small': Spec(64, depth=3)"),
    "class Mlp": ("class MLP", "class MLP"),
    "self.fc1": ("self.fc", "Mlp.self.fc"),
    '"table"': ('"tables"', "Mlp.self.tables"),
    "rate=0.0": ("rate=0.1", "def Mlp.__init__(self, dim, rate=0.1)"),
    "dim, rate": ("width, rate", "def Mlp.__init__(self, width, rate=0.0)"),
    "def scale": ("def rescale", "def rescale(x, by=2)"),
}


def test_the_checker_sees_every_kind_of_difference(tmp_path):
    for i, (old, (new, line)) in enumerate(CHANGES.items()):
        paddle_side, torch_side = write_twins(tmp_path / str(i), SOURCE)
        assert not difference(shape_of(paddle_side), shape_of(torch_side))
        (torch_side / "layers" / "mlp.py").write_text(SOURCE.replace(old, new))
        assert f"+ layers/mlp.py: {line}" in difference(shape_of(paddle_side), shape_of(torch_side))


def test_the_checker_sees_a_file_of_one_side(tmp_path):
    paddle_side, torch_side = write_twins(tmp_path, SOURCE)
    (paddle_side / "ops" / "extra.py").write_text("def extra(): pass")
    assert difference(shape_of(paddle_side), shape_of(torch_side)) == {"- ops/extra.py: file"}
