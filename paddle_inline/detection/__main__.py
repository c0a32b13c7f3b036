"""python -m paddle_inline.detection, or this file, which is what paddle.distributed.launch takes: see run.py."""

import sys
from pathlib import Path

if not __package__:  # started as a file: beside it lie modules of this package, not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from paddle_inline.detection.run import main

if __name__ == "__main__":
    sys.exit(main())
