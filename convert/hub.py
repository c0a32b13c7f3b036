"""A checkpoint of either framework as a folder or repository in the layout of the Hugging Face hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from paddle_inline.utils.errors import UserError
from paddle_inline.utils.hub import HUB, save_model, saved_in
from paddle_inline.utils.hub_config import WEIGHTS
from paddle_inline.weights.load import DESCRIPTION, described
from paddle_inline.weights.safetensors import open_safetensors

from .checkpoint import ConversionOptions
from .conversion import convert


def convert_to_hub(
    path: str | Path,
    target: str,
    options: ConversionOptions | None = None,
    license: str | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> str:
    """Convert a checkpoint as `convert` does, to PyTorch, and write what `from_pretrained` reads.

    Args:
        path: any file that `open_source` opens, of either framework.
        target: a folder, or `hf-hub:OWNER/NAME`, a repository to upload to.
        options: what is asked for beyond that.
        license: of the weights, an identifier of the hub; None: not said.
        log: called with a line for everything that was chosen or changed.

    Returns:
        The folder, or the repository's address.

    Raises:
        UserError: what `convert` and `save_model` raise; it is a backbone.
    """
    if not target.startswith(HUB) and saved_in(target).is_file():
        raise UserError(f"output {target} is a file; name a folder")
    with tempfile.TemporaryDirectory() as above:
        file = Path(above) / WEIGHTS
        outcome = convert(path, file, "torch", options, log)
        description = described(open_safetensors(file)[1].get(DESCRIPTION))
        if outcome.identity.maps is not None or description is None:
            raise UserError(
                f"{path} is of a backbone: folders of the hub are of classifiers; keep it as a file (to-torch)"
            )
        how = outcome.verification.get("text", "not verified: converted with --no-verify")
        notes = [
            f"Converted from `{Path(path).name}`; {how}.",
            *(f"Changed: {note}." for note in outcome.notes),
        ]

        def write(place: Path) -> None:
            shutil.copyfile(file, place)

        return save_model(target, outcome.identity.model, write, description, license=license, notes=notes)
