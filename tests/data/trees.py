"""Small data sets on disk for the tests."""

import numpy as np
from PIL import Image


def picture(seed=0, size=(8, 6)):
    """An RGB image of one colour a seed, with some noise."""
    draws = np.random.RandomState(seed)
    pixels = draws.randint(0, 200, 3) + draws.randint(0, 40, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def tree(root, train, val=None, count=2):
    """root/{train,val}/CLASS/0.png ... of the classes given; without `val` those of `train`."""
    for part, classes in (("train", train), ("val", train if val is None else val)):
        for number, name in enumerate(classes):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                picture(100 * number + i).save(root / part / name / f"{i}.png")
    return root
