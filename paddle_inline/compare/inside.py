"""What a trained network's attention is like: confusion, locality, what masking costs, maps of one picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from PIL import Image

from ..ops.tokens import Size
from ..training import build
from ..training.evaluate import evaluate
from .masking import masked
from .plan import Form, Plan
from .rows import (
    NoRows,
    Record,
    as_many_elsewhere,
    attention_map,
    confused_share,
    local_share,
    neighbourhood,
    recorded,
    row_facts,
)
from .trial import generators_put_back, trained_model, trial_folder, write_json

INSIDE = "inside.json"
IMAGES = 16  # of which the rows are looked at; a row of N weights for each token, head and layer


def inspect(plan: Plan, form: Form, seed: int, output: Path) -> dict[str, Any]:
    """Measure the attention of one trained network on held-out images, and write what was found.

    Args:
        plan: the comparison; form and seed: which network.
        output: the comparison's folder.

    Returns:
        {"form", "seed", and either "reason": why there are no rows, or
        "confused": share of pairs by layer, "local": share of weight by layer, "even": what an even spread would give,
        "rows": `row_facts` over all layers, "maps": the last layer's, [H][W] of the middle patch and of all patches,
        and "masked": {"local", "random": percent right} or "masked_reason"}.
    """
    with generators_put_back():
        config = plan.config(form, seed, output / "trials" / form.folder)
        build.check_images(config)
        _, loader, _ = build.build_eval(config, 0, 1)
        model = trained_model(plan, form, seed, output)
        images = next(iter(loader))[0][:IMAGES]
        found: dict[str, Any] = {"form": form.name, "seed": seed}
        try:
            found.update(of_records(recorded(model, images)))
        except NoRows as error:
            found["reason"] = str(error)
        else:
            found.update(masking(model, loader))
    write_json(trial_folder(plan, form, seed, output) / INSIDE, found)
    return found


def of_records(records: list[Record]) -> dict[str, Any]:
    """Return what `inspect` says of recorded layers."""
    last = records[-1]
    facts = [row_facts(record) for record in records]
    height, width = last.size
    prefix = last.weights.shape[2] - height * width
    middle = prefix + (height // 2) * width + width // 2
    near = neighbourhood(last.size, prefix)
    return {
        "confused": [confused_share(record) for record in records],
        "local": [local_share(record) for record in records],
        "even": near.sum(axis=1).max().item() / (height * width),
        "rows": {
            "negative": max(fact["negative"] for fact in facts),
            "low": min(fact["low"] for fact in facts),
            "high": max(fact["high"] for fact in facts),
        },
        "maps": {
            "middle": attention_map(last, 0, middle).tolist(),
            "all": np.mean(
                [attention_map(last, 0, i) for i in range(prefix, prefix + height * width)], 0
            ).tolist(),
        },
    }


def masking(model: paddle.nn.Layer, loader: Any) -> dict[str, Any]:
    """Return the accuracy without the 3x3 neighbours of every patch, and without as many random patches."""
    draws = np.random.RandomState(0)
    kept: dict[tuple[Size, int], np.ndarray] = {}

    def elsewhere(size: Size, prefix: int) -> np.ndarray:
        if (size, prefix) not in kept:
            kept[size, prefix] = as_many_elsewhere(neighbourhood(size, prefix), prefix, draws)
        return kept[size, prefix]

    found = {}
    try:
        for name, choose in (("local", neighbourhood), ("random", elsewhere)):
            with masked(model, choose):
                found[name] = evaluate(model, loader).top1
    except NoRows as error:
        return {"masked_reason": str(error)}
    return {"masked": found}


def picture(plan: Plan, output: Path) -> str:
    """Return the held-out picture whose maps are shown, as a URL that holds it."""
    config = plan.config(plan.forms[0], 0, output)
    build.check_images(config)
    source, _, _ = build.build_eval(config, 0, 1)
    image = source[0][0].convert("RGB")
    image.thumbnail((192, 192))
    file = io.BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def map_url(weights: np.ndarray) -> str:
    """Return a map [H, W] as a URL that holds a picture.

    White to blue from the least weight to the largest; where there are weights below 0, white is 0 and red below it.
    """
    weights = np.asarray(weights, float)
    signed = weights.min() < 0
    weights = weights if signed else weights - weights.min()
    share = (np.abs(weights) / (np.abs(weights).max() or 1.0))[..., None]
    full = np.where(weights[..., None] >= 0, np.array([8, 64, 129]), np.array([165, 20, 30]))
    pixels = np.round(250 + (full - 250) * share).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
