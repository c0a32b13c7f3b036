"""A detector as one traced program for pictures of one size, and its answers as the detector's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle

INPUTS = ("image", "scale_factor", "im_shape")


class Exported(paddle.nn.Layer):
    """image [1, 3, H, W], scale_factor [1, 2] and, for two-stage detectors, im_shape [1, 2] -> boxes and masks.

    The toolkit's own path for one image, which has no loop over a batch, ends with a box that stands for none; it is
    left out.

    Returns:
        boxes [N, 6] of class, score, x1, y1, x2, y2 in the original picture's pixels; their number [1]; masks
        [N, H', W'], if the detector has any.
    """

    def __init__(self, detector: paddle.nn.Layer) -> None:
        super().__init__()
        self.detector = detector
        self.two_stages = hasattr(detector, "rpn_head")

    def forward(
        self, image: paddle.Tensor, scale_factor: paddle.Tensor, im_shape: paddle.Tensor | None = None
    ) -> tuple[paddle.Tensor, ...]:
        if im_shape is None:
            im_shape = paddle.zeros([1, 2])  # which a detector of one stage does not look at
        found = self.detector({"image": image, "im_shape": im_shape, "scale_factor": scale_factor})
        if not self.two_stages:
            return found["bbox"], found["bbox_num"]
        boxes = (found["bbox"][:-1], found["bbox_num"] - 1)
        return (*boxes, found["mask"][:-1]) if "mask" in found else boxes


def for_one_image(detector: Any, one: bool) -> None:
    """Let the parts of a detector take the toolkit's path for one image, or no longer."""
    for part in _parts(detector):
        if hasattr(part, "export_onnx"):
            part.export_onnx = one


def _parts(detector: Any) -> Iterable[Any]:
    yield from detector.sublayers()
    for part in vars(detector).values():  # some are no layers
        yield part
        yield getattr(part, "decode", None)
    yield getattr(getattr(detector, "bbox_post_process", None), "decode", None)


def save(detector: Any, path: str, size: tuple[int, int]) -> list[str]:
    """Write a detector as PATH.json and PATH.pdiparams.

    Args:
        detector: of the toolkit, in eval mode.
        path: of the files, without a suffix.
        size: height and width of the prepared images, padded to what divides by 32.

    Returns:
        The names of its inputs, in order.
    """
    layer = Exported(detector)
    layer.eval()
    names = INPUTS if layer.two_stages else INPUTS[:2]
    shapes = {"image": [1, 3, *size], "scale_factor": [1, 2], "im_shape": [1, 2]}
    specs = [paddle.static.InputSpec(shapes[name], "float32", name) for name in names]
    for_one_image(detector, layer.two_stages)
    try:
        paddle.jit.save(paddle.jit.to_static(layer, input_spec=specs, full_graph=True), path)
    finally:
        for_one_image(detector, False)
    return list(names)
