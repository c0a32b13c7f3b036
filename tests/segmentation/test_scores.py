"""mIoU, mAcc and aAcc against counts that are taken pixel by pixel."""

import numpy as np
import pytest

from paddle_inline.segmentation.scores import Scores
from paddle_inline.utils.errors import UserError

CLASSES = 5


def pictures(seed, number=3, labelled=CLASSES, predicted=CLASSES):
    rng = np.random.RandomState(seed)
    for _ in range(number):
        shape = tuple(rng.randint(3, 9, 2))
        labels = rng.randint(0, labelled, shape).astype("uint8")
        labels[rng.rand(*shape) < 0.2] = 255
        yield rng.randint(0, predicted, shape).astype("int32"), labels


def by_hand(pairs):
    """(mIoU, mAcc, aAcc), from sets of pixels."""
    pixels = [(p, t) for classes, labels in pairs for p, t in zip(classes.flat, labels.flat) if t != 255]
    ious, accuracies = [], []
    for c in range(CLASSES):
        both = sum(p == c and t == c for p, t in pixels)
        either = sum(p == c or t == c for p, t in pixels)
        of = sum(t == c for _, t in pixels)
        ious += [both / either] if either else []
        accuracies += [both / of] if of else []
    right = sum(p == t for p, t in pixels) / len(pixels)
    return sum(ious) / len(ious), sum(accuracies) / len(accuracies), right


def score(pairs, classes=CLASSES):
    scores = Scores(classes)
    for predicted, labels in pairs:
        scores.add(predicted, labels)
    return scores


@pytest.mark.parametrize("labelled", [CLASSES, 3], ids=["all", "two-unlabelled"])
@pytest.mark.parametrize("predicted", [CLASSES, 4], ids=["all", "one-absent"])
def test_scores_equal_those_counted_pixel_by_pixel(labelled, predicted):
    pairs = list(pictures(labelled + predicted, labelled=labelled, predicted=predicted))
    scores = score(pairs)
    np.testing.assert_allclose((scores.miou, scores.macc, scores.aacc), by_hand(pairs), rtol=1e-15)


def test_a_class_that_is_nowhere_is_left_out_and_said():
    scores = score([(np.array([[0, 1]]), np.array([[0, 1]]))], classes=4)
    assert (scores.miou, scores.macc, scores.aacc) == (1, 1, 1)
    assert str(scores) == "mIoU 100.00, mAcc 100.00, aAcc 100.00 (2 of 4 classes absent, left out)"
    assert scores.to_json()["class_iou"] == [1, 1, None, None]
    # predicted and not labelled: an IoU of 0, and no accuracy
    scores = score([(np.array([[0, 2]]), np.array([[0, 0]]))], classes=4)
    assert scores.to_json()["class_iou"] == [0.5, None, 0, None]
    assert scores.to_json()["class_acc"] == [0.5, None, None, None]


def test_sums_of_parts_are_the_whole():
    pairs = list(pictures(0, number=4))
    whole, parts = score(pairs), [score(pairs[::2]), score(pairs[1::2])]
    assert (parts[0].counts + parts[1].counts == whole.counts).all()


def test_nothing_labelled_is_no_number():
    scores = score([(np.zeros((2, 2), int), np.full((2, 2), 255))])
    assert np.isnan([scores.miou, scores.macc, scores.aacc]).all()


@pytest.mark.parametrize("label", [5, 254, -1])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(
        UserError, match=rf"x\.png has labels {label}; classes are 0 to 4, and 255 is ignored"
    ):
        Scores(CLASSES).add(np.zeros((1, 2), int), np.array([[0, label]]), "x.png")


def test_labels_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"x\.png: labels are \[2, 1\]"):
        Scores(CLASSES).add(np.zeros((1, 2), int), np.zeros((2, 1), int), "x.png")
