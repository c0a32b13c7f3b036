"""Classes of pictures of any size, whole or by a sliding window, and the scores of a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle

from ..training.distributed import all_reduce_sum
from .data import read_sample
from .mends import toolkit
from .scores import IGNORED, Scores


@paddle.no_grad()
def classes_of(model: paddle.nn.Layer, sample: dict[str, Any], test: dict[str, Any]) -> np.ndarray:
    """Return the classes [H, W] of a picture, as large as its file.

    Args:
        model: in eval mode.
        sample: of the toolkit's transforms: `img` [3, h, w], and `trans_info` on how it came to that size.
        test: the settings `test_config`: a sliding window (is_slide, crop_size, stride), or several scales and
            mirrored pictures (aug_eval, scales, flip_horizontal, flip_vertical).
    """
    infer = toolkit("core.infer")
    images = paddle.to_tensor(np.ascontiguousarray(sample["img"])[np.newaxis])
    window = {key: test.get(key) for key in ("is_slide", "crop_size", "stride")}
    if test.get("aug_eval"):
        scales = test.get("scales", 1.0)
        found = infer.aug_inference(
            model,
            images,
            trans_info=sample["trans_info"],
            scales=scales if isinstance(scales, (list, tuple)) else float(scales),
            flip_horizontal=test.get("flip_horizontal", True),
            flip_vertical=test.get("flip_vertical", False),
            **window,
        )
    else:
        found = infer.inference(model, images, trans_info=sample["trans_info"], **window)
    return found[0].numpy()[0, 0]


def evaluate(
    model: paddle.nn.Layer, dataset: Any, test: dict[str, Any], *, rank: int = 0, world: int = 1
) -> Scores:
    """Return the scores of a data set, the same on all ranks and for any number of them.

    Args:
        model: a segmenter; it is in its mode of before afterwards.
        dataset: of the toolkit, whose labels are as large as the pictures' files.
        test: see `classes_of`.
        rank, world: this rank takes each `world`-th picture.

    Raises:
        UserError: a picture or its labels cannot be used.
    """
    scores = Scores(dataset.num_classes, getattr(dataset, "ignore_index", IGNORED))
    with in_eval_mode(model):
        for index in range(rank, len(dataset), world):
            sample = read_sample(dataset, index)
            labels = np.asarray(sample["label"])
            name = dataset.file_list[index][1] if hasattr(dataset, "file_list") else f"picture {index}"
            scores.add(classes_of(model, sample, test), labels.reshape(labels.shape[-2:]), name)
    scores.counts = all_reduce_sum(scores.counts.ravel(), world).reshape(scores.counts.shape)
    return scores


@contextlib.contextmanager
def in_eval_mode(model: paddle.nn.Layer) -> Iterator[None]:
    """Keep a model in eval mode while this lasts; each of its layers has its own mode again afterwards."""
    modes = {layer: layer.training for layer in model.sublayers(include_self=True)}
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
