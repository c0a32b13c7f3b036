"""A converted file is read back and run: both frameworks have to compute the same, in float64, on the same images."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_inline.utils.errors import UserError
from paddle_inline.weights.bfloat16 import from_bfloat16
from paddle_inline.weights.lazy_array import LazyArray
from paddle_inline.weights.torch_layout import translated

from .backbones import build_backbone
from .checkpoint import Opened
from .errors import CheckFailedError
from .formats.select import select_weights
from .formats.source import open_source
from .identify import Identity
from .parity.inputs import BACKBONE_SIZE
from .parity.models import as_subject
from .parity.run import compare_models


def require_torch(why: str = "verifying runs the model in PyTorch too (--no-verify does without)") -> None:
    """Raise UserError where PyTorch is missing; it is not imported before a file has been read."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{why}; PyTorch is not installed: install it (README, Install)")


def check(written: Path, opened: Opened, target: Identity, side: str, exact: bool) -> dict[str, Any]:
    """Read a written file back and run it: both frameworks, the new file in one and the source in the other.

    Args:
        written: the file.
        opened: the source.
        target: the model of the file.
        side: "paddle" or "torch", whose file it is.
        exact: the result is the source in another layout, so reading it back must give the source's bits.

    Returns:
        What was found, for the sidecar.

    Raises:
        CheckFailedError: it is not the same function, or not the same bits.
    """
    back = select_weights(open_source(written)).arrays
    identity, source = opened.identity, opened.weights.arrays
    if exact:
        _check_bits(translated(back, target.model, side, identity.side), source)
        source = translated(source, identity.model, identity.side, "torch")
    else:
        source = translated(back, target.model, side, "torch")
    found = check_forward(target, translated(back, target.model, side, "paddle"), source)
    return {**found, "bits": "equal to the source's" if exact else "changed as noted"}


def check_forward(
    identity: Identity, paddle_arrays: Mapping[str, LazyArray], torch_arrays: Mapping[str, LazyArray]
) -> dict[str, Any]:
    """Run a model in both frameworks, in float64, on the same images.

    Args:
        identity: the model.
        paddle_arrays: {Paddle name: LazyArray}, its weights in Paddle.
        torch_arrays: {PyTorch name: LazyArray}, its weights in PyTorch.

    Returns:
        What was found, for the sidecar.

    Raises:
        CheckFailedError: naming the first sublayer that differs.
    """
    import torch

    import paddle_inline
    import torch_ref

    if identity.maps is None:
        paddle_model = paddle_inline.create_model(identity.name, **identity.overrides)
        torch_model = torch_ref.create_model(identity.name, **identity.overrides)
    else:
        which = identity.name, identity.overrides, identity.maps
        paddle_model, torch_model = build_backbone(*which), build_backbone(*which, "torch_ref")
        as_subject(paddle_model, identity.name)
    paddle_inline.load_weights(paddle_model, _values(paddle_arrays))
    state = {name: torch.from_numpy(value) for name, value in _values(torch_arrays).items()}
    counters = {name for name in torch_model.state_dict() if name.endswith(".num_batches_tracked")}
    state.update({name: torch.zeros((), dtype=torch.int64) for name in counters - set(state)})
    torch_model.load_state_dict(state, strict=True)
    paddle_model.eval()
    torch_model.eval()
    report = compare_models(paddle_model, torch_model, backward=False, batch=1)
    if not report.passed:
        row = report.worst()
        where = f"first at {report.first_divergence}, " if report.first_divergence else ""
        found = (
            f"{where}{row.max_rel:.1e} where {row.tolerance:.0e} is allowed"
            if row
            else "nothing was compared"
        )
        raise CheckFailedError(f"{identity} computes something else in the other framework: {found}")
    rows, what, size = [report.of_kind("output")[-1]], "logits", ""
    if identity.maps is not None:
        rows = [row for row in report.of_kind("output") if row.name.startswith("map ")]
        what, size = "maps", f" of {BACKBONE_SIZE[0]} x {BACKBONE_SIZE[1]} pixels"
    furthest = max(row.max_rel for row in rows)
    text = (
        f"forward pass{size} in float64, {len(report.rows)} sublayers equal, {what} to {furthest:.1e} "
        f"(allowed {rows[0].tolerance:.0e})"
    )
    return {
        "done": True,
        "passed": True,
        "text": text,
        what: [row.max_rel for row in rows] if what == "maps" else furthest,
        "allowed": rows[0].tolerance,
        **report.versions,
    }


def _check_bits(back: Mapping[str, LazyArray], source: Mapping[str, LazyArray]) -> None:
    for name, array in source.items():
        found, wanted = back[name].read(), array.read()
        if found.dtype != wanted.dtype or found.shape != wanted.shape or found.tobytes() != wanted.tobytes():
            raise CheckFailedError(f"{name} does not come back bit for bit")


def _values(arrays: Mapping[str, LazyArray]) -> dict[str, np.ndarray]:
    """{name: array} with bfloat16 as float32, which numpy knows."""
    return {
        name: from_bfloat16(array.read()) if array.dtype == "bfloat16" else np.array(array.read())
        for name, array in arrays.items()
    }
