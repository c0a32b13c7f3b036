"""Writing weights: tensor by tensor, into a file that appears whole or not at all, a sidecar beside it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from paddle_inline.utils.errors import FileAccessError, UserError
from paddle_inline.utils.paths import expand
from paddle_inline.weights.atomic import atomic_write, sha256
from paddle_inline.weights.lazy_array import LazyArray, WeightsFileError, check_file, little_endian
from paddle_inline.weights.load import DESCRIPTION
from paddle_inline.weights.safetensors import write_safetensors

SUFFIXES = {"paddle": (".pdparams", ".safetensors"), "torch": (".pth", ".pt", ".bin", ".safetensors")}


def check_output(path: str | Path, side: str) -> Path:
    """Check that weights can be written to a path, before anything is computed.

    Args:
        side: the framework whose weights they are, "paddle" or "torch".

    Raises:
        UserError: it is a folder, has another format's suffix, or a file is where its folder is to be.
    """
    path = Path(expand(path))
    if path.is_dir():
        raise UserError(f"output {path} is a folder; name a file in it")
    if path.suffix not in SUFFIXES[side]:
        raise UserError(f"output {path} must end in one of {', '.join(SUFFIXES[side])}")
    above = next((folder for folder in path.parents if folder.exists()), path.parent)
    if not above.is_dir():
        raise UserError(f"output {path}: {above} is a file, not a folder")
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file that the user named, whole or not at all, as `atomic_write` does; its folder is made.

    Yields:
        The path to write to; it takes `path`'s place if the block ends well.

    Raises:
        FileAccessError: it cannot be written; the message says why.
    """
    path = Path(expand(path))
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            yield temporary
    except UserError:  # of what is read inside the block
        raise
    except OSError as error:
        if error.errno is None:  # not the system's: a framework's own error keeps its traceback
            raise
        raise FileAccessError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if not path.exists():  # leave no folder that was made for nothing
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()


def write_weights(
    path: str | Path,
    arrays: Mapping[str, LazyArray],
    side: str,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors in the format of the path's suffix, one in memory at a time (torch's own format: all).

    Args:
        path: of a file that is not there yet.
        arrays: the tensors by name.
        side: the framework that will read them, "paddle" or "torch".
        description: of the model, {"model": name, "overrides": {...}, ...}; plain loaders of either
            framework do not see it.
    """
    path = Path(path)
    text = json.dumps(description) if description else None
    if path.suffix == ".safetensors":
        metadata = {"format": {"torch": "pt", "paddle": "pd"}[side], **({DESCRIPTION: text} if text else {})}
        write_safetensors(path, arrays, metadata)
    elif side == "paddle":
        _write_pdparams(path, arrays, text)
    else:
        _write_torch(path, arrays, text)


def _write_pdparams(path: Path, arrays: Mapping[str, LazyArray], description: str | None) -> None:
    """Write the pickle that `paddle.save` makes of a state dict, without the whole of it in memory.

    It is written by hand, as `pickle.Pickler` names numpy's `_reconstruct` by the module that has it: from
    numpy 2 on `numpy._core`, which numpy before 1.26 cannot import. `numpy.core` is known to every version.
    """
    with open(path, "xb") as file:
        file.write(b"\x80\x04}")
        for name, array in arrays.items():
            values = little_endian(array.read())
            file.write(
                _text(name) + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
            )
            file.write(b"(K\x01(" + b"".join(map(_integer, array.shape)) + b"t")
            file.write(b"cnumpy\ndtype\n" + _text(values.dtype.str[1:]) + b"\x89\x88\x87R")
            order = _text("|" if values.dtype.itemsize == 1 else "<")
            file.write(b"(K\x03" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb")
            file.write(b"\x89\x8e" + struct.pack("<Q", values.nbytes))
            file.write(values)
            file.write(b"tbs")
        file.write(b".")
        if description:
            file.write(b"\n" + json.dumps({DESCRIPTION: json.loads(description)}).encode() + b"\n")


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def _write_torch(path: Path, arrays: Mapping[str, LazyArray], description: str | None) -> None:
    import torch

    state = torch.nn.Module().state_dict()  # an OrderedDict, whose attributes torch.save keeps
    for name, array in arrays.items():
        values = np.array(array.read())
        tensor = torch.from_numpy(values.view("int16") if array.dtype == "bfloat16" else values)
        state[name] = tensor.view(torch.bfloat16) if array.dtype == "bfloat16" else tensor
    if description:
        setattr(state, DESCRIPTION, description)
    with open(path, "xb") as file:
        torch.save(state, file)


def sidecar_of(path: str | Path) -> Path:
    """Return the path where the facts about a converted file stand."""
    return Path(f"{path}.json")


def write_sidecar(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Write the facts about a converted file beside it."""
    with atomic(sidecar_of(path)) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def check_sidecar(path: str | Path) -> bool:
    """Compare a file's SHA-256 with that in its sidecar; False if it has none that `write_sidecar` wrote.

    Raises:
        WeightsFileError: they differ: the file was damaged or replaced.
    """
    sidecar = sidecar_of(path)
    try:
        wanted = json.loads(check_file(sidecar).read_bytes()[: 1 << 20])["output"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if sha256(path) != wanted:
        raise WeightsFileError(
            f"{path} is not the file that {sidecar.name} describes: its SHA-256 is another. It was damaged "
            "or replaced; remove the .json if the new file is meant"
        )
    return True
