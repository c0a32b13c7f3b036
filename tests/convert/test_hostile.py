"""A file from a stranger runs nothing, eats no memory, ends in one clear message, leaves the output alone.

One process converts them all, as the command line does, and writes down how each ended.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import paddle_inline
import torch_ref  # without PyTorch this file is left out
from tests.convert.hostile import MAKERS, TRAP, Trap

RUNNER = r"""
import contextlib, io, json, re, sys, time
from pathlib import Path
from convert.__main__ import main

for line in sys.stdin:
    file = Path(line.strip())
    side = "to-torch" if file.suffix == ".pdparams" else "to-paddle"
    output = file.parent / ("out.pth" if side == "to-torch" else "out.pdparams")
    said, started = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([side, str(file), str(output)])
    print(json.dumps({
        "code": code,
        "message": said.getvalue(),
        "seconds": time.perf_counter() - started,
        "peak": int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024,
        "paddle": "paddle" in sys.modules,
    }), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{maker's name: (its folder, how the conversion ended)}."""
    folders, files = {}, []
    for name, (make, _) in MAKERS.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        files.append(make(folder))
        for output in ("out.pth", "out.pdparams"):
            (folder / output).write_bytes(b"old")
    process = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input="\n".join(map(str, files)),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = process.stdout.splitlines()
    assert len(lines) == len(MAKERS), process.stderr[-2000:]
    return {name: (folders[name], json.loads(line)) for name, line in zip(MAKERS, lines)}


@pytest.mark.parametrize("name", MAKERS)
def test_hostile_file(outcomes, name):
    folder, outcome = outcomes[name]
    assert outcome["code"] == MAKERS[name][1], outcome["message"]
    assert outcome["message"].count("error: ") == 1
    assert "Traceback" not in outcome["message"]
    assert len(outcome["message"]) < 4000
    assert not (folder / TRAP).exists()
    left = {path.name for path in folder.iterdir() if "out" in path.name}
    assert left == {"out.pth", "out.pdparams"}
    assert all((folder / name).read_bytes() == b"old" for name in left)
    assert outcome["peak"] < 512 << 20
    assert outcome["seconds"] < 60


def test_files_that_cannot_be_read_are_refused_before_paddle_is_loaded(outcomes):
    last = list(MAKERS).index("description_of_a_deep_model")  # from there on the model is needed to say more
    before = [outcome for _, outcome in list(outcomes.values())[:last]]
    assert not any(outcome["paddle"] for outcome in before)
    assert len(before) > 50


def test_nothing_climbed_out(outcomes):
    assert not Path("/tmp/escaped").exists()
    assert outcomes


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("description_of")])
def test_no_model_is_built_from_such_a_description(tmp_path, name):
    path = MAKERS[name][0](tmp_path)
    package = torch_ref if path.suffix == ".pth" else paddle_inline
    with pytest.raises(ValueError, match=r"another model's|cannot be built|unknown model"):
        package.create_model(weights=path)


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path)))
    assert (tmp_path / TRAP).exists()
