"""Which model a file's tensors are: its name in `list_models()` and the overrides, from names and shapes.

Each family has a reader that looks at tensors which are shaped alike in both frameworks (biases, norms,
convolutions, tables) and says what they show of its spec. What no tensor shows is taken from the variant that
is otherwise the same; where two variants are, or the choice would be a guess, the answer is an error.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from dataclasses import dataclass, field

from paddle_inline.models import inline_cswin, inline_deit, inline_pvt, inline_swin, soft
from paddle_inline.models.factory import FAMILIES, model_spec
from paddle_inline.models.spec import LETTER_OF, attention_form, attention_types, forms_of
from paddle_inline.utils.errors import short
from paddle_inline.weights.load import difference
from paddle_inline.weights.resize import REBUILT

from .errors import UnknownModelError
from .mapping import torch_only_names
from .skeleton import shapes_of, skeleton

# Fields that matter in training alone, or to nobody but a reader.
UNSEEN = {"drop_rate", "drop_path_rate", "recompute", "published", "per_matrix_alpha"}
# Fields that say which variant it is, before all others.
SIZES = {"embed_dim", "embed_dims", "depth", "depths"}
LARGEST_IMAGE = 2048
MOST_LINES = 40


@dataclass(frozen=True)
class Identity:
    """A model, and how it was recognised."""

    name: str
    overrides: dict
    side: str  # whose names and layout the file has: "torch" or "paddle"
    assumed: dict = field(default_factory=dict)  # {field: value} that no tensor shows
    how: str = ""

    @property
    def model(self):
        """The model without weights, which says what each tensor is."""
        return skeleton(self.name, self.overrides)

    def __str__(self):
        return _call(self.name, self.overrides)


class _Hidden:
    """In place of a value, or of a part of a tuple, that no tensor shows."""

    def __repr__(self):
        return "not shown"


UNKNOWN = _Hidden()


@dataclass(frozen=True)
class InferredSpec:
    """What a family's reader saw: fields of the spec, and alternatives where several values explain it."""

    fields: dict
    options: tuple[dict, ...] = ({},)


def identify(shapes, name=None, overrides=None, hints=None):
    """Recognise a model.

    Args:
        shapes: {tensor's name: shape}, on either framework's side.
        name: the model's name, if it is known; the tensors then only decide its overrides.
        overrides: {field: value} that are known, with or without the name.
        hints: {"img_size": int or pair, "text": str} from the training settings beside the weights; they
            decide between variants that have the same tensors.
    Returns:
        Identity: building it gives exactly these names and shapes.
    Raises:
        UnknownModelError: it is none of our models, or could be several: with the nearest candidates and the
            differences.
        ValueError: an unknown name or override.
    """
    overrides = {
        key: _square(value) if key == "img_size" else value for key, value in (overrides or {}).items()
    }
    family = type_of(shapes) if name is None else _family_of(name)
    if family is None:
        raise UnknownModelError(_nearest(shapes))
    try:
        sight = READERS[family](_Shapes(shapes), overrides)
    except (_Missing, ZeroDivisionError) as error:
        near, seen = name or next(iter(FAMILIES[family])), type_of(shapes)
        told = f"this looks like {family.__name__}, but {error}"
        if seen not in (None, family):
            told = f"these tensors look like {seen.__name__}, and {name} is {family.__name__}: leave it out"
        raise UnknownModelError(f"{told}\n{_differences(near, {}, shapes)[1]}") from None
    _refuse_contradictions(sight, overrides)
    candidates = [
        _candidate(variant, {**sight.fields, **option}, overrides)
        for variant in ([name] if name else FAMILIES[family])
        for option in sight.options
    ]
    rank = min(candidate.rank for candidate in candidates)
    tied = list({repr(c.spec): c for c in reversed(candidates) if c.rank == rank}.values())[::-1]
    if rank[0]:  # sizes that nobody released, so no variant's input size is nearer than the usual one
        usual = [candidate for candidate in tied if candidate.spec.img_size == type(candidate.spec).img_size]
        tied = usual or tied
    told = [candidate for candidate in tied if _agrees(candidate.spec, hints or {})]
    chosen = told[0] if len(tied) > 1 and len(told) == 1 else tied[0]
    side, lines = _differences(chosen.name, chosen.overrides, shapes)
    if lines:
        raise UnknownModelError(f"the nearest model is {_call(chosen.name, chosen.overrides)}\n{lines}")
    if len(tied) > 1 and len(told) != 1:
        raise UnknownModelError(_ambiguity(tied))
    if name is None and "num_heads" in chosen.assumed:
        _refuse_unseen_heads(chosen, sight)
    how = "names and shapes" if name is None else "the model that was named"
    if len(tied) > 1:
        how += " and the training settings in the file"
    return Identity(chosen.name, chosen.overrides, side, chosen.assumed, how)


def type_of(shapes):
    """The model class that has tensors of such names, or None."""
    return next((f for f, mark in LANDMARKS.items() if any(re.match(mark, name) for name in shapes)), None)


LANDMARKS = {
    soft.Soft: r"block1\.0\.att\.mha\.",
    inline_cswin.InLineCSwin: r"stage1_conv_embed\.",
    inline_swin.InLineSwin: r"layers\.0\.blocks\.0\.",
    inline_pvt.InLinePVT: r"pos_embed1$",
    inline_deit.InLineDeiT: r"blocks\.0\.attn\.qkv\.",
}


class _Missing(LookupError):
    pass


class _Shapes:
    """Questions to a file's shapes; a tensor that should be there and is not raises _Missing."""

    def __init__(self, shapes):
        self.shapes = shapes

    def __contains__(self, name):
        return name in self.shapes

    def of(self, name, rank):
        """The shape of a tensor with `rank` dimensions."""
        shape = self.shapes.get(name)
        if shape is None or len(shape) != rank:
            raise _Missing(f"{name} of {rank} dimensions is missing")
        return shape

    def width(self, name):
        """The length of a one-dimensional tensor."""
        return self.of(name, 1)[0]

    def count(self, prefix):
        """How many modules prefix.0, prefix.1, ... there are, without a gap."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,6}})\.")
        found = {int(match[1]) for name in self.shapes if (match := pattern.match(name))}
        if not found or found != set(range(len(found))):
            raise _Missing(f"{prefix}.0, {prefix}.1, ... are not complete")
        return len(found)

    def letters(self, blocks, mark):
        """I for every block that has the tensor `mark`, S for the others."""
        return "".join("I" if f"{block}.{mark}" in self else "S" for block in blocks)


def _ratio(hidden, width):
    return hidden // width if hidden % width == 0 else hidden / width


def _heads(shapes, tensor, width):
    """The heads of an InLine block, which its grouped convolution shows; other blocks hide them."""
    return width // shapes.of(tensor, 3)[1] if tensor in shapes else UNKNOWN


def _attention_code(letters):
    """The attn_type that gives these letters per stage."""
    counts = {len(stage) - len(stage.lstrip("I")) for stage in letters if len(set(stage)) == 2}
    code = "".join(stage[0] if len(set(stage)) == 1 else "M" for stage in letters)
    code += "".join(map(str, counts))
    if len(counts) > 1 or attention_types(code, [len(stage) for stage in letters]) != list(letters):
        raise _Missing(
            f"no attn_type gives the blocks {', '.join(letters)} (I InLine, S softmax) of its stages"
        )
    return code


def _sizes(tokens, stride, known):
    """Image sizes of a grid of so many tokens: the known one, the square, or else all, the squarest first."""
    side = math.isqrt(tokens)
    sides = [side] if side * side == tokens else [n for n in range(side, 0, -1) if tokens % n == 0]
    pairs = {pair: None for n in sides for pair in ((n, tokens // n), (tokens // n, n))}
    if "img_size" in known:
        pair = known["img_size"] if isinstance(known["img_size"], tuple) else (known["img_size"],) * 2
        if len(pair) != 2 or any(n % stride for n in pair) or pair[0] * pair[1] != tokens * stride**2:
            raise _Missing(f"its {tokens} positions are not those of img_size {short(known['img_size'])}")
        pairs = [(pair[0] // stride, pair[1] // stride)]
    return tuple({"img_size": _square((height * stride, width * stride))} for height, width in pairs)


def _square(size):
    """A pair of equal sides as one int."""
    return size[0] if isinstance(size, (tuple, list)) and len(set(size)) == 1 else size


def _read_deit(shapes, known):
    dim, patch = shapes.of("cls_token", 3)[2], shapes.of("patch_embed.proj.weight", 4)
    depth = shapes.count("blocks")
    letters = shapes.letters([f"blocks.{i}" for i in range(depth)], "attn.residual.0.weight")
    if len(set(letters)) != 1:
        raise _Missing(f"its blocks are {letters} (I InLine, S softmax), not all alike")
    fields = {
        "embed_dim": dim,
        "depth": depth,
        "num_heads": _heads(shapes, "blocks.0.attn.residual.0.weight", dim),
        "patch_size": patch[2],
        "mlp_ratio": _ratio(shapes.width("blocks.0.mlp.fc1.bias"), dim),
        "attn_type": letters[0],
        **_ends(shapes, "patch_embed.proj.weight"),
    }
    return InferredSpec(fields, _sizes(shapes.of("pos_embed", 3)[1] - 1, patch[2], known))


def _read_pvt(shapes, known):
    stages = range(1, 5)
    dims = tuple(shapes.of(f"pos_embed{s}", 3)[2] for s in stages)
    firsts = [f"block{s}.0" for s in stages]
    letters = shapes.letters(firsts, "attn.residual.0.weight")
    fields = {
        "embed_dims": dims,
        "depths": tuple(shapes.count(f"block{s}") for s in stages),
        "num_heads": tuple(
            _heads(shapes, f"{first}.attn.residual.0.weight", dim) for first, dim in zip(firsts, dims)
        ),
        "mlp_ratios": tuple(
            _ratio(shapes.width(f"{first}.mlp.fc1.bias"), dim) for first, dim in zip(firsts, dims)
        ),
        "sr_ratios": tuple(
            UNKNOWN if letter == "I" else _kernel(shapes, f"{first}.attn.sr.weight")
            for first, letter in zip(firsts, letters)
        ),
        "attn_type": letters,
        **_ends(shapes, "patch_embed1.proj.weight"),
    }
    return InferredSpec(fields, _sizes(shapes.of("pos_embed4", 3)[1], 32, known))


def _read_swin(shapes, known):
    depths = tuple(shapes.count(f"layers.{s}.blocks") for s in range(4))
    blocks = [[f"layers.{s}.blocks.{i}" for i in range(depth)] for s, depth in enumerate(depths)]
    letters = [shapes.letters(stage, "attn.residual.0.weight") for stage in blocks]
    dim = shapes.width("patch_embed.norm.weight")
    heads = [
        _heads(shapes, f"{stage[0]}.attn.residual.0.weight", dim << s)
        if kinds[0] == "I"
        else shapes.of(f"{stage[0]}.attn.relative_position_bias_table", 2)[1]
        for s, (stage, kinds) in enumerate(zip(blocks, letters))
    ]
    fields = {
        "embed_dim": dim,
        "depths": depths,
        "num_heads": tuple(heads),
        "mlp_ratio": _ratio(shapes.width("layers.0.blocks.0.mlp.fc1.bias"), dim),
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in shapes,
        "attn_type": _attention_code(letters),
        **_ends(shapes, "patch_embed.proj.weight"),
    }
    return InferredSpec(fields, _swin_windows(shapes, letters, known))


def _swin_windows(shapes, letters, known):
    """The image and window sizes that give a Swin exactly the masks and indices of a file: what is known,
    square images and default windows first.

    Where a file has none, every size does, and there is nothing to choose from.
    """
    seen = {name: shape for name, shape in shapes.shapes.items() if name.rsplit(".", 1)[-1] in REBUILT}
    if not seen and not {"img_size", "window_size"} & set(known):
        return ({},)
    sides = range(32, LARGEST_IMAGE + 1, 32)
    squares, every = [(side, side) for side in sides], itertools.product(sides, sides)
    if "img_size" in known:
        size = known["img_size"]
        squares, every = [size if isinstance(size, tuple) else (size, size)], []
    default, windows = [None], range(1, LARGEST_IMAGE // 4)
    if "window_size" in known:
        default, windows = [known["window_size"]], []
    for sizes, choices in ((squares, default), (squares, windows), (every, default)):
        found = {}
        for size, window in itertools.product(sizes, choices):
            if inline_swin.buffer_shapes(size, window, forms_of(letters)) == seen:
                # other windows that cut the same grids into the same parts are the same model
                found.setdefault(size, {"img_size": _square(size), "window_size": window})
        if found:
            return tuple(found.values())
    raise _Missing("no image and window sizes give its masks and indices")


def _read_cswin(shapes, known):
    depths = tuple(shapes.count(f"stage{s}") for s in range(1, 5))
    blocks = [[f"stage{s}.{i}" for i in range(depth)] for s, depth in enumerate(depths, 1)]
    dim = shapes.of("stage1_conv_embed.0.weight", 4)[0]
    mark = "attns.0.residual.0.weight"
    fields = {
        "embed_dim": dim,
        "depths": depths,
        "num_heads": tuple(_heads(shapes, f"{stage[0]}.{mark}", dim << s) for s, stage in enumerate(blocks)),
        "mlp_ratio": _ratio(shapes.width("stage1.0.mlp.fc1.bias"), dim),
        "qkv_bias": "stage1.0.qkv.bias" in shapes,
        "attn_type": _attention_code([shapes.letters(stage, mark) for stage in blocks]),
        **_ends(shapes, "stage1_conv_embed.0.weight"),
    }
    return InferredSpec(fields)


def _read_soft(shapes, known):
    stages = range(1, 5)
    inner = [f"block{s}.0.att.mha.attn" for s in (1, 2, 3)]
    fields = {
        "embed_dims": tuple(shapes.of(f"pos_embed{s}", 3)[2] for s in stages),
        "depths": tuple(shapes.count(f"block{s}") for s in stages),
        "num_heads": (*(shapes.of(f"{block}.conv.weight", 4)[0] for block in inner), UNKNOWN),
        "landmark_ratios": tuple(_kernel(shapes, f"{block}.Qlandmark_op.weight") for block in inner),
        **_ends(shapes, "patch_embed1.proj.0.weight"),
    }
    return InferredSpec(fields)


def _ends(shapes, stem):
    """The fields that the first convolution and the head show."""
    classes = shapes.width("head.bias") if "head.bias" in shapes else 0
    return {"in_chans": shapes.of(stem, 4)[1], "num_classes": classes}


def _kernel(shapes, convolution):
    return shapes.of(convolution, 4)[2] if convolution in shapes else 1


READERS = {
    inline_deit.InLineDeiT: _read_deit,
    inline_pvt.InLinePVT: _read_pvt,
    inline_swin.InLineSwin: _read_swin,
    inline_cswin.InLineCSwin: _read_cswin,
    soft.Soft: _read_soft,
}


@dataclass(frozen=True)
class _Candidate:
    name: str
    overrides: dict
    assumed: dict

    @property
    def rank(self):
        """The fewer sizes, and then other fields, differ from the variant's, the nearer it is."""
        return len(SIZES & set(self.overrides)), len(self.overrides)

    @property
    def spec(self):
        return dataclasses.replace(model_spec(self.name, **self.overrides), published=None)


def _family_of(name):
    model_spec(name)  # its error says which names there are
    return next(family for family, variants in FAMILIES.items() if name in variants)


def _refuse_contradictions(sight, known):
    """What is known must not be what the tensors deny: a model of such sizes might not fit into memory."""
    for key, value in known.items():
        seen = sight.fields.get(key, UNKNOWN)
        if key == "attn_type" and isinstance(value, str):
            value = _same_letters(value, sight.fields)
        whole = isinstance(seen, tuple) and isinstance(value, (tuple, list)) and len(seen) == len(value)
        if any(v != s for v, s in (zip(value, seen) if whole else [(value, seen)]) if s is not UNKNOWN):
            raise UnknownModelError(f"{key} is {seen!r} by the tensors, not {short(repr(value))}")


def _same_letters(attn_type, fields):
    """An attn_type in the one form in which readers write it, if it is one at all."""
    try:
        if "depths" not in fields:
            return LETTER_OF[attention_form(attn_type, LETTER_OF)]
        return _attention_code(attention_types(attn_type, fields["depths"]))
    except ValueError:
        return attn_type


def _candidate(variant, seen, known):
    """A variant with the overrides that what was seen of a file, and what is known of it, ask for."""
    spec = model_spec(variant)
    model_spec(variant, **known)  # its error says which overrides there are
    wanted = {key: _filled(value, getattr(spec, key)) for key, value in seen.items()}
    wanted["num_heads"] = _filled_heads(seen, spec)
    wanted.update(known)
    overrides = {key: value for key, value in wanted.items() if value != _canonical(spec, key)}
    assumed = {
        key: overrides.get(key, value)
        for key, value in vars(spec).items()
        if key not in UNSEEN | set(known) and _hides(seen.get(key, UNKNOWN))
    }
    return _Candidate(variant, overrides, assumed)


def _hides(value):
    return value is UNKNOWN or (isinstance(value, tuple) and UNKNOWN in value)


def _filled(value, own):
    """`value` with the variant's own in place of what is hidden."""
    if value is UNKNOWN:
        return own
    if _hides(value):
        return tuple(o if v is UNKNOWN else v for v, o in zip(value, own))
    return value


def _filled_heads(seen, spec):
    """The variant's heads where they are hidden; in stages of other widths, heads as wide as those seen."""
    heads, widths = seen["num_heads"], _widths(seen)
    if heads is UNKNOWN or not _hides(heads) or widths == _widths(vars(spec)):
        return _filled(heads, spec.num_heads)
    shown = {width // head for width, head in zip(widths, heads) if head is not UNKNOWN}
    if len(shown) != 1:
        return _filled(heads, spec.num_heads)
    return tuple(width // min(shown) if head is UNKNOWN else head for width, head in zip(widths, heads))


def _widths(fields):
    """Channels per stage."""
    return fields.get("embed_dims") or tuple(fields["embed_dim"] << stage for stage in range(4))


def _canonical(spec, key):
    """A field of a spec in the one form in which readers write it."""
    value = getattr(spec, key)
    if key == "attn_type":
        return _same_letters(value, vars(spec))
    return _square(value) if key == "img_size" else value


def _agrees(spec, hints):
    """Whether training settings speak of this spec: its image size, and the word norm where that decides."""
    size, text = hints.get("img_size"), hints.get("text", "")
    if size is not None and _square(size) != _square(spec.img_size):
        return False
    return not (text and hasattr(spec, "normed")) or ("norm" in text.lower()) == spec.normed


def _refuse_unseen_heads(chosen, sight):
    heads = sight.fields["num_heads"]
    if heads is UNKNOWN or set(heads) == {UNKNOWN}:
        raise UnknownModelError(
            f"{_call(chosen.name, chosen.overrides)} has these tensors, but softmax attention does not show "
            "its number of heads, and other transformers have the same tensors with another number (plain "
            "DeiT and PVT one head per 64 channels, these models one per 32)\n"
            f"  add --model {chosen.name} for {chosen.assumed['num_heads']}, or --opts num_heads ..."
        )


def _ambiguity(tied):
    lines = []
    specs = [dataclasses.asdict(candidate.spec) for candidate in tied]
    for candidate, spec in zip(tied, specs):
        told = {key: value for key, value in spec.items() if any(other[key] != value for other in specs)}
        different = ", ".join(f"{key}={value!r}" for key, value in told.items())
        lines.append(f"  {_call(candidate.name, candidate.overrides)}: {different}")
    names = {candidate.name for candidate in tied}
    way = "--model NAME" if len(names) == len(tied) else f"--opts {next(iter(told))} ..."
    shown = lines[:MOST_LINES] + [f"  ... and {len(lines) - MOST_LINES} more"] * (len(lines) > MOST_LINES)
    return f"several models have exactly these tensors; choose with {way}\n" + "\n".join(shown)


def _nearest(shapes):
    """What to say of tensors that none of our families has: the variant that shares most names, if any."""
    generic = {re.sub(r"\d+", "#", name) for name in shapes}
    shared = {}
    for variants in FAMILIES.values():
        name = next(iter(variants))
        own = {re.sub(r"\d+", "#", key) for key in shapes_of(skeleton(name, {}), "torch")}
        shared[name] = len(own & generic) / len(own | generic)
    name = max(shared, key=shared.get)
    if shared[name] < 0.1:
        return (
            "these are not the weights of any model here: "
            f"its names, such as {', '.join(map(short, list(shapes)[:3]))}, are none of theirs "
            "(`python -m paddle_inline list` names the models)"
        )
    return f"no model here has these tensors; the nearest is {name}\n{_differences(name, {}, shapes)[1]}"


def _differences(name, overrides, shapes):
    """(side, lines): the side from which a model differs less from `shapes`, and how; "" if not at all."""
    try:
        model = skeleton(name, overrides)
    except Exception as error:  # overrides from a file can be anything
        return "torch", f"  {_call(name, overrides)} cannot be built: {error}"
    ignored = set(torch_only_names(model))
    known = {key: shape for key, shape in shapes.items() if key not in ignored}
    found = {side: difference(shapes_of(model, side), known) for side in ("torch", "paddle")}
    side = min(found, key=lambda key: len(found[key]))
    lines = found[side]
    shown = lines[:MOST_LINES] + [f"  ... and {len(lines) - MOST_LINES} more"] * (len(lines) > MOST_LINES)
    return side, "\n".join(["  (- in the model, + in the file)", *shown] if lines else [])


def _call(name, overrides):
    """The line of Python that builds a model."""
    given = (f"{short(key)}={short(repr(value))}" for key, value in overrides.items())
    return f"create_model({', '.join([repr(name), *given])})"
