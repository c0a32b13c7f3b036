"""python -m paddle_inline.segmentation, or this file under paddle.distributed.launch: see cli.py."""

import sys
from pathlib import Path

if not __package__:  # run as a file: its folder's modules are no top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from paddle_inline.segmentation.cli import main

if __name__ == "__main__":
    sys.exit(main())
