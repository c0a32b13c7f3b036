"""torchvision's GPU build, and so timm, beside a CPU build of torch: for tests and benchmarks alone."""

from __future__ import annotations

import importlib.metadata
from typing import Any

DECLARED: list[Any] = []  # libraries of torch, whose operators vanish with them


def declare() -> None:
    """Let torchvision be imported where its compiled operators find no partner.

    Its import fails on the two that it annotates: they are declared, not made. Where torch or torchvision is missing,
    they fit each other, or the two are there, nothing is done.
    """
    versions = {}
    for name in ("torch", "torchvision"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return
    if versions["torch"].endswith("+cpu") and not versions["torchvision"].endswith("+cpu"):
        import torch

        if hasattr(torch.ops.torchvision, "nms"):
            return
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        DECLARED.append(library)
