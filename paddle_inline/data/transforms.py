"""From a PIL image to the model's input, drawn as timm's transforms draw.

Every step is called with an image and `Draws`; the last step of a recipe makes the array
[C, H, W], float32. H and W are pixels; a size is one side of a square, or (height, width).

(Above 300 lines: the recipes of training and evaluation stand beside the steps that they are made of.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from paddle.vision.transforms import functional as F
from PIL import Image

from ..utils.errors import UserError, unknown
from ..weights.description import RESIZES, image_sides, plain_size
from .draws import Draws
from .filters import resize
from .normalize import NOTHING, Normalize, Pixels
from .pictures import picture_mode
from .randaugment import rand_augment
from .reduced import Cut, Reading
from .resizing import LONGEST, resized

INTERPOLATIONS = {
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "random": (Image.BILINEAR, Image.BICUBIC),  # drawn for each image
}
Transform = Callable[[Image.Image, Draws], np.ndarray]  # a whole recipe
SMALL = 32  # inputs up to this many pixels are shifted, not cropped and resized


class Compose:
    """Applies steps in order; the last one makes the array. A recipe of evaluation needs no draws.

    Args:
        steps: of a recipe.
        channels: of the images, 1, 3 or 4, in which each is put first (grey, RGB or RGBA); None: as they come.

    Raises:
        UserError: pictures have no such number of channels.
    """

    def __init__(self, steps: Iterable[Callable], channels: int | None = None) -> None:
        self.steps: list[Any] = list(steps)
        self.mode = None if channels is None else picture_mode(channels)
        self.of_images, self.erasing = list(self.steps), None  # those before the array is made; the one after
        if isinstance(self.steps[-1], RandomErasing):
            self.erasing = self.of_images.pop()
        last = self.of_images.pop() if self.of_images else None
        self.normalize = last.normalize if isinstance(last, ToArray) else None  # None: of another end

    def __call__(self, image: Image.Image, draws: Draws | None = None) -> np.ndarray:
        if self.mode not in (None, image.mode):
            image = image.convert(self.mode)
        for step in self.steps:
            image = step(image, draws)
        return image

    def pixels(self, image: Image.Image, draws: Draws, reading: Reading | None = None) -> Pixels:
        """Return that of which `normalize`, where it is not None, makes for a batch what a call makes of an image.

        Args:
            image: in full, or as `reading` says.
            draws: at the beginning, or behind those of the reading's cut.
            reading: of an image that has been cut before it was decoded.
        """
        if self.mode not in (None, image.mode):
            image = image.convert(self.mode)
        steps = self.of_images
        if reading is not None and reading.cut is not None:
            image, steps = reading.cut.of(image, reading.denominator), steps[1:]
        for step in steps:
            image = step(image, draws)
        values = planes(image)
        erased = NOTHING if self.erasing is None else self.erasing.filling(values.shape, draws)
        return Pixels(values, *erased)

    def cut(self, width: int, height: int, draws: Draws) -> Cut | None:
        """Return the first step's cut of an upright image of this size, in pixels; None: it has none."""
        first = self.steps[0]
        return first.cut(width, height, draws) if isinstance(first, (Resize, RandomResizedCrop)) else None


class Resize:
    """To the size, whatever the shape before; or with `short` to the least that covers it, aspect kept: to a square
    the short side."""

    def __init__(
        self, size: int | Sequence[int], interpolation: str = "bicubic", short: bool = False
    ) -> None:
        self.size, self.short = plain_size(size), short
        self.resample = INTERPOLATIONS[interpolation]

    def goal(self, before: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of what becomes of an image of such."""
        height, width = image_sides(self.size)
        if self.short:
            whole = int if height == width else round  # the longer side: rounded as torchvision's and timm's
            if height * before[0] >= width * before[1]:
                width = whole(height * before[0] / before[1])
            else:
                height = whole(width * before[1] / before[0])
        return width, height

    def cut(self, width: int, height: int, draws: Draws) -> Cut | None:
        """Return the whole of an image of this size; None where it stays as it is, or is a strip."""
        goal = self.goal((width, height))
        if goal == (width, height) or max(goal) > LONGEST * min(goal):
            return None
        return Cut((0, 0, width, height), goal, _choose(self.resample, draws))

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        goal = self.goal(image.size)
        if image.size == goal:
            return image
        resample = _choose(self.resample, draws)
        if self.short and max(image_sides(self.size)) <= LONGEST * min(image_sides(self.size)):
            return resized(image, goal, resample)
        return resize(image, goal, resample)


class CenterCrop:
    """The pixels in the middle, as many as the size has."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = plain_size(size)

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        return F.center_crop(image, image_sides(self.size))


class RandomResizedCrop:
    """A box of random area and shape, resized to the size (timm's draws, in its order).

    Args:
        size: of the result.
        scale: range of the box's share of the area.
        ratio: range of its width / height, drawn evenly in the logarithm.
        interpolation: a key of INTERPOLATIONS.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bicubic",
    ) -> None:
        self.size, self.scale, self.ratio = plain_size(size), tuple(scale), tuple(ratio)
        self.resample = INTERPOLATIONS[interpolation]

    def box(self, width: int, height: int, draws: Draws) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the box."""
        logs = (math.log(self.ratio[0]), math.log(self.ratio[1]))
        for _ in range(10):
            area = draws.py.uniform(*self.scale) * width * height
            aspect = math.exp(draws.py.uniform(*logs))
            w = round(math.sqrt(area * aspect))
            h = round(math.sqrt(area / aspect))
            if w <= width and h <= height:
                top = draws.py.randint(0, height - h)
                return top, draws.py.randint(0, width - w), h, w
        w, h = width, height  # none fitted: the largest centred box of an allowed shape
        if width / height < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, width: int, height: int, draws: Draws) -> Cut:
        """Return the cut of an image of this size."""
        top, left, h, w = self.box(width, height, draws)
        size = image_sides(self.size)
        return Cut((left, top, left + w, top + h), (size[1], size[0]), _choose(self.resample, draws))

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        return self.cut(image.width, image.height, draws).of(image)


class RandomShift:
    """`padding` black pixels around, then a random box of the former size."""

    def __init__(self, padding: int = 4) -> None:
        self.padding = padding

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        left = draws.py.randint(0, 2 * self.padding) - self.padding
        top = draws.py.randint(0, 2 * self.padding) - self.padding
        return image.crop((left, top, left + image.width, top + image.height))


class RandomFlip:
    """Left to right, with probability p."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        return image.transpose(Image.FLIP_LEFT_RIGHT) if draws.py.random() < self.p else image


class RandomRotation:
    """By up to `degrees` to either side, nearest pixel, black outside."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        return image.rotate(draws.py.uniform(-self.degrees, self.degrees), Image.NEAREST)


class ColorJitter:
    """Brightness, contrast and saturation, each by a factor in 1 +- strength, in random order."""

    ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)

    def __init__(self, strength: float) -> None:
        self.low, self.high = max(0.0, 1 - strength), 1 + strength

    def __call__(self, image: Image.Image, draws: Draws) -> Image.Image:
        for i in draws.np.permutation(len(self.ADJUST)):
            image = self.ADJUST[i](image, draws.py.uniform(self.low, self.high))
        return image


def planes(image: Image.Image) -> np.ndarray:
    """Return the values of an image as [C, H, W] uint8, each channel in one piece."""
    bands = [band.tobytes() for band in image.split()]
    return np.frombuffer(bytearray().join(bands), np.uint8).reshape(len(bands), image.height, image.width)


class ToArray:
    """A PIL image -> [C, H, W] float32: 0..1, less the mean, over the deviation, per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.normalize = Normalize(mean, std)

    def __call__(self, image: Image.Image, draws: Draws) -> np.ndarray:
        return self.normalize.one(planes(image))


class RandomErasing:
    """Fills boxes of an array [C, H, W] with noise (Zhong et al., 2017; timm's draws of the box).

    Args:
        p: probability that an image is touched.
        mode: `pixel` (normal noise for each value), `rand` (one normal colour), `const` (zeros).
        count: at most this many boxes, each a share of the area.
    """

    AREA = (0.02, 1 / 3)
    LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))

    def __init__(self, p: float, mode: str = "pixel", count: int = 1) -> None:
        if mode not in ("pixel", "rand", "const"):
            raise UserError(f"random erasing mode {mode!r}; it is one of pixel, rand, const")
        self.p, self.mode, self.count = p, mode, count

    def boxes(self, height: int, width: int, draws: Draws) -> list[tuple[int, int, int, int]]:
        """Return [(top, left, height, width), ...] for one image; empty when it is left alone."""
        if draws.py.random() > self.p:
            return []
        found = []
        count = 1 if self.count == 1 else draws.py.randint(1, self.count)
        for _ in range(count):
            for _ in range(10):
                area = draws.py.uniform(*self.AREA) * height * width / count
                aspect = math.exp(draws.py.uniform(*self.LOG_ASPECT))
                h = round(math.sqrt(area * aspect))
                w = round(math.sqrt(area / aspect))
                if w < width and h < height:
                    top = draws.py.randint(0, height - h)
                    found.append((top, draws.py.randint(0, width - w), h, w))
                    break
        return found

    def fillings(self, shape: Sequence[int], draws: Draws) -> list[tuple[tuple[slice, ...], np.ndarray]]:
        """Return [(box, [C, h, w] or [C, 1, 1] of what is put there), ...] for one image [C, H, W]."""
        found: list[tuple[tuple[slice, ...], np.ndarray]] = []
        for top, left, h, w in self.boxes(shape[1], shape[2], draws):
            size = (shape[0], h, w) if self.mode == "pixel" else (shape[0], 1, 1)
            noise = draws.np.standard_normal(size) if self.mode != "const" else np.zeros(size)
            found.append(((slice(None), slice(top, top + h), slice(left, left + w)), noise))
        return found

    def __call__(self, pixels: np.ndarray, draws: Draws) -> np.ndarray:
        for box, noise in self.fillings(pixels.shape, draws):
            pixels[box] = noise
        return pixels

    def filling(self, shape: Sequence[int], draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Return (places [n] in an image's C * H * W numbers, each once; what a call puts there [n] float32)."""
        fillings = self.fillings(shape, draws)
        if not fillings:
            return NOTHING
        numbers = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
        places = [numbers[box] for box, _ in fillings]
        values = [np.broadcast_to(np.float32(noise), at.shape) for (_, noise), at in zip(fillings, places)]
        at, put = (np.concatenate([part.ravel() for part in parts]) for parts in (places, values))
        if len(fillings) > 1:  # where boxes overlap the last one stands
            at, last = np.unique(at[::-1], return_index=True)
            put = put[::-1][last]
        return at, put


def train_transform(
    img_size: int | Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    rotation: float = 0.0,
    color_jitter: float = 0.4,
    auto_augment: str = "rand-m9-mstd0.5-inc1",
    reprob: float = 0.25,
    remode: str = "pixel",
    recount: int = 1,
) -> Compose:
    """Return the training recipe: PIL image, Draws -> [C, H, W] float32, of the size, C the length of `mean`.

    Inputs of 32 pixels or less on both sides are shifted by up to 4 pixels in place of the resized crop; colour
    jitter is for runs without `auto_augment`, as in timm's `create_transform`.

    Raises:
        UserError: for an `auto_augment` policy that cannot be read, an erasing mode, or channels that pictures have
            not got.
    """
    if max(image_sides(img_size)) <= SMALL:
        steps: list[Callable] = [Resize(img_size, interpolation), RandomShift(4)]
    else:
        steps = [RandomResizedCrop(img_size, scale, ratio, interpolation)]
    if hflip:
        steps.append(RandomFlip(hflip))
    if rotation:
        steps.append(RandomRotation(rotation))
    if auto_augment not in ("", "none"):
        fill = tuple(min(255, round(255 * value)) for value in mean)
        resample = INTERPOLATIONS[interpolation]
        steps.append(rand_augment(auto_augment, fill, resample))
    elif color_jitter:
        steps.append(ColorJitter(color_jitter))
    steps.append(ToArray(mean, std))
    if reprob:
        steps.append(RandomErasing(reprob, remode, recount))
    return Compose(steps, len(mean))


def eval_transform(
    img_size: int | Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop: bool = True,
    resize: str = "square",
    crop_ratio: float = 0.875,
) -> Compose:
    """Return the evaluation recipe: PIL image -> [C, H, W] float32, of the size.

    Args:
        img_size: of the result.
        mean, std: of the C channels (1: grey, 3: RGB, 4: RGB and alpha), of values from 0 to 1.
        interpolation: "bicubic" or "bilinear"; "random", of training, is bicubic here.
        crop: to int(side / crop_ratio) on both sides, then the pixels in the centre; without it, or where no side
            is above 32 pixels, straight to the size.
        resize: before the crop, "square": to those sides, whatever the shape; "short": to the least that covers
            them, aspect kept, which is the short side of a square.
        crop_ratio: the part of a side that the crop keeps.

    Raises:
        UserError: `resize` is neither, or pictures have no such number of channels.
    """
    if resize not in RESIZES:
        raise unknown("resize", resize, RESIZES)
    if interpolation == "random":
        interpolation = "bicubic"
    if crop and max(image_sides(img_size)) > SMALL:
        before = [int(side / crop_ratio) for side in image_sides(img_size)]
        resized = Resize(before, interpolation, short=resize == "short")
        steps: list[Callable] = [resized, CenterCrop(img_size)]
    else:
        steps = [Resize(img_size, interpolation)]
    return Compose([*steps, ToArray(mean, std)], len(mean))


def _choose(resample: Any, draws: Draws) -> Any:
    return draws.py.choice(resample) if isinstance(resample, tuple) else resample
