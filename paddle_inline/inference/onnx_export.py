"""A program of Paddle 3 as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..utils.child import run_python
from ..utils.errors import MissingPackageError
from .checks import ExportError

OPSET = 17  # the first with LayerNormalization


def write_onnx(program: Path, params: Path, path: Path) -> None:
    """Translate a program of Paddle 3 to ONNX and check its padding.

    It runs in a process of its own: paddle2onnx aborts the whole process on what it cannot translate.

    Raises:
        MissingPackageError: paddle2onnx is not installed.
        ExportError: it failed, or wrote a file that `check_pads` refuses.
    """
    code = "import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:4], opset_version=int(sys.argv[4]))"
    done = run_python(code, program, params, path, OPSET)
    if "No module named 'paddle2onnx'" in done.stderr:
        raise MissingPackageError("paddle2onnx is not installed: pip install paddle2onnx onnxruntime")
    if done.returncode or not path.is_file():
        raise ExportError(f"paddle2onnx failed on {program.name}:\n{done.stderr[-2000:]}")
    check_pads(path)


def check_pads(path: Path) -> None:
    """Refuse an ONNX file with a `Pad` whose fill value is not a stored zero.

    paddle2onnx 2.1 writes uninitialised memory as that value, another at each export. Our models pad nothing
    that way; this looks at every one all the same.

    Raises:
        ExportError: such a `Pad` is there.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = numpy_helper.to_array(attribute.t)
    for node in graph.node:
        if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
            value = constants.get(node.input[2])
            if value is None or np.any(value != 0):
                found = "a computed value" if value is None else value.tolist()
                raise ExportError(f"{path.name}: the Pad {node.name!r} fills with {found}, it must be 0")
