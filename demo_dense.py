"""make demo-dense: a Mask R-CNN and a Semantic FPN learn coloured shapes, draw what they see, and are exported.

Everything goes to output/demo-dense. Exit code 1: too little was learned, or an export answers otherwise.
All is drawn from one seed. H x W: the pictures' size. The file is long because it is the whole demonstration, from
the first picture to the page, to be read from top to bottom.
"""

from __future__ import annotations

import base64
import colorsys
import html
import importlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from paddle_inline.detection.drawing import colour, draw
from paddle_inline.utils.environment import import_paddle, tune_cpu
from paddle_inline.utils.streams import forgiving_streams

FOLDER = Path("output/demo-dense")
COCO, ADE20K = FOLDER / "data/coco", FOLDER / "data/ade20k"
DETECTOR, SEGMENTER = FOLDER / "mask_rcnn_shapes", FOLDER / "semantic_fpn_shapes"  # where the runs write
PAGE, SHEET = FOLDER / "index.html", FOLDER / "answers.png"
SEED, PICTURES = 0, {"train": 480, "val": 48}
NAMES, HUES = ("circle", "square", "triangle", "star"), (0.0, 0.35, 0.6, 0.15)
HEIGHT, WIDTH = 96, 128
SHOWN = 8  # pictures of the page, the first of those that nothing was trained on
LEAST = {"box AP": 60.0, "mask AP": 60.0, "mIoU": 80.0}  # percent
# An export computes in another order than the model that it was made of: float32's rounding, no more.
MOST = {"pixels of a box": 0.01, "score": 1e-3, "share of a mask": 0.01, "share of the classes": 1e-4}

CONFIGS = {"detection": DETECTOR.name, "segmentation": SEGMENTER.name}
VALIDATION = {"detection": COCO / "val2017", "segmentation": ADE20K / "images/validation"}


def outline(name: str, centre: tuple[float, float], radius: float, angle: float) -> np.ndarray:
    """Return a shape's corners [N, 2], x and y, in the circle of a radius, turned by an angle, to 0.01 pixels."""
    number, inner = {"circle": (32, 1.0), "square": (4, 1.0), "triangle": (3, 1.0), "star": (10, 0.45)}[name]
    turns = angle + 2 * np.pi * np.arange(number) / number
    radii = radius * np.where(np.arange(number) % 2, inner, 1.0)
    return (np.array(centre) + np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)).round(2)


def near_hue(kind: int, draws: np.random.Generator) -> tuple[float, float, float]:
    """Draw a colour (hue, saturation, value) of a class: its hue more or less, pale or strong."""
    hue = (HUES[kind] + draws.uniform(-0.06, 0.06)) % 1
    return hue, draws.uniform(0.55, 1.0), draws.uniform(0.65, 1.0)


def scene(draws: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw a picture of two to four shapes that do not touch, each kind of a hue of its own, more or less.

    Returns:
        Pixels [H, W, 3] uint8, and (class, corners [N, 2]) of each shape.
    """
    shapes: list[tuple[int, np.ndarray]] = []
    circles: list[tuple[float, float, float]] = []
    wanted = draws.integers(2, 5)
    for _ in range(50):  # tries
        radius = draws.uniform(11, 24)
        x, y = draws.uniform(radius + 1, WIDTH - radius - 2), draws.uniform(radius + 1, HEIGHT - radius - 2)
        if len(shapes) < wanted and all(
            np.hypot(x - u, y - v) > radius + other + 2 for u, v, other in circles
        ):
            circles.append((x, y, radius))
            kind = draws.integers(len(NAMES)).item()
            shapes.append((kind, outline(NAMES[kind], (x, y), radius, draws.uniform(0, 2 * np.pi))))
    # light from somewhere over a dim ground, bright shapes on it, drawn at four times the size
    ramp = np.linspace(0.4, 1.6, WIDTH)[:: draws.choice([-1, 1])] * np.ones((HEIGHT, 1))
    ground = np.uint8(np.clip(draws.uniform(30, 90, 3) * ramp[..., None], 0, 255))
    large = Image.fromarray(ground).resize((4 * WIDTH, 4 * HEIGHT), Image.BILINEAR)
    pen = ImageDraw.Draw(large)
    for kind, corners in shapes:
        bright = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(*near_hue(kind, draws)))
        pen.polygon([(4 * x + 2, 4 * y + 2) for x, y in corners.tolist()], fill=bright)
    pixels = np.asarray(large.resize((WIDTH, HEIGHT), Image.BOX), np.float64)
    return np.uint8(np.clip(pixels + draws.normal(0, 6, pixels.shape), 0, 255).round()), shapes


def mask_of(corners: np.ndarray) -> np.ndarray:
    """Return the pixels [H, W] bool of a shape."""
    plane = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(plane).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
    return np.asarray(plane)


def annotation(number: int, image: int, kind: int, corners: np.ndarray) -> dict[str, Any]:
    """Return a shape as COCO writes it: polygon, box (x, y, width, height), area."""
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    x, y = corners.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return {
        "id": number,
        "image_id": image,
        "category_id": kind + 1,
        "bbox": [round(value.item(), 2) for value in (left, top, right - left, bottom - top)],
        "area": round(area.item(), 2),
        "iscrowd": 0,
        "segmentation": [[round(value, 2) for value in corners.ravel().tolist()]],
    }


def write_data(pictures: Mapping[str, int], coco: Path, ade20k: Path, seed: int) -> int:
    """Write the same pictures in COCO's and in ADE20K's layout; returns the number of shapes.

    Args:
        pictures: {"train": number, "val": number}.
        coco: gets annotations/instances_{train,val}2017.json, train2017/ and val2017/.
        ade20k: gets images/ and annotations/{training,validation}; 0 is not labelled, 1 the ground, then the shapes.
        seed: of all draws.
    """
    total = 0
    for part, other, stream in (("train", "training", 0), ("val", "validation", 1)):
        draws = np.random.default_rng([seed, stream])
        folders = (coco / f"{part}2017", ade20k / f"images/{other}", ade20k / f"annotations/{other}")
        for folder in (*folders, coco / "annotations"):
            folder.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for image in range(1, pictures[part] + 1):
            pixels, shapes = scene(draws)
            labels, name = np.ones((HEIGHT, WIDTH), np.uint8), f"{image:012}"
            for kind, corners in shapes:
                labels[mask_of(corners)] = kind + 2
                annotations.append(annotation(len(annotations) + 1, image, kind, corners))
            for folder in folders[:2]:
                Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
            Image.fromarray(labels).save(folders[2] / f"{name}.png")
            images.append({"id": image, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT})
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        tree = {"images": images, "annotations": annotations, "categories": categories}
        path = coco / "annotations" / f"instances_{part}2017.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        total += len(annotations)
    return total


def main() -> int:
    """All steps; returns the exit code."""
    with forgiving_streams():
        return steps()


def steps() -> int:
    """Draw, learn, answer, export, compare, show; returns the exit code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    begun = time.perf_counter()
    total = write_data(PICTURES, COCO, ADE20K, SEED)
    told(begun, f"drew {PICTURES['train']} + {PICTURES['val']} pictures with {total} shapes", FOLDER / "data")
    for kind in CONFIGS:
        for command, options in COMMANDS[kind].items():
            if code := run(kind, command, options):
                return code
    found = scores(DETECTOR / "eval/metrics.json", SEGMENTER / "scores.json")
    told(None, ", ".join(f"{name} {value:.1f}" for name, value in found.items()), "of 100")
    begun = time.perf_counter()
    differences = {**compare_detector(), **compare_segmenter()}
    text = ", ".join(f"{value:.1e} {name}" for name, value in differences.items())
    told(begun, f"ran both exports, on {PICTURES['val']} pictures", f"largest differences: {text}")
    begun = time.perf_counter()
    rows = answers(SHOWN)
    sheet(rows[:4]).save(SHEET)
    PAGE.write_text(page(rows, found, differences), encoding="utf-8")
    told(begun, f"drew the answers for {len(rows)} pictures", SHEET)
    failures = verdict(found, differences)
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"Open {PAGE} in a browser: truth beside answers.", flush=True)
    return int(bool(failures))


COMMANDS = {
    "detection": {
        "train": "",
        "eval": "",
        "predict": f"--images {VALIDATION['detection']} --output {DETECTOR}/predict",
        "export": f"--size {HEIGHT} {WIDTH} --output {DETECTOR}/export",
    },
    "segmentation": {
        "train": "",
        "eval": f"--metrics {SEGMENTER}/scores.json",
        "predict": f"--images {VALIDATION['segmentation']}",
        "export": f"--size {HEIGHT} {WIDTH}",
    },
}


def told(begun: float | None, text: str, rest: object) -> None:
    """Print a step's line: its seconds, what was done, and where or how."""
    seconds = "" if begun is None else f"{time.perf_counter() - begun:.0f} s"
    print(f"{seconds:>6}  {text}: {rest}", flush=True)


def run(kind: str, command: str, options: str) -> int:
    """Run a launcher's command, what it says in a file of its own; returns its exit code."""
    words = (
        f"-m paddle_inline.{kind} {command} --cfg configs/demo_dense/{CONFIGS[kind]}.yml {options}".strip()
    )
    log, begun = FOLDER / f"{kind}_{command}.log", time.perf_counter()
    with log.open("wb") as file:
        code = subprocess.run(
            [sys.executable, *shlex.split(words)], stdout=file, stderr=subprocess.STDOUT
        ).returncode
    told(begun, f"python {words}", log)
    if code:
        print(log.read_text(encoding="utf-8", errors="replace")[-2000:], end="", flush=True)
        print(f"FAILED: exit code {code}")
    return code


def scores(detector: Path, segmenter: Path) -> dict[str, float]:
    """Return the percentages of LEAST out of what the launchers wrote."""
    detection = json.loads(detector.read_text(encoding="utf-8"))
    classes = json.loads(segmenter.read_text(encoding="utf-8"))
    values = (detection["bbox"]["AP"], detection["mask"]["AP"], classes["miou"])
    return {name: 100 * value for name, value in zip(LEAST, values)}


def verdict(found: Mapping[str, float], differences: Mapping[str, float]) -> list[str]:
    """Return a line for each figure that is not as it has to be."""
    low = [
        f"{name} {found[name]:.1f}; at least {least:g} was expected"
        for name, least in LEAST.items()
        if not found[name] >= least
    ]
    far = [
        f"the exports differ by {differences[name]:.1e} {name}; at most {most:g} was expected"
        for name, most in MOST.items()
        if not differences[name] <= most
    ]
    return low + far


def normalised(path: Path) -> np.ndarray:
    """Return a picture as both networks take it, [1, 3, H, W] float32."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return np.ascontiguousarray(((pixels - mean) / deviation).transpose(2, 0, 1)[None])


def predicted() -> list[dict[str, Any]]:
    """Return what the detector's `predict` found: rows of `file` and `objects`, in the order of the files."""
    return json.loads((DETECTOR / "predict/predictions.json").read_text(encoding="utf-8"))


def decoded(segmentation: Mapping[str, Any]) -> np.ndarray:
    """Return COCO's run lengths as pixels [H, W] bool."""
    return importlib.import_module("pycocotools.mask").decode(dict(segmentation)).astype(bool)


def compare_detector() -> dict[str, float]:
    """Return the largest differences between `predict` and the exported detector, over the objects of `predict`."""
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's own notes on how it runs a program
    tune_cpu()
    paddle: Any = import_paddle()
    card = json.loads((DETECTOR / "export/card.json").read_text(encoding="utf-8"))
    program = paddle.jit.load(str(DETECTOR / "export/model"))
    pairs = []
    for row in predicted():
        given = {
            "image": normalised(Path(row["file"])),
            "scale_factor": np.ones((1, 2), np.float32),
            "im_shape": np.float32([[HEIGHT, WIDTH]]),
        }
        boxes, _, masks = (
            each.numpy() for each in program(*(paddle.to_tensor(given[name]) for name in card["inputs"]))
        )
        for each in row["objects"]:
            pairs.append(nearest(each, decoded(each["segmentation"]), boxes, masks > 0))
    return dict(zip(MOST, np.max(pairs, 0).tolist()))


def nearest(
    each: Mapping[str, Any], pixels: np.ndarray, boxes: np.ndarray, masks: np.ndarray
) -> tuple[float, float, float]:
    """Return how far an object is from the nearest one of its class: in its box, score and mask; infinite: no such.

    Args:
        each: with `category_id`, `score`, `bbox` (x, y, width, height).
        pixels: its mask [H, W].
        boxes: [N, 6] of class, score, x1, y1, x2, y2.
        masks: [N, H, W].
    """
    same = np.flatnonzero(boxes[:, 0] == each["category_id"] - 1)
    if not len(same):
        return (np.inf, np.inf, np.inf)
    x, y, width, height = each["bbox"]
    corners = np.clip(boxes[same, 2:], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    away = np.abs(corners - [x, y, x + width, y + height]).max(1)
    best = same[away.argmin()]
    share = (masks[best] != pixels).sum() / max(pixels.sum(), 1)
    return (away.min().item(), abs(boxes[best, 1].item() - each["score"]), share.item())


def compare_segmenter() -> dict[str, float]:
    """Return the share of pixels for which the exported segmenter has another class than `predict`."""
    from paddle_inline.segmentation import load_exported

    program, different = load_exported(SEGMENTER / "export"), []
    for path in sorted(VALIDATION["segmentation"].iterdir()):
        different.append((program(normalised(path))[0] != labels_of(path)).mean())
    return {list(MOST)[-1]: np.mean(different).item()}


def labels_of(path: Path) -> np.ndarray:
    """Return the classes [H, W] that the segmenter's `predict` wrote for a picture, 0 the ground."""
    return np.asarray(Image.open(SEGMENTER / "predict/pseudo_color_prediction" / f"{path.stem}.png"))


def answers(number: int) -> list[list[Image.Image]]:
    """Return rows of five: a picture, its true objects, those found, its true classes, those found."""
    tree = json.loads((COCO / "annotations/instances_val2017.json").read_text(encoding="utf-8"))
    rows = []
    for image, row in zip(tree["images"][:number], predicted()):
        path = VALIDATION["segmentation"] / image["file_name"]
        picture = Image.open(path).convert("RGB")
        own = [each for each in tree["annotations"] if each["image_id"] == image["id"]]
        truth = [(each, mask_of(np.reshape(each["segmentation"][0], (-1, 2)))) for each in own]
        found = [(each, decoded(each["segmentation"])) for each in row["objects"]]
        labels = np.asarray(Image.open(ADE20K / "annotations/validation" / f"{path.stem}.png")) - 1
        rows.append(
            [
                enlarged(picture),
                objects(picture, truth),
                objects(picture, found),
                coloured(labels),
                coloured(labels_of(path)),
            ]
        )
    return rows


def enlarged(picture: Image.Image) -> Image.Image:
    """Return a picture at twice its size."""
    return picture.resize((2 * WIDTH, 2 * HEIGHT), Image.BICUBIC)


def objects(picture: Image.Image, found: Sequence[tuple[Mapping[str, Any], np.ndarray]]) -> Image.Image:
    """Draw objects, of COCO's annotations or of `predict`, with their masks [H, W], at twice the size."""
    rows = [
        {
            **each,
            "class": NAMES[each["category_id"] - 1],
            "index": each["category_id"] - 1,
            "bbox": [2 * side for side in each["bbox"]],
            "pixels": pixels.repeat(2, 0).repeat(2, 1),
        }
        for each, pixels in found
    ]
    return draw(enlarged(picture), rows)


def coloured(labels: np.ndarray) -> Image.Image:
    """Draw classes [H, W], 0 the ground, in the objects' colours, at twice the size; another class is white."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(NAMES) + 1] = [(40, 40, 40), *(colour(i) for i in range(len(NAMES)))]
    return Image.fromarray(colours[labels].repeat(2, 0).repeat(2, 1))


TITLES = ("picture", "true objects", "Mask R-CNN", "true classes", "Semantic FPN")


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return rows of pictures as one, their titles above them."""
    width, height, gap, top = 2 * WIDTH, 2 * HEIGHT, 6, 20
    size = (len(TITLES) * (width + gap) + gap, top + len(rows) * (height + gap))
    whole = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(whole)
    for column, title in enumerate(TITLES):
        left = gap + column * (width + gap)
        pen.text((left, 5), title, fill="black")
        for i, row in enumerate(rows):
            whole.paste(row[column], (left, top + i * (height + gap)))
    return whole


def page(
    rows: Sequence[Sequence[Image.Image]], found: Mapping[str, float], differences: Mapping[str, float]
) -> str:
    """Return the page as HTML that needs no other file."""

    def table(values: Mapping[str, float], limits: Mapping[str, float], words: str, form: str) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(name)}<td>{values[name]:{form}}<td>{limit:g}"
            for name, limit in limits.items()
        )
        return f"<table><tr><th><th>reached<th>{words}{cells}</table>"

    def image(picture: Image.Image) -> str:
        file = io.BytesIO()
        picture.save(file, "PNG")
        return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'

    heads = "".join(f"<th>{html.escape(title)}" for title in TITLES)
    body = "".join(f"<tr>{''.join(f'<td>{image(each)}' for each in row)}" for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>InLine: shapes found and segmented</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 2em; color: #222 }}
td, th {{ padding: 3px 8px 3px 0; text-align: left; font-weight: normal }}
th {{ color: #666 }}
img {{ display: block; max-width: 100% }}
</style>
<h1>Shapes, found and segmented</h1>
<p>InLine-PVT, small, with PaddleDetection's Mask R-CNN and a Semantic FPN in PaddleSeg, trained from scratch on
{PICTURES["train"]} drawn pictures of {HEIGHT} x {WIDTH} pixels. All on this page is of {PICTURES["val"]} others.</p>
{table(found, LEAST, "at least", ".1f")}
<h2>Exported programs against the models that they were made of</h2>
{table(differences, MOST, "at most", ".1e")}
<h2>Truth beside answers</h2>
<table><tr>{heads}{body}</table>
</html>
"""


if __name__ == "__main__":
    sys.exit(main())
