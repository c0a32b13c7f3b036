"""What of PaddleSeg 2.8.0 is wrong, or fails on Paddle 3; its git tree of 2024 needs none of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle

from ..layers.batch_norm import BatchNorm2d
from ..toolkits.launcher import require
from ..toolkits.mends import Mend, fails, shadow
from ..training.sync_bn import synchronise
from ..utils.errors import MissingPackageError, UserError

# (A git tree has no version of its own, and says 0.0.0.dev0.)
INSTALL = "pip install paddleseg==2.8.0 'numpy<2' 'setuptools<81'"


def toolkit(module: str = "") -> Any:
    """Return PaddleSeg, or a module of it such as "core.infer".

    Raises:
        MissingPackageError: it is not installed, or cannot be imported; with the command that installs it.
    """
    try:
        package = require("paddleseg", INSTALL)
        return require(f"paddleseg.{module}", INSTALL) if module else package
    except UserError:
        raise
    except (ImportError, AttributeError) as error:  # as of an OpenCV that was built for numpy 1
        why = " ".join(str(error).split())
        raise MissingPackageError(
            f"PaddleSeg cannot be imported ({why}); its wheel goes with: {INSTALL}"
        ) from error


def _loss_fails() -> bool:
    loss = toolkit("models.losses.cross_entropy_loss").CrossEntropyLoss()
    logits, labels = paddle.zeros([1, 2, 1, 2]), paddle.zeros([1, 1, 2], "int64")
    return fails(lambda: loss(logits, labels), TypeError)


def _mend_loss() -> None:
    """Make the average's weights, integers without class weights, real numbers."""
    module = toolkit("models.losses.cross_entropy_loss")

    shadow(module, "paddle", ones_like=lambda x: paddle.ones_like(x.astype("float32")))


def _areas_fail() -> bool:
    one = paddle.zeros([1, 1, 1], "int64")
    return fails(lambda: toolkit("utils.metrics").calculate_area(one, one, 2), ValueError)


def _mend_areas() -> None:
    """Let the areas of the classes, numbers without a dimension, be put together."""
    module = toolkit("utils.metrics")

    shadow(module, "paddle", concat=lambda x: paddle.stack(x) if x[0].ndim == 0 else paddle.concat(x))


def _crop(max_ratio: float) -> Any:
    """Return what a crop of 2 x 2 makes of a picture of sevens whose labels are mixed, at most `max_ratio` of one."""
    crop = toolkit("transforms").RandomPaddingCrop(crop_size=[2, 2], category_max_ratio=max_ratio)
    labels = np.indices((4, 4)).sum(0).astype("uint8") % 2
    return crop({"img": np.full((4, 4, 3), 7.0, "float32"), "label": labels, "gt_fields": ["label"]})["img"]


def _crop_is_wrong() -> bool:
    state = np.random.get_state()
    try:
        pictures = [_crop(0.75), _crop(0.1)]  # one that is found, one that never is
    finally:
        np.random.set_state(state)
    return any(picture.shape != (2, 2, 3) or (picture != 7).any() for picture in pictures)


def _mend_crop() -> None:
    """Cut the picture where the labels are cut, whatever the search for mixed labels has found."""
    transforms = toolkit("transforms.transforms")

    def call(self: Any, data: dict[str, Any]) -> dict[str, Any]:
        if tuple(data["img"].shape[:2]) == self.crop_size:
            return data
        data = self._padding(data)
        size = data["img"].shape[:2]
        box = self._get_crop_coordinates(size)
        for _ in range(self.loop_times if self.category_max_ratio < 1 else 0):
            labels, counts = np.unique(transforms.functional.crop(data["label"], box), return_counts=True)
            counts = counts[labels != self.ignore_index]
            if len(counts) > 1 and counts.max() < self.category_max_ratio * counts.sum():
                break
            box = self._get_crop_coordinates(size)
        for key in ("img", *data.get("gt_fields", [])):
            data[key] = transforms.functional.crop(data[key], box)
        return data

    transforms.RandomPaddingCrop.__call__ = call


def _short_side_drifts() -> bool:
    resize = toolkit("transforms").ResizeByShort(short_size=4, max_size=8)
    resize({"img": np.zeros((2, 8, 3), "float32"), "trans_info": []})
    return bool(resize.short_size != 4)


def _mend_short_side() -> None:
    """Let the limit of one picture's long side not become the next pictures' short side."""
    kind = toolkit("transforms").ResizeByShort
    once = kind.__call__

    def call(self: Any, data: dict[str, Any]) -> Any:
        return once(SimpleNamespace(**vars(self)), data)

    kind.__call__ = call


def _converts_ours() -> bool:
    return not hasattr(toolkit("utils.utils").convert_sync_batchnorm, "keeps_ours")


def _mend_conversion() -> None:
    """Put our layers back where they were, so that they see all ranks by their own means."""
    module = toolkit("utils.utils")
    once = module.convert_sync_batchnorm

    def convert(model: paddle.nn.Layer, device: str) -> paddle.nn.Layer:
        ours = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, BatchNorm2d)}
        model = once(model, device)
        for name, layer in ours.items():
            parent, _, leaf = name.rpartition(".")
            owner = dict(model.named_sublayers(include_self=True))[parent]
            owner.add_sublayer(leaf, layer)
        return synchronise(model, paddle.distributed.get_world_size())

    convert.keeps_ours = True  # type: ignore[attr-defined]
    module.convert_sync_batchnorm = convert


MENDS = (
    Mend(
        "cross-entropy",
        "PaddleSeg 2.8.0 multiplies its mask by integers, which Paddle 3 refuses",
        _loss_fails,
        _mend_loss,
    ),
    Mend(
        "areas of the metrics",
        "PaddleSeg 2.8.0 concatenates sums without a dimension, which Paddle 3 refuses",
        _areas_fail,
        _mend_areas,
    ),
    Mend(
        "RandomPaddingCrop",
        "with category_max_ratio PaddleSeg 2.8.0 takes the labels for the picture, or leaves the picture uncut",
        _crop_is_wrong,
        _mend_crop,
    ),
    Mend(
        "ResizeByShort",
        "with max_size, one long picture makes all later ones smaller, in every version",
        _short_side_drifts,
        _mend_short_side,
    ),
    Mend(
        "SyncBatchNorm",
        "the conversion would replace our BatchNorm2d, whose running variance is the unbiased one",
        _converts_ours,
        _mend_conversion,
    ),
)
