"""What PaddleDetection's wheel, 2.6.0, needs on Paddle 3; its git tree of October 2024 needs two of them.

Those two are for exports and for the checkpoints of a run that is killed. Most of the others are of one kind: since
Paddle 2.6 an element of a tensor has no dimension, and such tensors cannot be concatenated; the wheel is of the time
when they had one. Each place where it shows is a row: the probe runs the toolkit's own function on a box or two.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import paddle

from ..toolkits.mends import Mend, fails, shadow
from ..weights.atomic import atomic_write
from .imports import ppdet

REASON = "since Paddle 2.6 an element of a tensor has no dimension, and concat takes none of these"


def concat(x: Sequence[paddle.Tensor], axis: int = 0, name: str | None = None) -> paddle.Tensor:
    """Concatenate as `paddle.concat`, taking a tensor without a dimension for one of a single element."""
    return paddle.concat([each.reshape([1]) if each.ndim == 0 else each for each in x], axis, name)


def _module(name: str) -> Any:
    return ppdet(f"modeling.{name}")


def _boxes() -> paddle.Tensor:
    return paddle.to_tensor([[0.0, 0.0, 4.0, 4.0]])


def _proposals(exported: bool = False) -> Any:
    """Collect the proposals of one image: their boxes and their number [1]."""

    def propose(**given: Any) -> tuple[Any, ...]:
        return _boxes(), paddle.ones([1, 1]), paddle.ones([1], "int32"), 1

    head = SimpleNamespace(training=False, test_proposal=propose, export_onnx=exported)
    size = {"im_shape": paddle.to_tensor([[8.0, 8.0]])}
    one = [paddle.ones([1, 1, 1, 1])]
    return _module("proposal_generator.rpn_head").RPNHead._gen_proposal(head, one, one, one, size)


def _number_of_proposals() -> None:
    """Give the number of an exported model's proposals its dimension."""
    head = _module("proposal_generator.rpn_head").RPNHead
    collect = head._gen_proposal

    def _gen_proposal(self: Any, scores: Any, bbox_deltas: Any, anchors: Any, inputs: Any) -> tuple[Any, Any]:
        rois, number = collect(self, scores, bbox_deltas, anchors, inputs)
        return rois, number.reshape([-1])

    head._gen_proposal = _gen_proposal


def _box_targets() -> Any:
    """Match one box with one object."""
    zero = paddle.zeros([1, 1], "int32")
    return _module("proposal_generator.target").generate_proposal_target(
        [_boxes()], [zero], [_boxes()], 1, 0.5, 0.5, 0.5, 1, use_random=False, is_cascade=False
    )


def _cascade() -> Any:
    """Clip the boxes of one image for the next stage."""
    return _module("heads.cascade_head").CascadeHead._get_rois_from_boxes(
        SimpleNamespace(training=False), [_boxes()], paddle.to_tensor([[8.0, 8.0]])
    )


def _predictions() -> None:
    """Scale one predicted box back to its image, by the path of programs too."""
    boxes = paddle.to_tensor([[0.0, 0.5, 0.0, 0.0, 4.0, 4.0]])
    for exported in (False, True):
        _module("post_process").BBoxPostProcess.get_pred(
            SimpleNamespace(export_eb=False, export_onnx=exported),
            boxes,
            paddle.ones([1], "int32"),
            paddle.to_tensor([[8.0, 8.0]]),
            paddle.ones([1, 2]),
        )


def _suppress_in_a_program() -> Any:
    """Put non-maximum suppression into a program, as an export does."""
    paddle.enable_static()
    try:
        with paddle.static.program_guard(paddle.static.Program()):
            boxes = paddle.static.data("boxes", [1, 2, 4])
            scores = paddle.static.data("scores", [1, 1, 2])
            return _module("ops").multiclass_nms(boxes, scores, 0.5, 2, 2)
    finally:
        paddle.disable_static()


def _suppress_anywhere() -> None:
    """Give the toolkit's non-maximum suppression the operator of today's programs."""
    ops = _module("ops")
    eager = ops.multiclass_nms

    @paddle.jit.not_to_static
    def multiclass_nms(
        bboxes: paddle.Tensor,
        scores: paddle.Tensor,
        score_threshold: float,
        nms_top_k: int,
        keep_top_k: int,
        nms_threshold: float = 0.3,
        normalized: bool = True,
        nms_eta: float = 1.0,
        background_label: int = -1,
        return_index: bool = False,
        return_rois_num: bool = True,
        rois_num: paddle.Tensor | None = None,
        name: str | None = None,
    ) -> tuple[Any, ...]:
        thresholds = (
            score_threshold,
            nms_top_k,
            keep_top_k,
            nms_threshold,
            normalized,
            nms_eta,
            background_label,
        )
        if paddle.in_dynamic_mode():
            return eager(bboxes, scores, *thresholds, return_index, return_rois_num, rois_num)
        boxes, index, number = paddle._C_ops.multiclass_nms3(bboxes, scores, rois_num, *thresholds)
        return boxes, number if return_rois_num else None, index if return_index else None

    ops.multiclass_nms = multiclass_nms


def save_whole(obj: Any, path: str, *given: Any, **named: Any) -> None:
    """Save as `paddle.save`, so that a file, and a pair of weights and optimizer, is whole or not there.

    The optimizer's file of earlier weights goes before new weights come: those without it are no checkpoint to go on
    from.
    """
    base, suffix = os.path.splitext(path)
    if suffix == ".pdparams":
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{base}.pdopt")
    with atomic_write(path) as partial:
        paddle.save(obj, str(partial), *given, **named)


def _leaves_parts() -> bool:
    """Return whether a checkpoint that breaks off is left half-written in its place."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.pdparams")
        with contextlib.suppress(Exception):
            ppdet("utils.checkpoint").paddle.save({"no pickle takes a generator": (_ for _ in ())}, path)
        return os.path.exists(path)


def _row(name: str, module: str, probe: Callable[[], Any]) -> Mend:
    return Mend(
        name,
        REASON,
        lambda: fails(probe, ValueError),
        lambda: shadow(_module(module), "paddle", concat=concat),
    )


MENDS = (
    _row("proposals of the region proposal network", "proposal_generator.rpn_head", _proposals),
    Mend(
        "proposals in exports",
        REASON,
        lambda: _proposals(exported=True)[1].ndim == 0,
        _number_of_proposals,
    ),
    _row("targets of boxes and masks", "proposal_generator.target", _box_targets),
    _row("boxes between the stages of a cascade", "heads.cascade_head", _cascade),
    _row("predicted boxes", "post_process", _predictions),
    Mend(
        "suppression in exports",
        "since Paddle 3 programs are of another kind, and its operator for the old kind takes nothing of theirs",
        lambda: fails(_suppress_in_a_program),
        _suppress_anywhere,
    ),
    Mend(
        "checkpoints",
        "the toolkit writes them in their place: a run that is killed meanwhile leaves a part of one",
        _leaves_parts,
        lambda: shadow(ppdet("utils.checkpoint"), "paddle", save=save_whole),
    ),
)
