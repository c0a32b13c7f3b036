"""python -m paddle_inline: see cli.py."""

import sys

from .cli.main import main

sys.exit(main())
