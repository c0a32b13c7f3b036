"""Mixup and cutmix against timm: the same draws, the same images, the same targets."""

import numpy as np
import paddle
import pytest

from paddle_inline.config.load import load_config
from paddle_inline.data.mixup import Mixup
from paddle_inline.training.build_data import build_mixup

SETTINGS = {
    "recipe": dict(),
    "mixup only": dict(cutmix=0.0),
    "cutmix only": dict(mixup=0.0, cutmix=0.7),
    "minmax": dict(cutmix_minmax=[0.2, 0.8]),
    "half": dict(prob=0.5, switch_prob=0.3, smoothing=0.0),
}


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_mixup_equals_timm(timm_data, paired, mode, setting):
    import torch

    given = SETTINGS[setting]
    reference = timm_data.Mixup(
        mixup_alpha=given.get("mixup", 0.8),
        cutmix_alpha=given.get("cutmix", 1.0),
        cutmix_minmax=given.get("cutmix_minmax"),
        prob=given.get("prob", 1.0),
        switch_prob=given.get("switch_prob", 0.5),
        mode=mode,
        label_smoothing=given.get("smoothing", 0.1),
        num_classes=7,
    )
    candidate = Mixup(7, mode=mode, **given)
    images = np.random.RandomState(1).standard_normal((6, 3, 20, 28)).astype(np.float32)
    labels = np.array([3, 0, 6, 6, 1, 2])
    for seed in range(25):
        draws = paired(seed)
        x, y = reference(torch.from_numpy(images.copy()), torch.from_numpy(labels))
        mixed, targets = candidate(paddle.to_tensor(images), paddle.to_tensor(labels), draws.np)
        # One product and one sum each; the frameworks may fuse them: one rounding of values below 8.
        np.testing.assert_allclose(mixed.numpy(), x.numpy(), rtol=0, atol=5e-7)
        np.testing.assert_allclose(targets.numpy(), y.numpy(), rtol=0, atol=1e-7)
        np.testing.assert_allclose(targets.numpy().sum(1), 1, rtol=0, atol=1e-6)


def test_batch_mode_mixes_as_written_down():
    """Lambda 0.25 on two flat images, by hand."""
    mixup = Mixup(2, cutmix=0.0, smoothing=0.0)
    mixup._draw_batch = lambda rng: (0.25, False)
    images = np.zeros((2, 1, 2, 2), np.float32)
    images[1] = 4
    mixed, targets = mixup(paddle.to_tensor(images), paddle.to_tensor([0, 1]), None)
    assert mixed.numpy()[:, 0, 0, 0].tolist() == [3, 1]
    assert targets.numpy().tolist() == [[0.25, 0.75], [0.75, 0.25]]


# (height, width), lambda, minmax -> ((top, bottom, left, right), lambda of the box) of timm 0.4.12, seeds 0 to 3
OF_TIMM_0_4 = {
    ((9, 15), 0.6, None): [
        ((3, 7, 0, 4), 0.8814814814814815),
        ((3, 7, 7, 15), 0.762962962962963),
        ((6, 9, 9, 15), 0.8666666666666667),
        ((6, 9, 5, 13), 0.8222222222222222),
    ],
    ((224, 224), 0.3, None): [
        ((79, 224, 0, 140), 0.5954241071428572),
        ((0, 130, 47, 224), 0.5414142219387755),
        ((75, 224, 0, 108), 0.6792889030612245),
        ((13, 199, 59, 224), 0.38835299744897955),
    ],
    ((9, 15), 0.6, (0.2, 0.8)): [
        ((0, 5, 3, 11), 0.7037037037037037),
        ((1, 7, 3, 14), 0.5111111111111111),
        ((6, 7, 3, 14), 0.9185185185185185),
        ((1, 4, 3, 14), 0.7555555555555555),
    ],
}


@pytest.mark.parametrize("size, lam, minmax", OF_TIMM_0_4)
def test_the_boxes_of_timm_0_4_on_request(size, lam, minmax):
    """Recorded from timm 0.4.12, which the authors pin; by default the boxes are timm 1.0's."""
    expected = OF_TIMM_0_4[size, lam, minmax]
    found = {}
    for boxes in ("timm-0.4", "exact"):
        mixup = Mixup(2, cutmix_minmax=minmax, boxes=boxes)
        found[boxes] = [mixup._box(*size, lam, np.random.RandomState(seed)) for seed in range(4)]
    assert [(tuple(map(int, box)), lam) for box, lam in found["timm-0.4"]] == expected
    assert [(tuple(map(int, box)), lam) for box, lam in found["exact"]] != expected
    config = load_config(assignments=["aug.cutmix_boxes=timm-0.4"])
    assert build_mixup(config, 2).old_boxes and not build_mixup(load_config(), 2).old_boxes


def test_what_it_refuses():
    with pytest.raises(ValueError, match="batch, pair, elem"):
        Mixup(10, mode="triple")
    with pytest.raises(ValueError, match=r"exact, timm-0\.4"):
        Mixup(10, boxes="timm")
    with pytest.raises(ValueError, match="both 0"):
        Mixup(10, mixup=0.0, cutmix=0.0)
    with pytest.raises(ValueError, match="even batch, got 3"):
        Mixup(10)(paddle.zeros([3, 3, 4, 4]), paddle.zeros([3], "int64"), np.random.RandomState(0))
