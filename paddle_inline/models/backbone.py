"""Backbones: a family's stages for images of any size, as detectors and segmenters use them.

B batch, C channels, H x W the image. The image is padded with zeros at the right and at the bottom to sides that
divide by 32. InLine blocks see the whole map; softmax blocks of Swin and CSwin keep the windows and the stripes that
the weights were trained with, padded to whole ones; PVT and SOFT resize their positions. Nothing is masked because it
was padded. At the size of the spec the maps are those of `forward_intermediates`, bit for bit.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..layers.basic import LayerNorm, Module, Tensor, freeze, rest, set_mode
from ..ops.padding import pad_map
from ..ops.tokens import map_size, tokens_to_map
from ..utils.errors import UserError, counted, short, unknown
from ..weights import load_weights, shown_sizes, tensor_shapes
from .factory import Path, list_models, model_class, model_spec, stated_fields
from .inline_cswin import CSwinPyramid, InLineCSwin
from .inline_pvt import InLinePVT, PVTPyramid
from .inline_swin import InLineSwin, SwinPyramid
from .pyramid import STRIDES, Pyramid
from .soft import Soft, SoftPyramid, SoftSpec
from .spec import check_path, check_type

LEAST_SIDE = 32  # pixels of an image
EPS = 1e-5  # of the output norms
# Tensors of other files that a backbone has no place for: the classifier, output norms that are not wanted, and the
# masks of shifted windows, which are made for each image.
LEFT_OUT = re.compile(
    r"(head|norm|norm[0-3])\.(weight|bias)|layers\.\d+\.(blocks\.\d+\.attn_mask|downsample\..+)"
)
SOME = ("inline_pvt_tiny", "inline_swin_tiny", "inline_cswin_tiny", "soft_tiny")


def check_arguments(out_indices: Any, out_norm: Any, crop: Any, frozen_stages: Any) -> None:
    """Refuse what no backbone can be built with: UserError naming the argument, its value and the rule."""
    most = len(STRIDES)
    stages = out_indices if isinstance(out_indices, (tuple, list)) else ()
    if not stages or not all(type(i) is int and -most <= i < most for i in stages):
        raise UserError(
            f"out_indices {short(repr(out_indices))} must be a tuple of one or more of the stages 0 .. {most - 1}"
        )
    if type(frozen_stages) is not int or not -1 <= frozen_stages <= most:
        raise UserError(
            f"frozen_stages {short(repr(frozen_stages))} must be an int of -1 (nothing) .. {most}"
        )
    for name, value, rule in (("out_norm", out_norm, "None, True or False"), ("crop", crop, "True or False")):
        if not isinstance(value, bool) and (name == "crop" or value is not None):
            raise UserError(f"{name} {short(repr(value))} must be {rule}")


class Backbone(Pyramid):
    """Images [B, in_chans, H, W] of any sides from 32 up -> maps [B, C, H', W'], one per chosen stage.

    A base to put before a family's stages. H' and W' are those of the image padded to sides that divide by 32, over
    the stride, or with `crop` the image's own over the stride, rounded up.

    Args:
        spec: a row of sizes; its img_size is what the weights were trained at.
        out_indices: stages of 0 .. 3 whose maps are returned, in this order; those behind the last are not built.
        out_norm: whether a LayerNorm of its own, `norm0` to `norm3`, ends each map; None: the family's rule.
        crop: whether the maps are cut to the image.
        frozen_stages: -1: nothing; 0: the first embedding, and n: that and the first n stages, with their positions,
            have no gradients and stay in eval mode.

    Attributes:
        out_channels, strides: of the maps.

    Raises:
        UserError: an argument that is none of these; in `forward`, images that are smaller or of other channels.
    """

    OUT_NORM = False  # the family's rule

    def __init__(
        self,
        spec: Any,
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norm: bool | None = None,
        crop: bool = False,
        frozen_stages: int = -1,
    ) -> None:
        check_arguments(out_indices, out_norm, crop, frozen_stages)
        chosen = [i % len(STRIDES) for i in out_indices]
        super().__init__(spec, max(chosen) + 1, any_size=True)
        self.out_indices = chosen
        self.out_norm = self.OUT_NORM if out_norm is None else out_norm
        self.crop = crop
        self.frozen_stages = frozen_stages
        dims = getattr(spec, "embed_dims", None) or [spec.embed_dim * 2**i for i in range(len(STRIDES))]
        self.out_channels = [dims[i] for i in chosen]
        self.strides = [STRIDES[i] for i in chosen]
        if self.out_norm:
            for i in sorted(set(chosen)):
                setattr(self, f"norm{i}", LayerNorm(dims[i], EPS))
        for part in self.frozen_parts():
            freeze(part)
        self.hold()

    def frozen_parts(self) -> list[Any]:
        """Return the layers and parameters that `frozen_stages` keeps as they are."""
        if self.frozen_stages < 0:
            return []
        names = list(self.EMBEDDING)
        for i in range(min(self.frozen_stages, max(self.out_indices) + 1)):
            names += [name for name in self.parts_of_stage(i) if name not in names]
        return [self.part(name) for name in names]

    def part(self, name: str) -> Any:
        """Return a layer or parameter by its dotted name."""
        found: Any = self
        for key in name.split("."):
            found = found[int(key)] if key.isdigit() else getattr(found, key)
        return found

    def train(self, mode: bool = True) -> Backbone:
        """Put all but what is frozen into train mode; with `mode` False, everything into eval mode."""
        set_mode(self, mode)
        self.hold()
        return self

    def hold(self) -> None:
        """Put what is frozen into eval mode."""
        for part in self.frozen_parts():
            rest(part)

    def check_images(self, x: Tensor) -> None:
        """Refuse images [B, C, H, W] of other channels or type, or smaller than 32 pixels on a side."""
        check_type(self, x)
        channels, sides = x.shape[1], map_size(x)
        if channels != self.spec.in_chans:
            raise UserError(
                f"images of {counted(channels, 'channel')} for a backbone built for {self.spec.in_chans}; build one "
                f"with create_backbone(name, in_chans={channels})"
            )
        if any(side < LEAST_SIDE for side in sides):
            raise UserError(
                f"images of {sides} must be at least {LEAST_SIDE} pixels on both sides: pad or enlarge them"
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        self.check_images(x)
        if self.training:
            self.hold()  # a model around it may have put all its layers into train mode
        height, width = map_size(x)
        divisor = STRIDES[-1]
        padded = (-(-height // divisor) * divisor, -(-width // divisor) * divisor)
        tokens = self.stage_tokens(pad_map(x, padded), max(self.out_indices) + 1)
        maps = []
        for i in self.out_indices:
            out = getattr(self, f"norm{i}")(tokens[i]) if self.out_norm else tokens[i]
            out = tokens_to_map(out, (padded[0] // STRIDES[i], padded[1] // STRIDES[i]))
            if self.crop:
                out = out[:, :, : -(-height // STRIDES[i]), : -(-width // STRIDES[i])]
            maps.append(out)
        return maps


class PVTBackbone(Backbone, PVTPyramid):
    """InLine-PVT's stages as a `Backbone`."""


class SwinBackbone(Backbone, SwinPyramid):
    """InLine-Swin's stages as a `Backbone`."""

    OUT_NORM = True


class CSwinBackbone(Backbone, CSwinPyramid):
    """InLine-CSwin's stages as a `Backbone`."""

    OUT_NORM = True


class SoftBackbone(Backbone, SoftPyramid):
    """SOFT's stages as a `Backbone`."""


# model class -> its stages as a backbone; DeiT has maps of one stride alone
BACKBONES: dict[type[Module], type[Backbone]] = {
    InLinePVT: PVTBackbone,
    InLineSwin: SwinBackbone,
    InLineCSwin: CSwinBackbone,
    Soft: SoftBackbone,
}


def create_backbone(
    name: str,
    weights: Path | None = None,
    out_indices: Sequence[int] = (0, 1, 2, 3),
    out_norm: bool | None = None,
    crop: bool = False,
    frozen_stages: int = -1,
    **overrides: Any,
) -> Backbone:
    """Build a model without its classifier, for images of any size.

    The image is padded with zeros, right and bottom, to sides that divide by 32. InLine attention sees the whole map;
    softmax attention of Swin and CSwin keeps the windows and stripes that the weights were trained with, PVT and SOFT
    resize their positions. SOFT recomputes its blocks in the backward pass unless `recompute` says otherwise, and
    SOFT-Norm has `per_matrix_alpha`, so that an image's maps do not depend on its batch.

    Args:
        name: of a model of four stages in `list_models()`: InLine-PVT, -Swin, -CSwin, SOFT or SOFT-Norm.
        weights: a file of this model, with its head or without, or of such a backbone, or None: fresh ones. They load
            strictly; what of the file has no place here, and what is new, is said in a warning.
        out_indices: stages of 0 .. 3 whose maps are returned, in this order; those behind the last are not built.
        out_norm: whether a fresh LayerNorm ends each map (`norm0` to `norm3`); None: in Swin and CSwin.
        crop: whether maps are cut to the image's own sides over the stride, rounded up, as for segmentation;
            otherwise they are the padded image's, as for feature pyramids.
        frozen_stages: -1: nothing; 0: the first embedding, n: that and the first n stages, positions included, have no
            gradients and stay in eval mode (in Swin with the layer that leads on to the next stage).
        overrides: as for `create_model`, but for img_size, which the input has; num_classes means nothing.

    Returns:
        A model from images [B, in_chans, H, W] to a list of maps [B, C, H', W'], in train mode, with `out_channels`
        and `strides`.

    Raises:
        UserError: an unknown name or override, a value that the family cannot build, attention for one size alone,
            weights that do not fit (with a difference of names and shapes).
        MissingFileError: no such weights file.
    """
    names = [known for known in list_models() if model_class(known) in BACKBONES]
    if name not in names:
        if name in list_models():
            raise UserError(
                f"{name} has maps of one stride alone, and a backbone four; give {' or '.join(SOME)}"
            )
        raise unknown("backbone", name, names)
    if "img_size" in overrides:
        raise UserError(
            f"img_size {short(repr(overrides['img_size']))} for a backbone, which takes images of any size: leave it "
            "out (what the weights were trained at is in their file)"
        )
    check_path(weights)
    fields: dict[str, Any] = {}
    if weights is not None:
        fields = {**stated_fields(weights, name, overrides), **shown_sizes(tensor_shapes(weights))}
    arguments = {
        "out_indices": out_indices,
        "out_norm": out_norm,
        "crop": crop,
        "frozen_stages": frozen_stages,
    }
    backbone = backbone_of_sizes(name, {**fields, **overrides}, **arguments)
    if weights is not None:
        _load(backbone, weights)
    return backbone


def backbone_of_sizes(name: str, sizes: Mapping[str, Any], **arguments: Any) -> Backbone:
    """Build a backbone with fresh weights; arguments as for `Backbone`, errors as for `create_backbone`.

    `sizes` are overrides as for `create_model`, with the img_size that weights were trained at.
    """
    spec = model_spec(name, **{**sizes, "num_classes": 0})
    if isinstance(spec, SoftSpec):
        own: dict[str, Any] = {"recompute": True, "per_matrix_alpha": spec.normed}
        spec = dataclasses.replace(spec, **{key: value for key, value in own.items() if key not in sizes})
    backbone = BACKBONES[model_class(name)](spec, **arguments)
    backbone.name = name
    return backbone


def _load(backbone: Backbone, path: Path) -> None:
    """Load a file of a model or of a backbone, and say what of either has no counterpart."""
    found, own = tensor_shapes(path), backbone.state_dict()
    behind = [
        part
        for i in range(max(backbone.out_indices) + 1, len(STRIDES))
        for part in backbone.parts_of_stage(i)
    ]
    places = (LEFT_OUT, *(re.compile(rf"{re.escape(part)}(\..+)?") for part in behind))
    left_out = [name for name in found if name not in own and any(place.fullmatch(name) for place in places)]
    norms = [f"norm{i}" for i in range(len(STRIDES))]
    known = {name.rpartition(".")[0] for name in found}
    new = [norm for norm in norms if f"{norm}.weight" in own and norm not in known]
    load_weights(backbone, path, skip=(*left_out, *new))
    if left_out:
        parts = dict.fromkeys(_part(name, behind) for name in left_out)
        warnings.warn(
            f"{path}: left out, for a backbone has no place for them: {', '.join(parts)}", stacklevel=3
        )
    if new:
        warnings.warn(f"{path}: not in the file, and therefore fresh: {', '.join(new)}", stacklevel=3)


def _part(name: str, behind: Sequence[str]) -> str:
    """Return what a tensor is left out with."""
    if name.endswith(".attn_mask"):
        return "attn_mask (made for each image)"
    return next((part for part in behind if f"{name}.".startswith(f"{part}.")), name.rsplit(".", 1)[0])
