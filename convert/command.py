"""The commands that translate weight files: to-paddle and to-torch."""

from __future__ import annotations

import os

import paddle
import torch

import paddle_inline
from paddle_inline.weights import read_weights as read_paddle
from torch_ref.weights import read_weights as read_torch

from .translate import paddle_to_torch, torch_to_paddle


def add_commands(subparsers):
    """Add to-paddle and to-torch to the parser of `python -m convert`."""
    for name, run, source in (("to-paddle", to_paddle, "torch"), ("to-torch", to_torch, "Paddle")):
        parser = subparsers.add_parser(name, help=f"translate {source} weights")
        parser.add_argument("file", metavar="CKPT", help=f"a {source} weights file")
        parser.add_argument("out", metavar="OUT", help="the file to write")
        parser.add_argument("--model", required=True, metavar="NAME", help="a name of list_models()")
        parser.set_defaults(run=run)


def to_paddle(arguments):
    """Translate a torch file to `.pdparams`."""
    model = paddle_inline.create_model(arguments.model)
    state = {name: value.numpy() for name, value in read_torch(arguments.file).items()}
    write_atomically(arguments.out, lambda path: paddle.save(torch_to_paddle(state, model), path))
    return 0


def to_torch(arguments):
    """Translate a `.pdparams` file to torch."""
    model = paddle_inline.create_model(arguments.model)
    state = paddle_to_torch(read_paddle(arguments.file), model)
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    write_atomically(arguments.out, lambda path: torch.save(tensors, path))
    return 0


def write_atomically(path, write):
    """Let `write` fill a temporary file beside `path`, then put it in place: a whole file or none."""
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
