"""Backbones for tests: small ones of every family, and the recorded numbers of whole ones (tests/golden/dense)."""

import json
import zlib
from pathlib import Path

import numpy as np

from convert.parity.inputs import draw_images, rule_weights

FOLDER = Path(__file__).parents[1] / "golden" / "dense"
GOLDENS = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))

STAGES = {"depths": (2, 2, 2, 2), "num_heads": (2, 2, 2, 4)}
PYRAMID = {**STAGES, "embed_dims": (8, 8, 12, 16)}
WINDOWED = {**STAGES, "embed_dim": 8}

# what it is -> (name, overrides): of widths so small that a pass takes hundredths of a second
SMALL = {
    "pvt": ("inline_pvt_tiny", PYRAMID),
    "pvt ISIS": ("inline_pvt_tiny", {**PYRAMID, "attn_type": "ISIS"}),
    "pvt names": ("inline_pvt_tiny", {**PYRAMID, "attn_type": "softmax,inline,inline,softmax"}),
    "swin": ("inline_swin_tiny", WINDOWED),
    "swin SSSS": ("inline_swin_tiny", {**WINDOWED, "attn_type": "SSSS"}),
    "swin MIMM1": ("inline_swin_tiny", {**WINDOWED, "attn_type": "MIMM1"}),
    "swin IIII": ("inline_swin_tiny", {**WINDOWED, "attn_type": "inline"}),
    "swin 384": ("inline_swin_base_384", {**WINDOWED, "attn_type": "SSSI"}),
    "cswin": ("inline_cswin_tiny", WINDOWED),
    "cswin SSSS": ("inline_cswin_tiny", {**WINDOWED, "attn_type": "SSSS"}),
    "cswin MSMI1": ("inline_cswin_tiny", {**WINDOWED, "attn_type": "MSMI1"}),
    "cswin 384": ("inline_cswin_base_384", {**WINDOWED, "attn_type": "SSSS"}),
    "soft": ("soft_tiny", PYRAMID),
    "soft_norm": ("soft_norm_tiny", {**PYRAMID, "depths": (1, 1, 1, 1)}),
}
SIDES = ((32, 32), (33, 47), (64, 200))  # pixels


def draw_weights(package, model, seed=0):
    """Give a model of either package float64 test weights that depend on its names and shapes alone."""
    if package.__name__ == "torch_ref":
        import torch

        state = rule_weights({key: value.numpy() for key, value in model.state_dict().items()}, seed)
        model.double().load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    else:
        from convert.mapping import paddle_to_torch, torch_to_paddle

        model.to(dtype="float64")
        template = paddle_to_torch({key: value.numpy() for key, value in model.state_dict().items()}, model)
        package.load_weights(model, torch_to_paddle(rule_weights(template, seed), model))
    model.eval()
    return model


def run(package, model, images, seed=0):
    """Return the maps, and the gradient of the images of a sum of all their numbers with random weights."""
    if package.__name__ == "torch_ref":
        import torch

        tensor, x = torch.tensor, torch.tensor(images, requires_grad=True)
    else:
        import paddle

        tensor, x = paddle.to_tensor, paddle.to_tensor(images, stop_gradient=False)
    maps = model(x)
    draws = [
        np.random.RandomState(2000 + seed + i).standard_normal(tuple(m.shape)) for i, m in enumerate(maps)
    ]
    sum((m * tensor(draw)).sum() for m, draw in zip(maps, draws)).backward()
    return [m.detach().numpy() for m in maps], x.grad.numpy()


def summary(key, array):
    """Return [12]: norm, sum, largest absolute value, product with a random vector, the first 8 elements."""
    values = array.reshape(-1)
    probe = np.random.RandomState(zlib.crc32(f"probe:{key}".encode())).standard_normal(values.size)
    return np.r_[np.linalg.norm(values), values.sum(), np.abs(values).max(), values @ probe, values[:8]]


def golden_errors(package, file):
    """Run a recorded backbone; return {what: largest difference by the largest recorded number}."""
    entry = GOLDENS[file]
    model = package.create_backbone(entry["model"], out_norm=False, **entry["overrides"])
    draw_weights(package, model, entry["seed"])
    maps, gradient = run(package, model, draw_images(entry["input"], entry["seed"]), entry["seed"])
    found = {**{f"map{i}": m for i, m in enumerate(maps)}, "grad_input": gradient}
    with np.load(FOLDER / file, allow_pickle=False) as numbers:
        assert [list(m.shape) for m in maps] == numbers["shapes"].tolist()
        assert {"shapes", *found} == set(numbers)
        return {
            key: np.abs(summary(key, array) - numbers[key]).max() / np.abs(numbers[key]).max()
            for key, array in found.items()
        }
