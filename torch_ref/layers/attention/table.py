"""The table of the forms of attention by name: what there is, and layers of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ops.tokens import Size
from ...utils.errors import UserError, short, unknown
from .agent import AgentAttention, LinformerAttention
from .base import Attention, check_count, check_flag, check_rate, check_width
from .divided import (
    CosformerAttention,
    HedgehogAttention,
    L2Attention,
    LinearELUAttention,
    LinearReLUAttention,
    PerformerAttention,
)
from .gated import MALAAttention, MLLAAttention, PolaAttention, RALAAttention
from .gla import GatedLinearAttention
from .inline import InLineAttention
from .local import EnhancedAttention, FocusedAttention, SLABAttention
from .softmax import SoftmaxAttention
from .undivided import (
    AngularAttention,
    CrossCovarianceAttention,
    EfficientAttention,
    FlowAttention,
    HydraAttention,
    NormAttention,
    NystromAttention,
    ReLUAttention,
    SquaredReLUAttention,
)

# a form's name -> its layer, of backbones that need nothing more (DeiT); the other tables start from this one
ATTENTION: dict[str, type[Attention]] = {
    "inline": InLineAttention,
    "softmax": SoftmaxAttention,
    "linear_relu": LinearReLUAttention,
    "linear_elu": LinearELUAttention,
    "efficient": EfficientAttention,
    "hydra": HydraAttention,
    "angular": AngularAttention,
    "enhanced": EnhancedAttention,
    "focused": FocusedAttention,
    "flow": FlowAttention,
    "norm": NormAttention,
    "performer": PerformerAttention,
    "cosformer": CosformerAttention,
    "mala": MALAAttention,
    "rala": RALAAttention,
    "mlla": MLLAAttention,
    "agent": AgentAttention,
    "xca": CrossCovarianceAttention,
    "slab": SLABAttention,
    "pola": PolaAttention,
    "hedgehog": HedgehogAttention,
    "l2": L2Attention,
    "nystrom": NystromAttention,
    "linformer": LinformerAttention,
    "relu": ReLUAttention,
    "relu2": SquaredReLUAttention,
    "gla": GatedLinearAttention,
}

COMMON = ("qkv_bias", "drop_rate")  # what every layer takes beside the options of its form
FIELDS = ("kernel_function", "sr_ratio")  # options that a model has fields of their own for


@dataclass(frozen=True)
class AttentionForm:
    """What is known of a form of attention.

    N tokens, C channels, h heads, d = C / h head width, H x W grid, a agents, m landmarks or features; d+ is the number
    of positive channels of a query, about d / 2.

    Attributes:
        name: what `attn_type` and `create_attention` take.
        source: the paper.
        complexity: multiply-adds of a layer beside its projections to q, k, v and of the output, 4 N C^2.
        linear: whether they grow linearly with N.
        injective: whether different queries have different rows of weights, as far as small changes show it; None
            where options decide it (`row_dimension` says how), or there are no rows.
        row_dimension: rank of the derivative of a query's row by that query: d where it is injective.
        extra_parameters: beside those of q, k, v and of the output, 4 C^2 + 4 C.
        backbones: which take it by `attn_type`.
        grid_bound: whether its parameters are for one grid, which is then that of the built layer or model.
        rows: whether the layer has rows of weights over tokens, see `Attention.rows`.
        options: what `create_attention` takes for it, and `create_model` as `attn_options`.
    """

    name: str
    source: str
    complexity: str
    linear: bool
    injective: bool | None
    row_dimension: str
    extra_parameters: str
    backbones: tuple[str, ...]
    grid_bound: bool
    rows: bool
    options: tuple[str, ...]


def list_attentions() -> dict[str, AttentionForm]:
    """Return {name: what is known of it} of all forms of attention."""
    return {
        name: AttentionForm(
            name,
            layer.SOURCE,
            layer.COMPLEXITY,
            layer.LINEAR,
            layer.INJECTIVE,
            layer.ROW_DIMENSION,
            layer.EXTRA_PARAMETERS,
            ("DeiT", "PVT", "Swin", *(["CSwin"] if fits_branches(layer) else [])),
            layer.grid_bound,
            layer.ROWS,
            layer.OPTIONS,
        )
        for name, layer in ATTENTION.items()
    }


def fits_branches(layer: type[Attention]) -> bool:
    """Whether a form is made from q, k and v alone, as CSwin's branches need it, whose block projects."""
    return layer.forward is Attention.forward


def build_attention(
    table: Mapping[str, type[Attention]],
    form: str,
    dim: int,
    num_heads: int,
    *,
    options: Mapping[str, Any] | None = None,
    **common: Any,
) -> Attention:
    """Build the layer of a form.

    Args:
        table: ATTENTION or another table of the backbone; form: one of its names.
        dim, num_heads: C and h.
        options: options of whichever forms the backbone has; the layer takes those that it names in OPTIONS.
        common: what every layer of the table takes.

    Returns:
        The layer, from tokens [B, N, C] and (H, W) to [B, N, C].
    """
    layer = table[form]
    own = {name: value for name, value in (options or {}).items() if name in layer.OPTIONS}
    return layer(dim, num_heads, **common, **own)


def create_attention(
    form: str,
    dim: int,
    num_heads: int,
    *,
    grid: Size | None = None,
    prefix_tokens: int = 0,
    **options: Any,
) -> Attention:
    """Build a layer of attention for a network of one's own.

    Args:
        form: one of `list_attentions()`.
        dim, num_heads: channels C and heads h.
        grid: (H, W) of the patch tokens, which lie row by row; forms that are bound to their grid need it, others
            take any later.
        prefix_tokens: P, tokens in front of the patches (a class token), which attend and stand outside the grid.
        options: those of the form (`list_attentions()[form].options`), and of all forms `qkv_bias` and `drop_rate`.

    Returns:
        A layer of (tokens [B, P + H * W, C], (H, W)) -> [B, P + H * W, C].

    Raises:
        UserError: an unknown form, an option of another form, or sizes that the form cannot be built for.
    """
    if not isinstance(form, str) or form not in ATTENTION:
        raise unknown("form of attention", form, ATTENTION)
    layer = ATTENTION[form]
    for name in options:
        if name not in (*layer.OPTIONS, *COMMON):
            raise foreign_option(name, [form], (*layer.OPTIONS, *COMMON))
    check_flag("qkv_bias", options.get("qkv_bias", True))
    check_rate("drop_rate", options.get("drop_rate", 0.0))
    check_width(form, dim, num_heads, layer.HEAD_MULTIPLE)
    check_count("prefix_tokens", prefix_tokens, 0)
    if grid is not None:
        if not isinstance(grid, (tuple, list)) or len(grid) != 2:
            raise UserError(f"grid {short(repr(grid))} must be (H, W), two positive ints")
        grid = (check_count("a side of grid", grid[0]), check_count("a side of grid", grid[1]))
    return layer(dim, num_heads, grid=grid, prefix_tokens=prefix_tokens, **options)


def foreign_option(name: str, forms: Iterable[str], known: Iterable[str]) -> UserError:
    """Return a UserError for an option that these forms do not take, which says whose it is."""
    owners, known = [form for form, layer in ATTENTION.items() if name in layer.OPTIONS], list(known)
    if not owners:
        return unknown(f"option of {', '.join(forms)} attention", name, known)
    takes = f"takes {', '.join(known)}" if known else "takes none"
    return UserError(
        f"{name} is an option of {', '.join(owners)}, not of {', '.join(forms)}, which {takes}; leave it out"
    )


def check_options(options: Any, forms: Sequence[Sequence[str]], kernel_function: str = "identity") -> None:
    """Refuse `attn_options` of a model, and a `kernel_function`, that none of its forms takes.

    Args:
        options: {name: value}; in a network of stages a value may be a list of one for each, None where the stage's
            forms do not have the option.
        forms: names of the forms of each stage's blocks.
        kernel_function: the model's; "identity" is what it is left at.

    Raises:
        UserError: which option, whose it is, and what the forms take.
    """
    if not isinstance(options, Mapping):
        raise UserError(
            f"attn_options {short(repr(options))} must be names and values, e.g. {{'num_agents': 49}}"
        )
    stages, names = len(forms), list(dict.fromkeys(form for stage in forms for form in stage))
    if kernel_function != "identity" and not any(
        "kernel_function" in ATTENTION[form].OPTIONS for form in names
    ):
        raise foreign_option("kernel_function", names, [])
    known = sorted({name for form in names for name in ATTENTION[form].OPTIONS} - set(FIELDS))
    for name, value in options.items():
        if name in FIELDS:
            raise UserError(
                f"{name} is an override of its own and not one of attn_options: give it beside them"
            )
        if name not in known:
            raise foreign_option(name, names, known)
        if isinstance(value, (tuple, list)) and len(value) != stages:
            what = f"one value, or {stages}, one per stage" if stages > 1 else "one value"
            raise UserError(f"attn_options {name} {short(repr(value))} must be {what}")
        for stage, each in enumerate(value if isinstance(value, (tuple, list)) else ()):
            takes = sorted(
                {option for form in forms[stage] for option in ATTENTION[form].OPTIONS} - set(FIELDS)
            )
            if each is not None and name not in takes:
                raise UserError(
                    f"attn_options {name} gives {short(repr(each))} to stage {stage} of 0 .. {stages - 1}, whose "
                    f"{', '.join(dict.fromkeys(forms[stage]))} attention takes {', '.join(takes) or 'none'}: None there"
                )


def stage_options(options: Mapping[str, Any], stage: int, form: str) -> dict[str, Any]:
    """Return the options of a form's layers in one stage of four: of a value for each stage, this one's.

    Args:
        options: those that are given; stage: 0 .. 3; form: a name in ATTENTION, whose STAGE_OPTIONS are the defaults.
    """
    return {
        name: value[stage] if isinstance(value, (tuple, list)) else value
        for name, value in {**ATTENTION[form].STAGE_OPTIONS, **options}.items()
    }
