"""The tests with PaddleDetection and PaddleSeg: collected only where the toolkit that they are of is installed.

`make test-dense` makes such an environment. Everything that needs no toolkit is tested elsewhere.
"""

import importlib.util
import json

import numpy as np
import pytest

# the beginning of a test file's name -> the package that it needs
NEEDS = {"test_detection": "ppdet", "test_segmentation": "paddleseg"}

collect_ignore_glob = [
    f"{name}*.py" for name, package in NEEDS.items() if importlib.util.find_spec(package) is None
]


@pytest.fixture(scope="session")
def small_coco(tmp_path_factory):
    """Return a folder in COCO's layout: 16 pictures to train on, 3 to evaluate, of red and blue boxes."""
    from PIL import Image, ImageDraw

    root, draws = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split, number in (("train", 16), ("val", 3)):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(1, number + 1):
            picture = Image.new("RGB", (96, 64), (20, 20, 20))
            for category in (1, 2):
                x, y = int(draws.integers(0, 60)), int(draws.integers(0, 30))
                side = int(draws.integers(20, 34))
                ImageDraw.Draw(picture).rectangle(
                    [x, y, x + side, y + side], fill=[(230, 40, 40), (40, 40, 230)][category - 1]
                )
                corners = [x, y, x + side, y, x + side, y + side, x, y + side]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i,
                        "category_id": category,
                        "bbox": [x, y, side, side],
                        "area": side**2,
                        "iscrowd": 0,
                        "segmentation": [corners],
                    }
                )
            picture.save(root / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 64})
        tree = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
        }
        (root / "annotations" / f"{split}.json").write_text(json.dumps(tree), encoding="utf-8")
    return root
