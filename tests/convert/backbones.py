"""Small backbones with weights in which every tensor matters, and detectors around them."""

import numpy as np
import paddle
import torch

import torch_ref
from convert.parity.inputs import rule_weights

SMALL = {
    "inline_pvt_tiny": {"depths": (1, 2, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)},
    "inline_swin_tiny": {"depths": (1, 2, 1, 2), "embed_dim": 8, "num_heads": (1, 1, 2, 2)},
    "inline_cswin_tiny": {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (2, 4, 8, 16)},
    "soft_digits": {"embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)},
}
NORMS = ["norm0", "norm1", "norm2", "norm3"]


def torch_backbone(name, seed=0, dtype=torch.float32, **arguments):
    """The state dict of a small backbone of torch_ref."""
    state = torch_ref.create_backbone(name, **{**SMALL[name], **arguments}).state_dict()
    drawn = rule_weights({key: value.numpy() for key, value in state.items()}, seed)
    return {
        key: torch.from_numpy(np.array(value)).to(dtype if value.dtype.kind == "f" else state[key].dtype)
        for key, value in drawn.items()
    }


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def torch_detector(state, prefix="backbone."):
    """The tensors of a detector of PyTorch around a backbone's."""
    beside = {
        "neck.lateral_convs.0.conv.weight": torch.arange(16.0).reshape(4, 4),
        "neck.lateral_convs.0.conv.bias": torch.arange(4.0),
        "rpn_head.rpn_cls.weight": torch.full((2, 2), 0.5),
        "roi_head.bbox_head.fc_cls.weight": torch.full((3, 2), 0.25),
    }
    outer = prefix[: -len("backbone.")] if prefix.endswith("backbone.") else ""
    return {**under(prefix, state), **under(outer, beside)}


BESIDE = {"neck": 2, "rpn_head": 1, "roi_head": 1}


def paddle_detector(arrays):
    """The tensors of a detector of PaddleDetection around a backbone's arrays, flat."""
    state = {f"backbone.{name}": paddle.to_tensor(np.array(value)) for name, value in arrays.items()}
    state["neck.fpn_inner.weight"] = paddle.arange(6, dtype="float32").reshape([2, 3])
    state["bbox_head.fc.bias"] = paddle.full([3], 0.5)
    return state


def same(first, second):
    return list(first) == list(second) and all(
        first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]) for key in first
    )
