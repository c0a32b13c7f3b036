"""Train, evaluate or time a model: `python -m paddle_inline train` as a file, for paddle.distributed.launch.

python train_paddle.py --cfg configs/quickstart.yaml
python -m paddle.distributed.launch train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET
"""

import sys

from paddle_inline.training.program import main
from paddle_inline.utils.environment import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main(program=__file__))
