"""Pictures of one's own: which are held out of a folder that has no val, and what is said where none can be."""

from collections import Counter

import pytest

from paddle_inline.data.sources import open_source
from paddle_inline.data.split import KEPT, Split, draw, keep_split, kept_split, names_below
from paddle_inline.utils.errors import MissingFileError, UserError
from tests.data.trees import picture, tree


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def folder(root, **counts):
    """root/CLASS/0.png ... so many of each."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(i, (4, 4)).save(root / name / f"{i}.png")
    return root


def both(root, split):
    return [open_source("folder", str(root), train=part, split=split) for part in (True, False)]


NAMES = [f"c{label}/{i}.jpg" for label in range(4) for i in range((1, 2, 30, 100)[label])]
LABELS = [int(name[1]) for name in NAMES]


@pytest.mark.parametrize(
    "share, held_out",
    [(0.1, [0, 1, 3, 10]), (0.001, [0, 1, 1, 1]), (0.5, [0, 1, 15, 50]), (0.99, [0, 1, 29, 99])],
)
def test_each_class_is_shared_and_keeps_an_image_on_both_sides(share, held_out):
    found = draw(NAMES, LABELS, share, 0)
    counts = Counter(int(name[1]) for name in found)
    assert [counts[label] for label in range(4)] == held_out


def test_the_seed_decides_and_the_order_of_the_names_does_not():
    first = draw(NAMES, LABELS, 0.3, 0)
    assert draw(NAMES[::-1], LABELS[::-1], 0.3, 0) == first != draw(NAMES, LABELS, 0.3, 1)
    assert sorted(draw([f"a/{i}" for i in range(10)], [0] * 10, 0.3, 7)) == ["a/2", "a/5", "a/8"]


def test_other_classes_change_nothing_and_an_image_more_at_most_one():
    first = {name for name in draw(NAMES, LABELS, 0.3, 0) if name.startswith("c3")}
    grown = draw([*NAMES, "c3/new.jpg", "c9/0.jpg", "c9/1.jpg"], [*LABELS, 3, 9, 9], 0.3, 0)
    assert len({name for name in grown if name.startswith("c3")} ^ first) <= 2


def test_a_file_that_is_named_twice_is_on_one_side():
    assert len(draw(["a/0", "a/0", "a/1"], [0, 0, 0], 0.5, 0)) == 1


@pytest.mark.parametrize("inside", ["", "train"])
def test_one_folder_of_classes_is_shared(tmp_path, inside):
    """At the top or in train/; every image is on one side, with its own label."""
    folder(tmp_path / inside, cat=10, 猫=4)
    train, val = both(tmp_path, Split(0.25, 0))
    assert train.classes == val.classes == ("cat", "猫") and (len(train), len(val)) == (11, 3)
    assert Counter(val.labels) == {0: 2, 1: 1} and Counter(train.labels) == {0: 8, 1: 3}
    names = [*names_below(tmp_path, train), *names_below(tmp_path, val)]
    assert len(set(names)) == 14 and all("/" in name and not name.startswith("/") for name in names)
    assert val.name(2).split("/")[-2] == "猫" and val[2][1] == 1 and val[2][0].size == (4, 4)
    assert (
        train.notes
        == val.notes
        == ["3 of 14 images are held out, class by class (data.val_split 0.25, seed 0)"]
    )


def test_the_images_are_read_in_the_mode_of_the_model(tmp_path):
    folder(tmp_path, a=2, b=2)
    source = open_source("folder", str(tmp_path), train=False, split=Split(0.5, 0), mode="L")
    assert source[0][0].mode == "L"


def test_a_class_may_be_called_train_or_val(tmp_path):
    folder(tmp_path, train=4, val=4, tram=4)
    train, val = both(tmp_path, Split(0.25, 0))
    assert train.classes == ("train", "tram", "val") and (len(train), len(val)) == (9, 3)


@pytest.mark.parametrize("split", [None, Split(0.1, 0)])
def test_a_root_with_train_and_val_is_read_as_it_is(tmp_path, split):
    tree(tmp_path, ["a", "b"])
    train, val = both(tmp_path, split)
    assert (len(train), len(val)) == (4, 4) and train.name(0) == str(tmp_path / "train" / "a" / "0.png")
    unused = f"data.val_split 0.1 is not used: {tmp_path} has held-out images of its own"
    assert train.notes == val.notes == ([unused] if split else [])


def test_a_class_of_one_image_is_learnt_and_said(tmp_path):
    folder(tmp_path, a=3, b=1)
    train, val = both(tmp_path, Split(0.1, 0))
    assert Counter(train.labels) == {0: 2, 1: 1} and val.labels == [0]
    assert train.notes[-1] == "too few images to share, learnt and never held out: b"


def test_what_lies_beside_train_is_said(tmp_path):
    folder(tmp_path / "train", a=2, b=2)
    folder(tmp_path, extra=1)
    assert f"{tmp_path}: train is shared; left out beside it: extra" in both(tmp_path, Split(0.5, 0))[0].notes


SHARED, KEPT_ONE = Split(0.1, 0), Split(0.1, 0, frozenset(["a/9.png"]))
PARTS = {"train/a": 2, "valid/a": 2}


@pytest.mark.parametrize(
    "images, split, error, said",
    [
        (
            {"a": 2, "b": 2},
            None,
            MissingFileError,
            "class folders (a, b) and no held-out images: --val-split 0.1",
        ),
        ({"train/a": 2}, None, MissingFileError, "has train and no held-out images: --val-split 0.1"),
        ({"a": 1, "b": 1}, SHARED, UserError, "2 images in 2 classes: a class needs two or more"),
        ({"a": 2}, KEPT_ONE, UserError, "none of the 1 images that the run holds out"),
        (PARTS, SHARED, UserError, "holds valid with class folders inside: rename it to val"),
        (PARTS, None, MissingFileError, "is it valid? Rename it to val"),
        ({}, SHARED, MissingFileError, "holds no class folders; expected "),
        (
            {".": 2},
            SHARED,
            MissingFileError,
            "holds no class folders: it has 2 images (0.png ...); expected ",
        ),
    ],
)
def test_where_nothing_can_be_shared_the_way_out_is_named(tmp_path, images, split, error, said):
    folder(tmp_path, **images)
    with pytest.raises(error) as caught:
        open_source("folder", str(tmp_path), train=False, split=split)
    assert said in str(caught.value)


def test_other_data_sets_have_held_out_images_of_their_own(tmp_path):
    for dataset in ("imagenet", "digits", "cifar10"):
        with pytest.raises(
            UserError, match=f"data.val_split is 0.1 and data.dataset {dataset}, which has held-out"
        ):
            open_source(dataset, str(tmp_path), train=True, split=Split(0.1, 0))
    with pytest.raises(MissingFileError, match=r"data\.data_path"):
        open_source("folder", train=True)


def test_what_is_kept_comes_back_names_that_are_no_utf_8_too(tmp_path):
    assert kept_split(tmp_path) is None and kept_split(tmp_path / "none") is None
    split = Split(0.1, 3, frozenset(["a/\udcb5.jpg", "猫/0.jpg"]))
    keep_split(tmp_path, split)
    assert kept_split(tmp_path) == split


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"val_split": 2, "seed": 0, "held_out": []}', '{"val_split": 0.1']
)
def test_a_damaged_list_is_refused_by_name(tmp_path, text):
    (tmp_path / KEPT).write_text(text)
    with pytest.raises(
        UserError, match=f"{KEPT}, which keeps the images that the run holds out, cannot be read"
    ):
        kept_split(tmp_path)


def test_what_is_kept_holds_when_images_come_and_go(tmp_path):
    folder(tmp_path, a=8, b=8)
    kept = both(tmp_path, Split(0.25, 0))[0].split
    gone, *others = sorted(kept.held_out)
    folder(tmp_path, a=20, c=2)
    (tmp_path / gone).unlink()
    train, val = both(tmp_path, kept)
    assert sorted(names_below(tmp_path, val)) == others and not {*others} & {*names_below(tmp_path, train)}
    assert len(train) == 20 + 8 + 2 - 4
    said = " ".join(train.notes)
    assert (
        f"seed 0, as {KEPT} of the run says" in said
        and "1 of the images that the run holds out are not" in said
    )
    assert "learnt and never held out: c" in said
