"""python -m paddle_inline: see cli.py."""

import sys

from .cli import main

sys.exit(main())
