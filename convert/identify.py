"""Which model a file's tensors are: its name in `list_models()` and the overrides, from names and shapes.

Each family has a reader (families/) that looks at tensors which are shaped alike in both frameworks (biases, norms,
convolutions, tables) and says what they show of its spec. What no tensor shows is taken from the variant that is
otherwise the same; where two variants are, or the choice would be a guess, the answer is an error.

(Above 300 lines: candidates, their order and the messages on what none of them fits share one vocabulary.)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from paddle_inline.config.legacy_keys import model_name
from paddle_inline.layers.attention import ATTENTION
from paddle_inline.models import factory
from paddle_inline.models.factory import model_spec
from paddle_inline.models.spec import LETTER_OF
from paddle_inline.utils.errors import UserError, short, shortened
from paddle_inline.weights.load import difference
from paddle_inline.weights.resize import REBUILT
from paddle_inline.weights.torch_layout import Shapes, torch_only_names

from .backbones import Maps, behind, has_backbones, is_rebuilt, stage_parts
from .claims import check_overrides, claims_of, follow, refuse_scale
from .errors import UnknownModelError
from .families import FAMILIES
from .families.adapter import (
    UNKNOWN,
    InferredSpec,
    NoSuchSpecError,
    TensorShapes,
    canonical_attention,
    has_unknown,
    square,
    widths_of,
)
from .families.forms import alike, forms_shown
from .mapping import shapes_of, skeleton

if TYPE_CHECKING:
    from paddle import nn

VARIANTS = cast("Mapping[Any, Mapping[str, Any]]", factory.FAMILIES)  # model class -> {name: spec}
# Fields that matter in training alone, or to nobody but a reader.
TRAINING_ONLY = {"drop_rate", "drop_path_rate", "recompute", "published", "per_matrix_alpha"}
# Fields that forms of attention have which are known by their names alone, never by tensors.
OF_OTHER_FORMS = {"attn_options"}
# Fields that say which variant it is, before all others.
SIZES = {"embed_dim", "embed_dims", "depth", "depths"}


@dataclass(frozen=True)
class Identity:
    """A model, and how it was recognised."""

    name: str
    overrides: dict[str, Any]
    side: str  # whose names and layout the file has: "torch" or "paddle"
    assumed: dict[str, Any] = field(default_factory=dict)  # {field: value} that no tensor shows
    how: str = ""
    remarks: tuple[str, ...] = ()  # on settings in the file that are not followed
    maps: Maps | None = None  # of a backbone; None: it is a classifier

    @property
    def model(self) -> nn.Layer:
        """The model without weights, which says what each tensor is."""
        return skeleton(self.name, self.overrides, self.maps)

    def call_with(self, file: str) -> str:
        """Return the line of Python that builds the model with the weights of a file that describes it."""
        if self.maps is None:
            return f"create_model(weights={file!r})"
        return (
            f"create_backbone({_arguments(self.name, {'weights': file, **self.maps.arguments(self.name)})})"
        )

    def __str__(self) -> str:
        return _call(self.name, self.overrides, self.maps)


def identify(
    shapes: Shapes,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    hints: Mapping[str, Any] | None = None,
    maps: Maps | None = None,
) -> Identity:
    """Recognise a model by its tensors.

    Args:
        shapes: {tensor's name: shape}, of either framework.
        name: the model's name, if it is known; the tensors then only decide its overrides.
        overrides: {field: value} that are known, with or without the name.
        hints: {"img_size": int or pair, "text": str, "model_settings": {section: entries}} from the training settings
            beside the weights; they decide between variants that have the same tensors, and say what no tensor shows.
        maps: of a backbone, whose tensors these are; masks and indices among them are not looked at.

    Returns:
        Identity: building it gives exactly these names and shapes.

    Raises:
        UnknownModelError: it is none of our models, or could be several: with the nearest candidates and the
            differences.
        UserError: an unknown name or override.
    """
    family = recognise(shapes) if name is None else _family_named(name)
    if family is None:
        raise UnknownModelError(_nearest(shapes))
    variants = variants_of(family)
    check_overrides(name or next(iter(variants)), overrides or {})
    whole = shapes
    maps = maps if has_backbones(family) else None
    if maps is not None:
        shapes = {key: shape for key, shape in shapes.items() if not is_rebuilt(key)}
        whole = shapes
        if max(maps.out_indices) < len(stage_parts(family)) - 1:
            if name is None:
                return _of_some_stages(shapes, overrides, hints, maps, family)
            whole = {**_behind(name, family, maps), **shapes}
    known = {key: square(value) if key == "img_size" else value for key, value in (overrides or {}).items()}
    known.update(forms_shown(family, whole, known))
    try:
        inferred = FAMILIES[family].infer_spec(TensorShapes(whole), known)
    except (NoSuchSpecError, ZeroDivisionError) as error:
        looks = recognise(shapes)
        message = f"this looks like {family}, but {error}"
        if looks not in (None, family):
            message = f"these tensors look like {looks}, and {name} is {family}: leave it out"
        nearest = name or next(iter(variants))
        raise UnknownModelError(f"{message}\n{_differences(nearest, {}, shapes, maps)[1]}") from None
    if not _told_by_tensors(known.get("attn_type"), known.get("attn_options")):
        inferred = replace(inferred, fields={**inferred.fields, "attn_type": UNKNOWN})
    _refuse_contradictions(inferred, known)
    first = name or next(iter(variants))
    claims = claims_of((hints or {}).get("model_settings", {}), first, (hints or {}).get("img_size"))
    inferred, told, remarks = follow(inferred, claims, known, TensorShapes(whole), first, FAMILIES[family])
    known = {**known, **told}
    candidates = [
        _candidate(variant, {**inferred.fields, **option}, known, inferred.unseen)
        for variant in ([name] if name else variants)
        for option in inferred.options
    ]
    candidates = [c for c in candidates if _agrees_on_norm(c.spec, hints or {})] or candidates
    rank = min(candidate.rank for candidate in candidates)
    tied = list({repr(c.spec): c for c in reversed(candidates) if c.rank == rank}.values())[::-1]
    if rank[0]:  # sizes that nobody released, so no variant's input size is nearer than the usual one
        usual = [candidate for candidate in tied if candidate.spec.img_size == type(candidate.spec).img_size]
        tied = usual or tied
    hinted = [candidate for candidate in tied if _agrees(candidate.spec, hints or {})]
    decided = len(tied) == 1 or len(hinted) == 1
    chosen = hinted[0] if len(tied) > 1 and decided else tied[0]
    side, lines = _differences(chosen.name, chosen.overrides, shapes, maps)
    if lines:
        raise UnknownModelError(f"the nearest model is {_call(chosen.name, chosen.overrides, maps)}\n{lines}")
    if not decided:
        raise UnknownModelError(_ambiguity(tied, maps))
    refuse_scale(claims, chosen.name, chosen.spec)
    named = chosen.rank[0] == 0 and _names_family(hints or {}, list(variants))
    if name is None and "num_heads" in chosen.assumed and not named:
        _refuse_unseen_heads(chosen, inferred)
    how = "names and shapes" if name is None else "the model that was named"
    if not {"attn_type", "attn_options"} & set(known) and "S" in str(getattr(chosen.spec, "attn_type", "")):
        remarks += _same_tensors(family)
    if not _names_family(hints or {}, list(variants)):
        remarks += _other_families(hints or {}, family)
    if len(tied) > 1 or told or (named and "num_heads" in chosen.assumed):
        how += " and the training settings in the file"
    found = {key: v for key, v in chosen.overrides.items() if maps is None or key != "num_classes"}
    return Identity(chosen.name, found, side, chosen.assumed, how, tuple(remarks), maps)


def _of_some_stages(
    shapes: Shapes,
    overrides: Mapping[str, Any] | None,
    hints: Mapping[str, Any] | None,
    maps: Maps,
    family: str,
) -> Identity:
    """Recognise a backbone without its last stages: as the variant from which it differs least, which has them."""
    found: list[Identity] = []
    problems: list[UnknownModelError] = []
    for variant in variants_of(family):
        try:
            found.append(identify(shapes, variant, overrides, hints, maps))
        except UnknownModelError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    ranks = [(len(SIZES & set(each.overrides)), len(each.overrides)) for each in found]
    tied = [each for each, rank in zip(found, ranks) if rank == min(ranks)]
    if len(tied) > 1:
        raise UnknownModelError(
            "several models have exactly these tensors in these stages; choose with --model NAME\n"
            + "\n".join(shortened([f"  {each}" for each in tied]))
        )
    last = max(maps.out_indices)
    remark = (
        f"stages behind stage {last} of 0 .. 3 are not in the file: their sizes are taken from {tied[0].name}"
    )
    return replace(tied[0], how="names and shapes", remarks=(*tied[0].remarks, remark))


def _behind(name: str, family: str, maps: Maps) -> Shapes:
    """Return {name: shape} of what a variant has behind the last stage of a backbone."""
    own = shapes_of(skeleton(name, {"num_classes": 0}), "torch")
    return {key: own[key] for key in behind(own, family, maps) if not is_rebuilt(key)}


def recognise(names: Iterable[str]) -> str | None:
    """Return the class name of the family that has tensors of such names, or None."""
    return next((key for key, family in FAMILIES.items() if family.recognises(names)), None)


def _family_named(name: str) -> str:
    model_spec(name)  # its error says which names there are
    return next(family.__name__ for family, variants in VARIANTS.items() if name in variants)


def variants_of(family: str) -> Iterable[str]:
    """Return the names of a family's variants, by its model class's name."""
    return next(variants for model, variants in VARIANTS.items() if model.__name__ == family)


@dataclass(frozen=True)
class _Candidate:
    name: str
    overrides: dict[str, Any]
    assumed: dict[str, Any]

    @property
    def rank(self) -> tuple[int, int]:
        """The fewer sizes, and then other fields, differ from the variant's, the nearer it is."""
        return len(SIZES & set(self.overrides)), len(self.overrides)

    @property
    def spec(self) -> Any:
        return dataclasses.replace(model_spec(self.name, **self.overrides), published=None)


def _refuse_contradictions(inferred: InferredSpec, known: Mapping[str, Any]) -> None:
    """What is known must not be what the tensors deny: a model of such sizes might not fit into memory."""
    for key, value in known.items():
        seen = inferred.fields.get(key, UNKNOWN)
        if key == "attn_type" and isinstance(value, str):
            value = canonical_attention(value, inferred.fields)
        whole = isinstance(seen, tuple) and isinstance(value, (tuple, list)) and len(seen) == len(value)
        if any(v != s for v, s in (zip(value, seen) if whole else [(value, seen)]) if s is not UNKNOWN):
            raise UnknownModelError(f"{key} is {seen!r} by the tensors, not {short(repr(value))}")


def _told_by_tensors(attn_type: object, options: object) -> bool:
    """Whether tensors tell this attn_type from others, as they tell InLine's blocks, with their filter, from softmax's.

    Of other forms the name must be known; that the model has exactly the file's tensors is checked all the same.
    """
    names = attn_type.replace(" ", "").split(",") if isinstance(attn_type, str) else []
    return "local" not in (options if isinstance(options, Mapping) else ()) and not any(
        name in ATTENTION and name not in LETTER_OF for name in names
    )


def _candidate(
    variant: str, seen: Mapping[str, Any], known: Mapping[str, Any], unseen: Iterable[str] = ()
) -> _Candidate:
    """The variant with the overrides that a file's tensors, and what else is known of it, ask for."""
    spec = model_spec(variant)
    wanted = {key: _filled(value, getattr(spec, key)) for key, value in seen.items()}
    if "num_heads" in seen:
        wanted["num_heads"] = _filled_heads(seen, spec)
    wanted.update(known)
    overrides = {key: value for key, value in wanted.items() if value != _canonical(spec, key)}
    assumed = {
        key: overrides.get(key, value)
        for key, value in vars(spec).items()
        if key not in TRAINING_ONLY | OF_OTHER_FORMS | set(known)
        and (key in unseen or has_unknown(seen.get(key, UNKNOWN)))
    }
    return _Candidate(variant, overrides, assumed)


def _filled(value: Any, own: Any) -> Any:
    """`value` with the variant's own in place of what no tensor shows."""
    if value is UNKNOWN:
        return own
    if has_unknown(value):
        return tuple(o if v is UNKNOWN else v for v, o in zip(value, own))
    return value


def _filled_heads(seen: Mapping[str, Any], spec: Any) -> Any:
    """The variant's heads where no tensor shows them; in stages of other widths, heads as wide as those shown."""
    heads, widths = seen["num_heads"], widths_of(seen)
    if heads is UNKNOWN or not has_unknown(heads) or widths == widths_of(vars(spec)):
        return _filled(heads, spec.num_heads)
    shown = {width // head for width, head in zip(widths, heads) if head is not UNKNOWN}
    if len(shown) != 1:
        return _filled(heads, spec.num_heads)
    return tuple(width // min(shown) if head is UNKNOWN else head for width, head in zip(widths, heads))


def _canonical(spec: Any, key: str) -> Any:
    """A field of a spec in the one form in which readers write it."""
    value = getattr(spec, key)
    if key == "attn_type":
        return canonical_attention(value, vars(spec))
    return square(value) if key == "img_size" else value


def _agrees(spec: Any, hints: Mapping[str, Any]) -> bool:
    """Whether training settings speak of this spec: its image size, and the word norm where that decides."""
    size = hints.get("img_size")
    if size is not None and square(size) != square(spec.img_size):
        return False
    return _agrees_on_norm(spec, hints)


def _agrees_on_norm(spec: Any, hints: Mapping[str, Any]) -> bool:
    text = hints.get("text", "")
    return not (text and hasattr(spec, "normed")) or ("norm" in text.lower()) == spec.normed


def _names_family(hints: Mapping[str, Any], variants: Sequence[str]) -> bool:
    """Whether training settings name a model of a family, as the authors or we spell it."""
    stems = {"_".join(variant.split("_")[:2]) for variant in variants}
    words = map(model_name, hints.get("text", "").split())
    return any("_".join(word.split("_")[:2]) in stems for word in words)


def _other_families(hints: Mapping[str, Any], family: str) -> list[str]:
    """Return a remark where training settings name models of other families alone."""
    others = [
        word
        for word in hints.get("text", "").split()
        if any(_names_family({"text": word}, list(variants)) for variants in VARIANTS.values())
    ]
    return (
        [f"the file's settings name {short(others[0])}, its tensors are {family}'s: they are followed"]
        if others
        else []
    )


def _same_tensors(family: str) -> list[str]:
    """Return a remark where softmax's blocks have the tensors of other forms too."""
    others = alike(family, "softmax")
    return (
        [
            f"its attention is taken as softmax; {', '.join(others)} have the same tensors: --opts attn_type NAME, if "
            "it is one of them"
        ]
        if others and family == "InLineDeiT"  # in CSwin its stripes show, in its last stage alone they do not
        else []
    )


def _refuse_unseen_heads(chosen: _Candidate, inferred: InferredSpec) -> None:
    heads = inferred.fields.get("num_heads", UNKNOWN)
    if heads is UNKNOWN or set(heads) == {UNKNOWN}:
        raise UnknownModelError(
            f"{_call(chosen.name, chosen.overrides)} has these tensors, but its attention does not show its "
            "number of heads, and other transformers have the same tensors with another number (plain "
            "DeiT and PVT one head per 64 channels, these models one per 32)\n"
            f"  add --model {chosen.name} for {chosen.assumed['num_heads']}, or --opts num_heads ..."
        )


def _ambiguity(tied: Sequence[_Candidate], maps: Maps | None = None) -> str:
    lines, differing = [], {}
    specs = [dataclasses.asdict(candidate.spec) for candidate in tied]
    for candidate, spec in zip(tied, specs):
        differing = {key: value for key, value in spec.items() if any(other[key] != value for other in specs)}
        different = ", ".join(f"{key}={value!r}" for key, value in differing.items())
        lines.append(f"  {_call(candidate.name, candidate.overrides, maps)}: {different}")
    names = {candidate.name for candidate in tied}
    way = "--model NAME" if len(names) == len(tied) else f"--opts {next(iter(differing))} ..."
    return f"several models have exactly these tensors; choose with {way}\n" + "\n".join(shortened(lines))


def _nearest(shapes: Shapes) -> str:
    """What to say of tensors that none of our families has: the variant that shares most names, if any."""
    generic = {re.sub(r"\d+", "#", name) for name in shapes}
    shared = {}
    for variants in VARIANTS.values():
        name = next(iter(variants))
        own = {re.sub(r"\d+", "#", key) for key in shapes_of(skeleton(name, {}), "torch")}
        shared[name] = len(own & generic) / len(own | generic)
    name = max(shared, key=lambda key: shared[key])
    if shared[name] < 0.1:
        return (
            "these are not the weights of any model here: "
            f"its names, such as {', '.join(map(short, list(shapes)[:3]))}, are none of theirs "
            "(`python -m paddle_inline list` names the models)"
        )
    return f"no model here has these tensors; the nearest is {name}\n{_differences(name, {}, shapes)[1]}"


def _differences(
    name: str, overrides: Mapping[str, Any], shapes: Shapes, maps: Maps | None = None
) -> tuple[str, str]:
    """(side, lines): the side from which a model differs less from `shapes`, and how; "" if not at all."""
    try:
        model = skeleton(name, overrides, maps)
    except UserError as error:  # overrides from a file can be of any values
        return "torch", f"  {_call(name, overrides, maps)} cannot be built: {error}"
    ignored = set(torch_only_names(model))
    known = {key: shape for key, shape in shapes.items() if key not in ignored}
    found = {side: difference(_needed(shapes_of(model, side), known), known) for side in ("torch", "paddle")}
    side = min(found, key=lambda key: len(found[key]))
    lines = found[side]
    return side, "\n".join(["  (- in the model, + in the file)", *shortened(lines)] if lines else [])


def _needed(own: Shapes, found: Shapes) -> Shapes:
    """A model's tensors, without the buffers that follow from its sizes and that a file has left out."""
    return {name: shape for name, shape in own.items() if name in found or name.split(".")[-1] not in REBUILT}


def _call(name: str, overrides: Mapping[str, Any], maps: Maps | None = None) -> str:
    """The line of Python that builds a model."""
    if maps is not None:  # it has no classes, and the size of its images is not given but seen
        size, given = overrides.get("img_size"), {**maps.arguments(name), **overrides}
        given = {key: value for key, value in given.items() if key not in ("img_size", "num_classes")}
        return f"create_backbone({_arguments(name, given)})" + (f", of img_size {size}" if size else "")
    return f"create_model({_arguments(name, overrides)})"


def _arguments(name: str, overrides: Mapping[str, Any]) -> str:
    given = (f"{short(key)}={short(repr(value), 400)}" for key, value in overrides.items())
    return ", ".join([repr(name), *given])
