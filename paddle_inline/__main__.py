"""python -m paddle_inline: see cli/main.py."""

import sys

from .cli.main import main

sys.exit(main())
