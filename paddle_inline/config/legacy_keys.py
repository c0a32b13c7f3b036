"""The upper-case settings files of InLine's authors (`TRAIN.BASE_LR`), read as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .schema import ConfigError

# Keys that are read and not used, and why nothing is lost.
IGNORED = {
    "DATA.CACHE_MODE": "files are read when needed",
    "DATA.PIN_MEMORY": "the loader decides",
    "TRAIN.START_EPOCH": "a checkpoint knows its epoch",
    "TEST.SEQUENTIAL": "evaluation is always sequential",
    "TEST.SHUFFLE": "evaluation is always sequential",
    "LOCAL_RANK": "the launcher gives it",
    "FUSED_WINDOW_PROCESS": "a speed switch of another framework",
    "FUSED_LAYERNORM": "a speed switch of another framework",
    "ENABLE_AMP": "see AMP",
}
# Keys of a model's section (MODEL.SWIN.EMBED_DIM) and the override of `create_model` that each is; IN_CHANS and
# the like are settings of their own.
ARCHITECTURE = {
    **{
        key: key.lower() for key in ("ATTN_TYPE", "WINDOW_SIZE", "EMBED_DIM", "EMBED_DIMS", "DEPTH", "DEPTHS")
    },
    **{key: key.lower() for key in ("NUM_HEADS", "QKV_BIAS", "MLP_RATIO", "MLP_RATIOS", "SR_RATIOS")},
    **{key: key.lower() for key in ("LA_SR_RATIOS", "KERNEL_FUNCTION")},
}
# Keys of a model's section that are built in one way alone; another value is refused.
FIXED = {"QK_SCALE": None, "APE": False, "PATCH_NORM": True, "PATCH_SIZE": 4}
# Keys of attention, which may stand in any section (MODEL.INLINE); all others stand in a family's.
ATTENTION = (
    "ATTN_TYPE",
    "KERNEL_FUNCTION",
    "LA_SR_RATIOS",
    "SR_RATIOS",
    "WINDOW_SIZE",
    "QKV_BIAS",
    "QK_SCALE",
)
SECTIONS = ("deit", "pvt", "swin", "cswin", "soft")  # of MODEL, of one family each
FAMILIES = ("inline_deit", "inline_pvt", "inline_swin", "inline_cswin")
# What a file of theirs means that does not say it.
SWIN_DEFAULTS = {"window_size": 7, "attn_type": "IIII"}
CSWIN_AVERAGE: dict[str, Any] = {"ema.decay": 0.9996, "ema.lr_batch": 4096}
DECAY = 0.99996  # of `--model-ema` in the other programs
SIZES = {"t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "h": "huge"}


def average_of_flags(
    model: str, decay: float | None, lr_batch: int | None, *, wanted: bool, decay_given: bool
) -> tuple[float | None, int | None]:
    """Return (ema.decay, ema.lr_batch) as the authors' `--model-ema` and `--model-ema-decay` mean them.

    Args:
        model: the model's name; CSwin's program has a decay of its own and scales it to the batch.
        decay, lr_batch: as the settings have them.
        wanted: whether `--model-ema` was given.
        decay_given: whether `--model-ema-decay` was.
    """
    cswin = model_name(model).startswith("inline_cswin")
    if wanted and decay is None:
        decay = CSWIN_AVERAGE["ema.decay"] if cswin else DECAY
    if cswin and lr_batch is None and (wanted or decay_given):
        lr_batch = CSWIN_AVERAGE["ema.lr_batch"]
    return decay, lr_batch


def model_name(name: str) -> str:
    """Return the name of `list_models()` for a name as the authors' files spell it.

    `inline_deit_t` -> `inline_deit_tiny`, `inline_swin_b_384` -> `inline_swin_base_384`,
    `inline_pvt_b` -> `inline_pvt_large` (PVT's largest published size), `soft_tiny_norm` -> `soft_norm_tiny`. Others
    come back unchanged.
    """
    parts = name.lower().split("_")
    if len(parts) >= 3 and parts[0] == "inline":
        if parts[1] == "pvt" and parts[2] in ("b", "base"):
            parts[2] = "large"
        parts[2] = SIZES.get(parts[2], parts[2])
    if len(parts) == 3 and parts[0] == "soft" and parts[2] == "norm":  # soft_tiny_norm
        parts = ["soft", "norm", parts[1]]
    return "_".join(parts)


def fixed_keys(model: str) -> dict[str, Any]:
    """Return {key of a model's section: the one value with which a model's family is built}."""
    family = (*model_name(model).split("_"), "", "")[1]
    fixed = {key: value for key, value in FIXED.items() if not (key == "PATCH_SIZE" and family == "deit")}
    return {**fixed, "QKV_BIAS": True} if family in ("deit", "pvt") else fixed


def translate(key: str, value: Any, *, labelled: bool = True, model: str = "") -> tuple[str, Any] | None:
    """Return an upper-case setting as (lower-case key, value); None where nothing is to be set.

    Args:
        labelled: MODEL.TYPE and MODEL.NAME name the model.
        model: the name of the model, where it is known.

    Raises:
        ConfigError: for what of a model cannot be built.
    """
    if key in IGNORED:
        return None
    if key in ("MODEL.TYPE", "MODEL.NAME"):  # of a file they are read before; its NAME is a free label
        return ("model.name", model_name(str(value))) if labelled else None
    if key == "AMP_OPT_LEVEL" and value in ("", None):
        return None  # deprecated there: AMP alone says it
    if key in ("AMP_OPT_LEVEL", "AMP"):
        words = {None: "O0", False: "O0", True: "O1", "": "O0"}
        value = plain_value(value)
        return "amp.level", words.get(value, value)
    parts = key.split(".")
    if parts[0] == "MODEL" and len(parts) > 2:
        if not has_place(parts[1], parts[-1]):
            raise ConfigError(
                f"{key}: the sizes of a model stand in {', '.join(SECTIONS).upper()}, not in {parts[1]}"
            )
        fixed = fixed_keys(model or f"inline_{parts[1]}")
        if parts[-1] in fixed:
            if plain_value(value) != fixed[parts[-1]]:
                raise ConfigError(
                    f"{key} is {value!r}; {model or 'the models here'} can be built with {fixed[parts[-1]]} alone: "
                    "leave it out"
                )
            return None
        if parts[-1] == "IN_CHANS":
            return "model.in_chans", value
        if parts[-1] == "PATCH_SIZE":
            return "model.overrides.patch_size", value
        if parts[-1] not in ARCHITECTURE:
            names = ", ".join((*ARCHITECTURE, *FIXED, "IN_CHANS"))
            raise ConfigError(f"{key} is no key of a model's section; there are {names}")
        if parts[-1] in ("SR_RATIOS", "LA_SR_RATIOS"):
            value = ratios(value)
        return "model.overrides." + ARCHITECTURE[parts[-1]], value
    return key.lower(), value


def plain_value(value: Any) -> Any:
    """Return what a value of the command line or of a file's text means."""
    words = {"none": None, "null": None, "false": False, "true": True}
    if isinstance(value, str):
        return words.get(value.lower(), int(value) if value.isdecimal() else value)
    return value


def has_place(section: str, key: str) -> bool:
    """Return whether a key of a model's section can stand in a section of this name."""
    return section.lower() in SECTIONS or key in ATTENTION or key not in (*ARCHITECTURE, *FIXED, "IN_CHANS")


def ratios(value: Any) -> Any:
    """Return ratios, one per stage, that their files may write as digits in a row; anything else as it is."""
    value = str(value) if isinstance(value, int) and len(str(value)) > 1 else value
    return [int(digit) for digit in value] if isinstance(value, str) and value.isdecimal() else value


def section_is_of(section: str, model: str) -> bool:
    """Return whether a section of MODEL (SWIN of MODEL.SWIN.EMBED_DIM) speaks of a model.

    A file that a program of theirs has written out in full has the sections of all families; the others are then
    defaults that nobody used.

    Args:
        section: its name.
        model: the model's.
    """
    word, family = section.lower(), (*model_name(model).split("_"), "", "")[1]
    if word in SECTIONS or word.startswith("swin"):
        return word == family
    return True


def implied(given: Mapping[str, Any], is_model: Callable[[str], bool]) -> dict[str, Any]:
    """Return the settings that a file of theirs means without saying them; empty for another file.

    Args:
        given: the file's settings as they are spelled there.
        is_model: whether a name is a model's.

    Raises:
        ConfigError: where neither MODEL.TYPE nor MODEL.NAME is a model.
    """
    kind, label = str(given.get("MODEL.TYPE") or ""), str(given.get("MODEL.NAME") or "")
    if not kind and not label:
        return {}
    names = [model_name(name) for name in (kind, label) if name and is_model(model_name(name))]
    family = kind.lower()
    if not names and family in FAMILIES:
        sized = [model_name(f"{family}_{size}") for size in ("t", "s", "m", "b", "l")]
        sections = [key.split(".")[1] for key in given if key.startswith("MODEL.") and key.count(".") == 2]
        sizes = [section for section in sections if section_is_of(section, sized[0])]
        if not sizes:
            raise ConfigError(
                f"MODEL.TYPE is {kind!r}, a family, and MODEL.NAME {label!r} is no model of it: set MODEL.NAME to one "
                f"of {', '.join(name for name in sized if is_model(name))}"
            )
        names = [sized[0]]
    if not names:
        raise ConfigError(
            f"MODEL.TYPE {kind!r} and MODEL.NAME {label!r} name no model; `python -m paddle_inline list` shows them"
        )
    settings: dict[str, Any] = {"model.name": names[0], "train.auto_resume": True}
    if names[0].startswith("inline_swin"):
        settings.update({f"model.overrides.{key}": value for key, value in SWIN_DEFAULTS.items()})
    if names[0].startswith("inline_cswin"):
        settings.update(CSWIN_AVERAGE)
    return settings
