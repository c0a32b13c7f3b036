"""Forty small pictures of two kinds, and one comparison of two forms on them, done once."""

import numpy as np
import pytest
from PIL import Image

from paddle_inline.compare import timing
from paddle_inline.compare.plan import make_plan
from paddle_inline.layers.attention import list_attentions

KNOWN = list(list_attentions())


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """A folder of 2 x 16 pictures to learn from, bright above or bright below, and 2 x 4 held out."""
    folder, draws = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    for part, count in (("train", 16), ("val", 4)):
        for name, half in (("above", slice(0, 16)), ("below", slice(16, 32))):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draws.randint(0, 60, (32, 32, 3), dtype=np.uint8)
                pixels[half] += 150
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def plan(pictures):
    return make_plan(["softmax", "linear_relu"], "inline_deit_digits", str(pictures), 1, 1, KNOWN)


@pytest.fixture(scope="package")
def quick():
    """Time small things alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SIDES", (1,))
        patch.setattr(timing, "GRIDS", (3, 4, 6))
        patch.setattr(timing, "SLOPE_FROM", 16)
        patch.setattr(timing, "BATCH", 2)
        yield
