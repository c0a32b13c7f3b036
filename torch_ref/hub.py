"""Models in folders and repositories of the Hugging Face hub's layout, which timm and paddle_inline read, too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .models.classifier import Classifier
from .models.factory import check_described, create_model, model_spec, overrides_of
from .utils.errors import UserError, WrongTypeError
from .utils.hub import located, save_model
from .utils.hub_config import WEIGHTS, Described, check_weights, read_config
from .weights import DESCRIPTION, load_fitted, stated_model, tensor_shapes


def save_pretrained(
    model: torch.nn.Module,
    target: str | os.PathLike[str],
    *,
    transform: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    license: str | None = None,
) -> str:
    """Save a model as `config.json`, `model.safetensors` and a model card, which `from_pretrained` of both packages
    reads, and `timm.create_model("local-dir:FOLDER")` after `timm_registry.register_with_timm()`.

    A new folder appears whole or not at all. In one that is there, the card and all other files stay as they are.

    Args:
        model: of `create_model`.
        target: a folder, or `hf-hub:OWNER/NAME`, a repository to upload to.
        transform: how images of evaluation are made, all entries of `paddle_inline`'s transform; None: what came with
            `from_pretrained`.
        classes: names of the outputs; None: those that came with `from_pretrained`.
        license: of the weights, an identifier of the hub, for the card.

    Returns:
        The folder, or the repository's address.

    Raises:
        WrongTypeError: it is not a model of `create_model`.
        UserError: it has values that no model has; the folder cannot be written; no upload.
        MissingPackageError: an upload without huggingface_hub.
    """
    from safetensors.torch import save_file

    if not isinstance(model, Classifier) or not hasattr(model, "name"):
        raise WrongTypeError(f"save_pretrained takes a model of create_model, not a {type(model).__name__}")
    known = getattr(model, "description", None) or {}
    description = {"format": 1, "model": model.name, "overrides": overrides_of(model)}
    for key, value in (("transform", transform), ("classes", classes)):
        value = known.get(key) if value is None else value
        description.update({key: value} if value is not None else {})
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{name} has values that are NaN or infinite: the training diverged")
    metadata = {"format": "pt", DESCRIPTION: json.dumps(description)}

    def write(path: Path) -> None:
        save_file(state, path, metadata)

    return save_model(target, model, write, description, license=license)


def from_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, **overrides: Any
) -> torch.nn.Module:
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
    file, said = checked(source, revision)
    model = create_model(said.model, **{**said.overrides, **overrides})
    load_fitted(model, file, new_head=True, img_size=said.overrides.get("img_size"))
    own = {"format": 1, "model": said.model, "overrides": overrides_of(model)}
    fits = model.spec.num_classes == said.overrides.get("num_classes", model.spec.num_classes)
    if said.transform is not None and model.spec.in_chans == len(said.transform["mean"]):
        size = model.spec.img_size
        own["transform"] = {**said.transform, "img_size": size if isinstance(size, int) else list(size)}
    model.description = {**own, **({"classes": said.classes} if said.classes and fits else {})}
    return model


def checked(source: str | os.PathLike[str], revision: str | None = None) -> tuple[Path, Described]:
    """Return the weights' file of a folder or repository and what its config.json says, when they belong together.

    Arguments and errors as for `from_pretrained`.
    """
    folder = located(source, revision)
    said, file = read_config(folder), folder / WEIGHTS
    check_weights(folder, said, stated_model(file), model_spec)
    check_described(folder, said.model, said.overrides, tensor_shapes(file))
    return file, said
