"""A program of Paddle 3 as an ONNX file; where paddle2onnx is missing, by way of PyTorch."""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..utils.child import run_python
from ..utils.errors import MissingPackageError
from .checks import ExportError

if TYPE_CHECKING:
    import paddle

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


def onnx_writer() -> str:
    """Return what writes ONNX files here: "paddle2onnx", or "torch.onnx" where that is missing and PyTorch is not.

    Raises:
        MissingPackageError: neither is installed.
    """
    for package, writer in (("paddle2onnx", "paddle2onnx"), ("torch", "torch.onnx")):
        if find_spec(package) is not None:
            return writer
    raise MissingPackageError(
        "an ONNX file needs paddle2onnx (pip install paddle2onnx onnxruntime) or, on Python 3.13, for which there "
        "is no paddle2onnx, PyTorch (pip install torch onnx onnxruntime)"
    )


def write_onnx_by_torch(model: paddle.nn.Layer, file: Path, batch: int | None) -> None:
    """Write a model's twin in PyTorch as ONNX and check its padding.

    It runs in a process of its own: this package loads no PyTorch.

    Args:
        model: of `create_model`.
        file: to write.
        batch: its one batch size; None: any.

    Raises:
        ExportError: it failed, or wrote a file that `check_pads` refuses.
    """
    import paddle

    from ..models.factory import overrides_of

    code = (
        "import json, sys; from convert.torch_onnx import write; "
        "write(*sys.argv[1:4], *json.loads(sys.argv[4]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.pdparams")
        paddle.save(model.state_dict(), str(weights))
        done = run_python(code, weights, file, model.name, json.dumps([batch, overrides_of(model)]))
    if done.returncode or not file.is_file():
        file.unlink(missing_ok=True)
        raise ExportError(f"torch.onnx failed on {model.name}:\n{done.stderr[-2000:]}")
    check_pads(file)


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
