"""What a run does on a GPU alone, built from its settings; a part of build.py."""

from __future__ import annotations

import paddle

from ..config.load import Config
from ..config.schema import GpuConfig
from ..data.loaders import Loader
from ..data.prefetch import Prefetch
from ..ops.inline_attention import use_fused_attention
from ..utils.tf32 import allow_tf32, describe_tf32


def gpu_options(config: Config) -> GpuConfig | None:
    """Return what is done on a GPU, or None where there is none in use."""
    return config.gpu if paddle.device.get_device().startswith("gpu") else None


def prepare_gpu(gpu: GpuConfig | None) -> list[str]:
    """Set what a whole process has one of, and return what was set, for the log."""
    if gpu is None:
        return []
    use_fused_attention(gpu.fused_attention)
    if gpu.tf32 is not None:
        allow_tf32(gpu.tf32)
    switches = {name: getattr(gpu, name) for name in ("prefetch", "fused_update", "fused_attention")}
    lines = [f"on the GPU: {', '.join(f'{name} {value}' for name, value in switches.items())}"]
    lines.append(describe_tf32())
    if gpu.autotune:
        lines.append(autotune())
    return lines


def autotune() -> str:
    """Let cuDNN and Paddle look for their fastest kernels in the first steps; return the flags, for the log."""
    flags = {"FLAGS_cudnn_exhaustive_search": True, "FLAGS_conv_workspace_size_limit": 4096}
    known = {name: value for name, value in flags.items() if has_flag(name)}
    paddle.set_flags(known)
    paddle.incubate.autotune.set_config({"kernel": {"enable": True, "tuning_range": [1, 10]}})
    texts = [f"{name}={value}" for name, value in known.items()]
    return f"set for this GPU: {' '.join([*texts, 'incubate.autotune kernel, steps 1 to 10'])}"


def has_flag(name: str) -> bool:
    """Return whether this Paddle lets a program set a flag: a build or version without it raises."""
    try:
        paddle.get_flags([name])
    except ValueError:
        return False
    return True


def prefetched(loader: Loader, gpu: GpuConfig | None) -> Loader | Prefetch:
    """Return a loader whose batches move to the GPU ahead of time, where there is one and the settings ask for it."""
    if gpu is None or not gpu.prefetch:
        return loader
    loader.host = True
    return Prefetch(loader, gpu.prefetch, paddle.device.get_device())
