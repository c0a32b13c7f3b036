"""RandAugment (Cubuk et al., 2019) on PIL images, policy strings and draws as timm's.

A policy string is `rand` and options joined by dashes: `m9` magnitude, `n2` operations an image,
`p0.5` probability of each, `mstd0.5` deviation of the magnitude (above 100: uniform from 0 to it),
`mmax10` its upper bound, `inc1` operations whose effect grows with the magnitude, `tweights`, `t3a`
and `t3aw` other sets of operations.

(A few lines above 300: the operations stand beside the table of their magnitudes.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ..utils.errors import UserError
from .draws import Draws
from .moves import move, rotation
from .shifts import SAME_BITS, shift

Colour = tuple[int, ...]  # one value a channel, 0 to 255
Level = Callable[[float, Draws], float]  # magnitude -> an operation's argument
MAX_LEVEL = 10.0  # magnitudes are given on a scale from 0 to this


class Geometry:
    """What moves pixels: the colour put where nothing was, the interpolation, sizes."""

    def __init__(self, fill: Colour, resample: Any, translate: float = 0.45) -> None:
        self.fill, self.resample, self.translate = fill, resample, translate

    def affine(self, image: Image.Image, draws: Draws, matrix: Sequence[float]) -> Image.Image:
        """Take each pixel (x, y) from (ax + by + c, dx + ey + f), `matrix` being (a, b, c, d, e, f)."""
        resample, moved = self._resample(draws), None
        if resample == Image.BICUBIC and image.mode == "RGB":
            moved = move(image, matrix, self.fill)
            if moved is None and SAME_BITS:
                moved = shift(image, matrix, self.fill)
        if moved is None:
            return image.transform(image.size, Image.AFFINE, matrix, resample, fillcolor=self.fill)
        return moved

    def rotate(self, image: Image.Image, draws: Draws, degrees: float) -> Image.Image:
        """Rotate about the middle, against the clock."""
        resample, moved = self._resample(draws), None
        if resample == Image.BICUBIC and image.mode == "RGB" and degrees % 90:
            moved = move(image, rotation(image.size, degrees), self.fill)
        return image.rotate(degrees, resample, fillcolor=self.fill) if moved is None else moved

    def _resample(self, draws):
        return draws.py.choice(self.resample) if isinstance(self.resample, tuple) else self.resample


# ---------------------------------------------------------------- levels: magnitude -> argument


def signed(top: float) -> Level:
    """Return a level from 0 to `top`, negated half of the time."""

    def level(magnitude: float, draws: Draws) -> float:
        value = magnitude / MAX_LEVEL * top
        return -value if draws.py.random() > 0.5 else value

    return level


def enhance(magnitude: float, draws: Draws) -> float:
    """Return a factor from 0.1 to 1.9; 1 changes nothing."""
    return magnitude / MAX_LEVEL * 1.8 + 0.1


def enhance_increasing(magnitude: float, draws: Draws) -> float:
    """1 and, growing with the magnitude, less or more."""
    change = magnitude / MAX_LEVEL * 0.9
    return max(0.1, 1.0 + (-change if draws.py.random() > 0.5 else change))


def between(low: float, high: float) -> Level:
    """Return a level from `low` to `high`."""

    def level(magnitude: float, draws: Draws) -> float:
        return max(low, min(high, low + (high - low) * (magnitude / MAX_LEVEL)))

    return level


def bits(magnitude: float, draws: Draws) -> int:
    """Return the highest bits to keep, none to 4."""
    return int(magnitude / MAX_LEVEL * 4)


def bits_increasing(magnitude: float, draws: Draws) -> int:
    """Return the same as `bits`, fewer with a growing magnitude."""
    return 4 - bits(magnitude, draws)


def bits_original(magnitude: float, draws: Draws) -> int:
    """Return the same as `bits`, 4 to 8."""
    return 4 + bits(magnitude, draws)


def threshold(magnitude: float, draws: Draws) -> int:
    """Return a brightness, 0 to 256."""
    return min(256, int(magnitude / MAX_LEVEL * 256))


def threshold_increasing(magnitude: float, draws: Draws) -> int:
    """Return the same as `threshold`, lower with a growing magnitude."""
    return 256 - threshold(magnitude, draws)


def addend(magnitude: float, draws: Draws) -> int:
    """Return a brightness, 0 to 110."""
    return min(128, int(magnitude / MAX_LEVEL * 110))


# ---------------------------------------------------------------- operations


def solarize_add(image: Image.Image, add: int) -> Image.Image:
    """Add to every value below 128."""
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * len(image.getbands()))


def posterize(image: Image.Image, keep: int) -> Image.Image:
    """Keep the `keep` highest bits; none or fewer gives black, which ImageOps.posterize refuses."""
    mask = ~((1 << (8 - keep)) - 1)
    return image.point([i & mask for i in range(256)] * len(image.getbands()))


def blur(image: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur, `radius` in pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius=radius))


def desaturate(image: Image.Image, amount: float) -> Image.Image:
    """Take away this share of the colour, 0 to 1."""
    return ImageEnhance.Color(image).enhance(min(1.0, max(0.0, 1.0 - amount)))


def _plain(function):
    return lambda image, draws, geometry: function(image)


def _pixels(function, level):
    return lambda image, draws, geometry, magnitude: function(image, level(magnitude, draws))


def _enhancer(enhancer, level):
    return _pixels(lambda image, factor: enhancer(image).enhance(factor), level)


def _rotate(image, draws, geometry, magnitude):
    return geometry.rotate(image, draws, signed(30.0)(magnitude, draws))


def _shear(matrix):
    def operation(image, draws, geometry, magnitude):
        return geometry.affine(image, draws, matrix(signed(0.3)(magnitude, draws)))

    return operation


def _translate(axis):
    def operation(image, draws, geometry, magnitude):
        pixels = signed(geometry.translate)(magnitude, draws) * image.size[axis]
        matrix = (1, 0, pixels, 0, 1, 0) if axis == 0 else (1, 0, 0, 0, 1, pixels)
        return geometry.affine(image, draws, matrix)

    return operation


# Operations without a level; all others take the magnitude.
PLAIN = {
    "AutoContrast": _plain(ImageOps.autocontrast),
    "Equalize": _plain(ImageOps.equalize),
    "Invert": _plain(ImageOps.invert),
}
LEVELLED = {
    "Rotate": _rotate,
    "Posterize": _pixels(posterize, bits),
    "PosterizeIncreasing": _pixels(posterize, bits_increasing),
    "PosterizeOriginal": _pixels(posterize, bits_original),
    "Solarize": _pixels(ImageOps.solarize, threshold),
    "SolarizeIncreasing": _pixels(ImageOps.solarize, threshold_increasing),
    "SolarizeAdd": _pixels(solarize_add, addend),
    "Color": _enhancer(ImageEnhance.Color, enhance),
    "ColorIncreasing": _enhancer(ImageEnhance.Color, enhance_increasing),
    "Contrast": _enhancer(ImageEnhance.Contrast, enhance),
    "ContrastIncreasing": _enhancer(ImageEnhance.Contrast, enhance_increasing),
    "Brightness": _enhancer(ImageEnhance.Brightness, enhance),
    "BrightnessIncreasing": _enhancer(ImageEnhance.Brightness, enhance_increasing),
    "Sharpness": _enhancer(ImageEnhance.Sharpness, enhance),
    "SharpnessIncreasing": _enhancer(ImageEnhance.Sharpness, enhance_increasing),
    "ShearX": _shear(lambda factor: (1, factor, 0, 0, 1, 0)),
    "ShearY": _shear(lambda factor: (1, 0, 0, factor, 1, 0)),
    "TranslateXRel": _translate(0),
    "TranslateYRel": _translate(1),
    "Desaturate": _pixels(desaturate, between(0.5, 1.0)),
    "GaussianBlur": _pixels(blur, between(0.1, 2.0)),
}

MOVES = (
    "Rotate",
    "Shear",
    "Translate",
)  # how the names of operations begin that move alpha too; others leave it
_SHARED = ("ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
STANDARD: tuple[str, ...] = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd"),
    *("Color", "Contrast", "Brightness", "Sharpness", *_SHARED),
)
INCREASING = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing"),
    *("SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing", "ContrastIncreasing"),
    *("BrightnessIncreasing", "SharpnessIncreasing", *_SHARED),
)
THREE = ("SolarizeIncreasing", "Desaturate", "GaussianBlur")
# Sets with weights are drawn without replacement.
WEIGHTED: dict[str, dict[str, float]] = {
    "weights": {
        **{"Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1},
        **{"ColorIncreasing": 0.25, "SharpnessIncreasing": 0.25, "AutoContrast": 0.25},
        **{"SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05, "ContrastIncreasing": 0.05},
        **{"BrightnessIncreasing": 0.05, "Equalize": 0.05, "PosterizeIncreasing": 0.05, "Invert": 0.05},
    },
    "3aw": {
        **{"SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6},
        **{"Rotate": 3, "ShearX": 2, "ShearY": 2},
        **{"PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1},
        **{"SharpnessIncreasing": 1, "ContrastIncreasing": 1, "BrightnessIncreasing": 1},
        **{"Equalize": 1, "Invert": 1},
    },
}


@dataclass(eq=False)
class RandAugment:
    """Applies `count` random operations to a PIL image, grey, RGB or RGBA; see the module's head for the options."""

    names: Sequence[str]
    geometry: Geometry
    magnitude: float
    count: int
    p: float
    deviation: float
    top: float
    weights: np.ndarray | None = None  # None: all alike, drawn with replacement

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        chosen = draws.np.choice(len(self.names), self.count, replace=self.weights is None, p=self.weights)
        for i in chosen:
            image = self.apply(self.names[i], image, draws)
        return image

    def apply(self, name: str, image: Image.Image, draws: Draws) -> Image.Image:
        """Apply one operation, with probability p, at a magnitude drawn about the policy's."""
        if self.p < 1 and draws.py.random() > self.p:
            return image
        magnitude = self.magnitude
        if self.deviation == float("inf"):
            magnitude = draws.py.uniform(0, magnitude)
        elif self.deviation > 0:
            magnitude = draws.py.gauss(magnitude, self.deviation)
        magnitude = max(0.0, min(magnitude, self.top))
        if image.mode == "RGBA" and not name.startswith(MOVES):
            colours = self._run(name, image.convert("RGB"), draws, magnitude)
            colours.putalpha(image.getchannel("A"))
            return colours
        return self._run(name, image, draws, magnitude)

    def _run(self, name: str, image: Image.Image, draws: Draws, magnitude: float) -> Image.Image:
        if name in PLAIN:
            return PLAIN[name](image, draws, self.geometry)
        return LEVELLED[name](image, draws, self.geometry, magnitude)


def rand_augment(policy: str, fill: Colour, resample: Any = Image.BICUBIC) -> RandAugment:
    """Return the RandAugment of a policy string.

    Args:
        policy: such as `rand-m9-mstd0.5-inc1`.
        fill: one value a channel, 0 to 255, for pixels that come from outside.
        resample: PIL's filter for rotations, shears and translations, or several to draw from.

    Raises:
        UserError: for a policy that cannot be read.
    """
    kind, *options = policy.split("-")
    values = {"m": 10.0, "n": 2.0, "p": 0.5, "mstd": 0.0, "mmax": MAX_LEVEL, "inc": 0.0}
    chosen, readable = "", kind == "rand"
    for option in options:
        number = re.fullmatch(rf"({'|'.join(values)})(\d+\.?\d*|\.\d+)", option)
        if option in ("t3a", *(f"t{name}" for name in WEIGHTED)):
            chosen = option[1:]
        elif number:
            values[number[1]] = float(number[2])
        else:
            readable = False
    if not readable:
        raise UserError(
            f"auto_augment {policy!r} is no policy: write rand-m9-mstd0.5-inc1 or the like (options "
            f"{', '.join(values)}, t3a, {', '.join('t' + name for name in WEIGHTED)}), or none"
        )
    names, weights = INCREASING if values["inc"] else STANDARD, None
    if chosen == "3a":
        names = THREE
    elif chosen:
        names = tuple(WEIGHTED[chosen])
        weights = np.array(list(WEIGHTED[chosen].values()))
        weights = weights / weights.sum()
    return RandAugment(
        names,
        Geometry(fill, resample),
        weights=weights,
        magnitude=int(values["m"]),
        count=int(values["n"]),
        p=values["p"],
        deviation=float("inf") if values["mstd"] > 100 else values["mstd"],
        top=values["mmax"],
    )
