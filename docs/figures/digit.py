"""Write docs/figures/digit.png: a held-out handwritten digit, for the README's `predict`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from paddle_inline.data.embedded import Digits  # noqa: E402

image, label = Digits(train=False)[3]
image.resize((32, 32)).save(HERE / "digit.png")
print(f"docs/figures/digit.png: a {label}")
