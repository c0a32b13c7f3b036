"""Every public function, method and class of the packages says what it takes and gives."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("paddle_inline", "torch_ref", "convert")

# {"file:name": reason} of what may lack annotations.
ALLOWED: dict[str, str] = {}


def unannotated(tree):
    """(line, dotted name, what lacks an annotation) of each public function and method that is incomplete.

    Public: no part of its name begins with an underscore, `__init__` and other special methods apart. Functions
    inside functions are not.
    """
    waiting = [("", tree)]
    while waiting:
        prefix, parent = waiting.pop()
        for node in parent.body:
            if isinstance(node, (ast.If, ast.Try)):
                waiting.append((prefix, node))
                continue
            name = getattr(node, "name", "")
            if not name or (name.startswith("_") and not name.endswith("__")):
                continue
            if isinstance(node, ast.ClassDef):
                waiting.append((f"{prefix}{name}.", node))
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
                missing = list(missing_annotations(node, method=bool(prefix) and not static))
                if missing:
                    yield node.lineno, f"{prefix}{name}", ", ".join(missing)


def missing_annotations(function, method):
    """The names of a function's arguments without an annotation, and "return"."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args][1 if method else 0 :]
    for argument in [*positional, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]:
        if argument is not None and argument.annotation is None:
            yield argument.arg
    if function.returns is None:
        yield "return"


def package_files():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))] + [
        ROOT / "train_paddle.py"
    ]


def test_public_signatures_have_types():
    found, unused = [], set(ALLOWED)
    for path in package_files():
        file = path.relative_to(ROOT).as_posix()
        if file == "paddle_inline/ops/loops.py":
            continue  # what Numba compiles: addresses and sizes
        for line, name, missing in unannotated(ast.parse(path.read_text(encoding="utf-8"))):
            if f"{file}:{name}" in ALLOWED:
                unused.discard(f"{file}:{name}")
            else:
                found.append(f"{file}:{line}: {name}: {missing}")
    assert not found
    assert not unused, "allowed and not needed"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a: int, *b: int, c: int = 0, **d: int) -> None: ...", []),
        ("def f(a, *b, c=0, **d): ...", ["f: a, b, c, d, return"]),
        ("def f() -> None:\n    def g(x): ...", []),
        ("def _f(a): ...", []),
        ("class A:\n    def __init__(self, a) -> None: ...\n    def _g(self, a): ...", ["A.__init__: a"]),
        ("class A:\n    def __init__(self, a: int): ...", ["A.__init__: return"]),
        ("class A:\n    @staticmethod\n    def f(a) -> None: ...", ["A.f: a"]),
        (
            "class A:\n    @classmethod\n    def f(cls) -> None: ...\n    class B:\n        def g(self): ...",
            ["A.B.g: return"],
        ),
        ("class _A:\n    def f(self, a): ...", []),
        (
            "try:\n    import x\nexcept ImportError:\n    pass\nelse:\n    pass\nif 1:\n    def f(a) -> int: ...",
            ["f: a"],
        ),
    ],
)
def test_a_missing_type_is_seen(source, expected):
    assert [f"{name}: {missing}" for _, name, missing in unannotated(ast.parse(source))] == expected
