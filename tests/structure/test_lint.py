"""Rules of this project that ruff does not know."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked_files():
    """The files of the project, by git; of the working folder where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.split("\0")[:-1] if done.returncode == 0 else map(str, ROOT.rglob("*"))
    return [path for path in (ROOT / name for name in names) if path.is_file()]


# ---------------------------------------------------------------- float(tensor)

# numpy 2.4 made float() and int() of a Paddle tensor of shape [1] an error: .item() works on every version.
REDUCTIONS = {"abs", "max", "mean", "min", "norm", "prod", "sqrt", "square", "std", "sum", "var"}
NUMPY = {"np", "numpy", "math"}


def float_calls(tree):
    """(line, source) of each float(...) or int(...) whose argument is, as far as a reader sees, a tensor:
    a call of paddle or its functional module, a reduction of something, or a name that was given one."""
    for function in ast.walk(tree):
        if not isinstance(function, (ast.Module, ast.FunctionDef)):
            continue
        nodes = list(own_nodes(function))
        tensors = {
            target.id
            for node in nodes
            if isinstance(node, ast.Assign) and is_tensor(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes:
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if ast.unparse(node.func) in ("float", "int") and is_tensor(node.args[0], tensors):
                yield node.lineno, ast.unparse(node)


def own_nodes(function):
    """What stands in a function or module, without the functions inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def is_tensor(node, tensors):
    if isinstance(node, ast.Name):
        return node.id in tensors
    if isinstance(node, ast.BinOp):
        return is_tensor(node.left, tensors) or is_tensor(node.right, tensors)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        root = node.func
        while isinstance(root, (ast.Attribute, ast.Call, ast.Subscript)):
            root = root.func if isinstance(root, ast.Call) else root.value
        name = root.id if isinstance(root, ast.Name) else ""
        if name in NUMPY or "numpy()" in ast.unparse(node):
            return False
        return name in ("paddle", "F") or node.func.attr in REDUCTIONS
    return False


def test_no_float_of_a_tensor():
    found = []
    for path in tracked_files():
        source = path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
        if re.search(r"^\s*(import|from) paddle\b", source, re.MULTILINE):
            found += [
                f"{path.relative_to(ROOT)}:{line}: {call}" for line, call in float_calls(ast.parse(source))
            ]
    assert not found, "use .item()"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("float(loss.mean())", 1),
        ("int(paddle.argmax(x))", 1),
        ("def f(x):\n    loss = F.cross_entropy(x, y)\n    return float(loss)", 1),
        ("float((a - b).abs().max())", 1),
        ("loss.mean().item()", 0),
        ("float(np.max(x))", 0),
        ("float(x.numpy().max())", 0),
        ("int(dim * ratio)", 0),
        ("float('5e-4')", 0),
    ],
)
def test_what_counts_as_a_float_of_a_tensor(source, count):
    assert len(list(float_calls(ast.parse(source)))) == count


# ---------------------------------------------------------------- the project speaks of itself alone

# A reader has this repository and nothing else. Written so that this file does not match itself.
FOREIGN = {
    "a path of somebody's machine": r"(?<![\w.])/(?:work|root|home(?!/aistudio))/[a-z]|/tmp/[v]/",
    "a file outside the repository": r"\.\./share[d]",
    "a package registry's host": r"pyp[i]\.org|pythonhoste[d]|download\.pytorc[h]|bceb[o]s",
}


def foreign_words(text):
    """(line number, what it is, the line) of each line that speaks of something else."""
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FOREIGN.items():
            if re.search(pattern, line):
                yield number, what, line.strip()


def test_the_project_speaks_of_itself_alone():
    found = []
    for path in tracked_files():
        if path.suffix in (".npz", ".png", ".jpg", ".jpeg", ".pdparams", ".pth", ".safetensors"):
            continue
        for number, what, line in foreign_words(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(ROOT)}:{number}: {what}: {line[:80]}")
    assert not found


@pytest.mark.parametrize(
    "line",
    ["see /work" + "/main", "../share" + "d/x", "pip -i https://pyp" + "i.org"],
)
def test_foreign_words_are_seen(line):
    assert list(foreign_words(line))


@pytest.mark.parametrize(
    "line", ["/framework/a", "the session's scope", "/home", "Paddle's issue 77340", "paddle/issues/77340"]
)
def test_other_words_are_not(line):
    assert not list(foreign_words(line))


# ---------------------------------------------------------------- lines of prose

PROSE = ("README.md", "README_zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md")
LONGEST_LINE = 120  # characters


def long_lines(text):
    """(line number, its length) of each line of prose in Markdown that is too long. Tables, code and lines that
    hold an address cannot be broken."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not (fence or line.lstrip().startswith("|") or "://" in line) and len(line) > LONGEST_LINE:
            yield number, len(line)


def test_lines_of_prose_are_short():
    files = [path for pattern in PROSE for path in sorted(ROOT.glob(pattern))]
    assert len(files) > 10
    found = [
        f"{path.relative_to(ROOT)}:{number}: {length} characters"
        for path in files
        for number, length in long_lines(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (f"{'a' * 120}\n{'a' * 121}\n", [2]),
        (f"```\n{'a' * 121}\n```\n{'a' * 121}\n", [4]),
        (f"````\n```\n{'a' * 121}\n````\n{'a' * 121}\n", [5]),
        (f"| {'a' * 121} |\n  | {'a' * 121} |\n", []),
        (f"[{'a' * 121}](https://a.b)\n", []),
        ("\u4e2d" * 120 + "\n" + "\u4e2d" * 121, [2]),  # characters, not bytes
    ],
)
def test_long_lines_are_seen(text, numbers):
    assert [number for number, _ in long_lines(text)] == numbers


def without_a_reason(paths):
    """Files above 300 lines whose head does not say why."""
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    heads = {path: ast.get_docstring(ast.parse(text)) or "" for path, text in texts.items()}
    return [
        path
        for path, text in texts.items()
        if text.count("\n") > 300 and "above 300" not in heads[path].lower()
    ]


def test_long_files_say_why_in_their_head(tmp_path):
    packages = ("paddle_inline", "torch_ref", "convert")
    assert without_a_reason(path for package in packages for path in (ROOT / package).rglob("*.py")) == []
    long = tmp_path / "long.py"
    long.write_text('"""Much."""\n' + "a = 1\n" * 300, encoding="utf-8")
    assert without_a_reason([long]) == [long]
    long.write_text('"""Much.\n\n(Above 300 lines: a reason.)\n"""\n' + "a = 1\n" * 300, encoding="utf-8")
    assert without_a_reason([long]) == []
