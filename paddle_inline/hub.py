"""Models in folders and repositories of the Hugging Face hub's layout, which timm and torch_ref read, too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .models.classifier import Classifier
from .models.factory import check_described, create_model, model_spec, overrides_of
from .utils.errors import UserError, WrongTypeError, counted
from .utils.hub import located, save_model
from .utils.hub_config import WEIGHTS, check_weights, read_config
from .weights.description import DESCRIPTION, check_transform, describe
from .weights.lazy_array import LazyArray, WeightsFileError, nonfinite
from .weights.load import described
from .weights.resize import load_opened
from .weights.safetensors import open_safetensors, write_safetensors

if TYPE_CHECKING:
    import paddle


def save_pretrained(
    model: paddle.nn.Layer,
    target: str | os.PathLike[str],
    *,
    transform: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    license: str | None = None,
) -> str:
    """Save a model as `config.json`, `model.safetensors` and a model card, which `from_pretrained` of both packages
    reads, and `timm.create_model("local-dir:FOLDER")` after `torch_ref.timm_registry.register_with_timm()`.

    A new folder appears whole or not at all. In one that is there, the card and all other files stay as they are.

    Args:
        model: of `create_model`.
        target: a folder, or `hf-hub:OWNER/NAME`, a repository to upload to.
        transform: how images of evaluation are made, arguments of `data.transforms.eval_transform`; None: what came
            with the model's weights.
        classes: names of the outputs; None: those that came with the weights.
        license: of the weights, an identifier of the hub, for the card.

    Returns:
        The folder, or the repository's address.

    Raises:
        WrongTypeError: it is not a model of `create_model`.
        UserError: it has values that no model has; the folder cannot be written; no upload.
        MissingPackageError: an upload without huggingface_hub.
    """
    from .weights.torch_layout import torch_side

    if not isinstance(model, Classifier) or not hasattr(model, "name"):
        raise WrongTypeError(f"save_pretrained takes a model of create_model, not a {type(model).__name__}")
    known = getattr(model, "description", None) or {}
    description = describe(
        model.name,
        overrides_of(model),
        transform or known.get("transform"),
        known.get("classes") if classes is None else classes,
    )
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, value in state.items():
        if (value.dtype.kind == "f" or value.dtype == np.uint16) and nonfinite(value):
            raise UserError(
                f"{name} is NaN or infinite in {counted(nonfinite(value), 'value')}: the training diverged"
            )
    arrays = torch_side(
        {name: _held(value) for name, value in state.items()}, model, known.get("num_batches_tracked") or {}
    )
    metadata = {"format": "pt", DESCRIPTION: json.dumps(description)}

    def write(path: Path) -> None:
        write_safetensors(path, arrays, metadata)

    return save_model(target, model, write, description, license=license)


def _held(value: np.ndarray) -> LazyArray:
    return LazyArray(value.shape, "bfloat16" if value.dtype == np.uint16 else str(value.dtype), lambda: value)


def from_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, **overrides: Any
) -> paddle.nn.Layer:
    """Build the model of a folder or repository of the Hugging Face hub's layout, with its weights.

    Args:
        source: a folder with `config.json` and `model.safetensors`, by `save_pretrained` of either package, `python -m
            convert to-hub` or timm; or OWNER/NAME, a repository, which huggingface_hub downloads and keeps.
        revision: of a repository: branch, tag or commit.
        overrides: as for `create_model`. With another `img_size`, `in_chans` or `num_classes` the weights are made to
            fit, with a warning that says how.

    Returns:
        The model, in train mode. Its `description` has names of classes and how images are made, where they are known.

    Raises:
        MissingFileError: no such folder, or one without the two files.
        UserError: they do not belong together, are of no model here or of another; no download.
        MissingPackageError: a download without huggingface_hub.
    """
    from .weights.torch_layout import torch_only_names, torch_shapes, translated

    folder = located(source, revision)
    said = read_config(folder)
    file = folder / WEIGHTS
    arrays, metadata = open_safetensors(file)
    if metadata.get("format") == "pd":
        raise WeightsFileError(
            f"{file} has Paddle's layout; in a folder of the hub it is PyTorch's: save_pretrained"
        )
    stated = described(metadata.get(DESCRIPTION))
    own = (stated["model"], stated["overrides"]) if stated else None
    check_weights(folder, said, own, model_spec)
    counts = {name: array for name, array in arrays.items() if name.endswith(".num_batches_tracked")}
    shapes = {name: array.shape for name, array in arrays.items() if name not in counts}
    model = check_described(folder, said.model, said.overrides, shapes, torch_shapes)
    description = describe(said.model, said.overrides, None, said.classes)
    if said.transform is not None:
        description["transform"] = check_transform(said.transform)
    tracked = {
        name: int(array.read()) for name, array in counts.items() if name in set(torch_only_names(model))
    }
    if any(tracked.values()):
        description["num_batches_tracked"] = tracked
    arrays = translated(arrays, model, "torch", "paddle")
    model = create_model(said.model, **{**said.overrides, **overrides})
    load_opened(model, arrays, description, file)
    return model
