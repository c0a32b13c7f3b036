"""make demo-dense: its pictures, their two layouts, its comparisons, its page and its verdict, without a toolkit."""

import json

import numpy as np
import pytest
from PIL import Image

import demo_dense
from paddle_inline.detection.data import check_coco

GOOD = {name: least for name, least in demo_dense.LEAST.items()}
NEAR = {name: most for name, most in demo_dense.MOST.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    number = demo_dense.write_data({"train": 3, "val": 2}, root / "coco", root / "ade20k", seed=0)
    return root, number


def test_shapes_have_their_corners_and_stay_apart():
    pixels, shapes = demo_dense.scene(np.random.default_rng(1))
    assert pixels.shape == (96, 128, 3) and pixels.dtype == np.uint8 and 2 <= len(shapes) <= 4
    masks = [demo_dense.mask_of(corners) for _, corners in shapes]
    assert sum(masks).max() == 1 and min(mask.sum() for mask in masks) > 50
    for _, corners in shapes:
        assert corners.min() >= 0 and (corners.max(0) < [128, 96]).all()
    again, _ = demo_dense.scene(np.random.default_rng(1))
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize(
    ("name", "area"), [("circle", 3.1214), ("square", 2), ("triangle", 1.299), ("star", 1.3225)]
)
def test_an_annotation_measures_its_shape(name, area):
    corners = demo_dense.outline(name, (64, 48), 20, 0.3)
    found = demo_dense.annotation(7, 3, demo_dense.NAMES.index(name), corners)
    assert found["area"] == pytest.approx(area * 400, rel=1e-3)
    assert demo_dense.mask_of(corners).sum() == pytest.approx(found["area"], rel=0.1)
    x, y, width, height = found["bbox"]
    assert [x, x + width] == pytest.approx([corners[:, 0].min(), corners[:, 0].max()], abs=0.01)
    assert [y, y + height] == pytest.approx([corners[:, 1].min(), corners[:, 1].max()], abs=0.01)
    assert (found["id"], found["image_id"], found["category_id"]) == (7, 3, demo_dense.NAMES.index(name) + 1)


def test_both_layouts_hold_the_same_pictures_and_shapes(data):
    root, number = data
    trees = {}
    for part, other, pictures in (("train", "training", 3), ("val", "validation", 2)):
        text = (root / f"coco/annotations/instances_{part}2017.json").read_text(encoding="utf-8")
        tree = trees[part] = json.loads(text)
        assert [each["file_name"] for each in tree["images"]] == [
            f"{i:012}.jpg" for i in range(1, pictures + 1)
        ]
        for image in tree["images"]:
            file = root / f"coco/{part}2017" / image["file_name"]
            copy = root / f"ade20k/images/{other}" / image["file_name"]
            assert file.read_bytes() == copy.read_bytes() and Image.open(file).size == (128, 96)
            labels = np.ones((96, 128), np.uint8)
            for each in tree["annotations"]:
                if each["image_id"] == image["id"]:
                    corners = np.reshape(each["segmentation"], (-1, 2))
                    labels[demo_dense.mask_of(corners)] = each["category_id"] + 1
            written = np.asarray(Image.open(root / f"ade20k/annotations/{other}" / f"{file.stem}.png"))
            np.testing.assert_array_equal(written, labels)
        given = {"dataset_dir": str(root / "coco"), "image_dir": f"{part}2017"}
        given["anno_path"] = f"annotations/instances_{part}2017.json"
        check_coco({"EvalDataset": given, "num_classes": 4}, "EvalDataset")
    assert number == sum(len(tree["annotations"]) for tree in trees.values())
    assert trees["train"]["annotations"][:2] != trees["val"]["annotations"][:2]


def test_an_object_is_compared_with_the_nearest_one_of_its_class():
    each = {"category_id": 2, "score": 0.9, "bbox": [10.0, 20.0, 30.0, 40.0]}
    pixels = np.zeros((96, 128), bool)
    pixels[20:60, 10:40] = True
    boxes = np.array(
        [[0, 0.9, 10, 20, 40, 60], [1, 0.8, 10, 20, 42, 60], [1, 0.9, 60, 20, 90, 60]], np.float32
    )
    masks = np.stack([pixels, pixels, ~pixels])
    masks[1, 20, 10:22] = False  # 12 of 1200 pixels
    away = demo_dense.nearest(each, pixels, boxes, masks)
    assert away == pytest.approx((2.0, 0.1, 0.01), rel=1e-6)
    assert demo_dense.nearest({**each, "category_id": 4}, pixels, boxes, masks) == (np.inf,) * 3


def test_scores_are_read_from_what_the_launchers_write(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"bbox": {"AP": 0.5, "AP50": 0.9}, "mask": {"AP": 0.25}}))
    (tmp_path / "b.json").write_text(json.dumps({"miou": 0.75}))
    found = demo_dense.scores(tmp_path / "a.json", tmp_path / "b.json")
    assert found == {"box AP": 50.0, "mask AP": 25.0, "mIoU": 75.0}


def test_every_figure_has_a_say_in_the_verdict():
    assert demo_dense.verdict(GOOD, NEAR) == []
    for name, least in GOOD.items():
        for value in (least - 0.1, float("nan")):
            (line,) = demo_dense.verdict({**GOOD, name: value}, NEAR)
            assert name in line
    for name, most in NEAR.items():
        for value in (1.01 * most, float("inf"), float("nan")):
            (line,) = demo_dense.verdict(GOOD, {**NEAR, name: value})
            assert name in line


def row():
    """The five pictures of a page's row: all of the truth, and nothing found."""
    picture, corners = Image.new("RGB", (128, 96), (9, 9, 9)), demo_dense.outline("square", (64, 48), 20, 0)
    own = (demo_dense.annotation(1, 1, 1, corners), demo_dense.mask_of(corners))
    labels = np.where(own[1], 2, 0)
    labels[0, 0] = 149
    return [
        demo_dense.enlarged(picture),
        demo_dense.objects(picture, [own]),
        demo_dense.objects(picture, []),
        demo_dense.coloured(labels),
        demo_dense.coloured(np.zeros_like(labels)),
    ]


def test_truth_and_answers_are_drawn_at_twice_the_size():
    own = row()
    assert {each.size for each in own} == {(256, 192)}
    colour = demo_dense.colour(1)
    assert own[3].getpixel((128, 96)) == colour and own[3].getpixel((0, 0)) == (255, 255, 255)
    assert own[3].getpixel((250, 10)) == (40, 40, 40)
    inside = [round(9 + 0.4 * (part - 9)) for part in colour]
    assert own[1].getpixel((128, 96)) == pytest.approx(inside, abs=1)
    assert own[1].getpixel((88, 96)) == colour  # the box's left side
    assert (np.asarray(own[2]) == 9).all()
    whole = demo_dense.sheet([own, own])
    assert whole.size == (5 * 262 + 6, 20 + 2 * 198)
    assert whole.getpixel((6 + 3 * 262 + 128, 20 + 198 + 96)) == colour


def test_the_page_needs_no_other_file():
    text = demo_dense.page([row()] * 2, {**GOOD, "mIoU": 91.25}, {**NEAR, "score": 3.2e-6})
    assert text.count("<img ") == text.count('src="data:image/png;base64,') == 10
    assert "http" not in text and "91.2" in text and "3.2e-06" in text
    assert all(title in text for title in demo_dense.TITLES)


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The demo's steps replaced: what they find, and the codes that the commands end with."""
    state = {"found": dict(GOOD), "differences": dict(NEAR), "codes": [0] * 8, "commands": []}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_dense, "PICTURES", {"train": 1, "val": 1})

    def run(kind, command, options):
        state["commands"].append(f"{kind} {command}")
        return state["codes"][len(state["commands"]) - 1]

    monkeypatch.setattr(demo_dense, "run", run)
    monkeypatch.setattr(demo_dense, "scores", lambda *paths: state["found"])
    monkeypatch.setattr(demo_dense, "compare_detector", lambda: state["differences"])
    monkeypatch.setattr(demo_dense, "compare_segmenter", lambda: {})
    monkeypatch.setattr(demo_dense, "answers", lambda number: [row()])
    return state


def test_it_ends_with_where_the_page_is(steps, capsys):
    assert demo_dense.main() == 0
    commands = ["train", "eval", "predict", "export"]
    assert steps["commands"] == [
        f"{kind} {each}" for kind in ("detection", "segmentation") for each in commands
    ]
    assert str(demo_dense.PAGE) in capsys.readouterr().out.splitlines()[-1]
    assert demo_dense.PAGE.is_file() and demo_dense.SHEET.is_file()


@pytest.mark.parametrize(("part", "name"), [("found", "mIoU"), ("differences", "score")])
def test_too_little_or_too_different_is_a_failure(steps, part, name, capsys):
    steps[part][name] = float("nan")
    assert demo_dense.main() == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith("FAILED: ") and name in out[-2] and str(demo_dense.PAGE) in out[-1]


@pytest.mark.parametrize("broken", [0, 5])
def test_a_command_that_fails_ends_the_demo(steps, broken):
    steps["codes"][broken] = 6
    assert demo_dense.main() == 6
    assert len(steps["commands"]) == broken + 1
