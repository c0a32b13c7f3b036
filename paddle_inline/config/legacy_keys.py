"""The upper-case settings files of InLine's authors (`TRAIN.BASE_LR`), read as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

# Keys that are read and not used, and why nothing is lost.
IGNORED = {
    "MODEL.TYPE": "the model is named by MODEL.NAME",
    "DATA.CACHE_MODE": "files are read when needed",
    "DATA.PIN_MEMORY": "the loader decides",
    "TRAIN.START_EPOCH": "a checkpoint knows its epoch",
    "TEST.SEQUENTIAL": "evaluation is always sequential",
    "TEST.SHUFFLE": "evaluation is always sequential",
    "LOCAL_RANK": "the launcher gives it",
    "EVAL_MODE": "given by --eval",
    "THROUGHPUT_MODE": "given by --throughput",
    "FUSED_WINDOW_PROCESS": "a speed switch of another framework",
    "FUSED_LAYERNORM": "a speed switch of another framework",
    "ENABLE_AMP": "see AMP",
}
# What a model's architecture section may change; its other keys restate the named variant.
ARCHITECTURE = {"ATTN_TYPE": "attn_type", "WINDOW_SIZE": "window_size"}
SIZES = {"t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "h": "huge"}


def model_name(name: str) -> str:
    """Return the name of `list_models()` for a name as the authors' files spell it.

    `inline_deit_t` -> `inline_deit_tiny`, `inline_swin_b_384` -> `inline_swin_base_384`,
    `inline_pvt_b` -> `inline_pvt_large` (PVT's largest published size). Others come back unchanged.
    """
    parts = name.lower().split("_")
    if len(parts) >= 3 and parts[0] == "inline":
        if parts[1] == "pvt" and parts[2] in ("b", "base"):
            parts[2] = "large"
        parts[2] = SIZES.get(parts[2], parts[2])
    return "_".join(parts)


def translate(
    key: str, value: Any, known: Collection[str], nearest: Callable[..., str | None]
) -> tuple[str, Any] | None:
    """Return an upper-case setting as (lower-case key, value); None where nothing is to be set.

    Args:
        known: all lower-case keys.
        nearest: (key, cutoff=similarity) -> the nearest known key, or None.
    """
    if key in IGNORED:
        return None
    if key == "MODEL.NAME":
        return "model.name", model_name(str(value))
    if key in ("AMP_OPT_LEVEL", "AMP"):
        level = value if isinstance(value, str) else "O1" if value else "O0"
        return "amp.level", level or "O0"
    parts = key.split(".")
    if parts[0] == "MODEL" and len(parts) > 1 and key.lower() not in known:
        if parts[-1] in ARCHITECTURE:
            return "model.overrides." + ARCHITECTURE[parts[-1]], value
        if len(parts) > 2 or not nearest(key.lower(), cutoff=0.85):
            return None  # restates the variant that MODEL.NAME names
    return key.lower(), value
