"""Writing weights: tensor by tensor, into a file that appears whole or not at all, a sidecar beside it."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from paddle_inline.utils.errors import FileAccessError, UserError
from paddle_inline.weights.lazy_array import (
    SAFETENSORS_DTYPES,
    WeightsFileError,
    check_file,
    numpy_dtype,
)
from paddle_inline.weights.load import DESCRIPTION

SUFFIXES = {"paddle": (".pdparams", ".safetensors"), "torch": (".pth", ".pt", ".bin", ".safetensors")}


def check_output(path, side):
    """`path` as a Path, if weights of this side can be written there; ValueError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"output {path} is a folder; name a file in it")
    if path.suffix not in SUFFIXES[side]:
        raise UserError(f"output {path} must end in one of {', '.join(SUFFIXES[side])}")
    if not path.parent.is_dir():
        raise UserError(f"output {path}: there is no folder {path.parent}")
    return path


@contextmanager
def atomic(path):
    """A path beside `path` to write to; it takes `path`'s place if the block ends well, and goes if not."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_weights(path, arrays, side, description=None):
    """Write {name: LazyArray} for one side in the format of the path's suffix, one tensor in memory at a
    time (torch's own format: all of them).

    Args:
        description: what to say of the model, {"model": name, "overrides": {...}, ...}; plain loaders of
            either framework do not see it.
    """
    path = Path(path)
    text = json.dumps(description) if description else None
    if path.suffix == ".safetensors":
        _write_safetensors(path, arrays, {"format": {"torch": "pt", "paddle": "pd"}[side]}, text)
    elif side == "paddle":
        _write_pdparams(path, arrays, text)
    else:
        _write_torch(path, arrays, text)


def _write_safetensors(path, arrays, metadata, description):
    entries, end = {"__metadata__": {**metadata, **({DESCRIPTION: description} if description else {})}}, 0
    names = {ours: theirs for theirs, ours in SAFETENSORS_DTYPES.items()}
    # widest numbers first, so that every tensor is aligned for readers that map the file
    arrays = dict(sorted(arrays.items(), key=lambda item: -numpy_dtype(item[1].dtype).itemsize))
    for name, array in arrays.items():
        entries[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for array in arrays.values():
            file.write(_little_endian(array.read()))


def _write_pdparams(path, arrays, description):
    """The pickle that `paddle.save` makes of a state dict, without the whole of it in memory, and with the
    names that numpy had before version 2, which every version knows."""
    with open(path, "xb") as file:
        file.write(b"\x80\x04}")
        for name, array in arrays.items():
            values = _little_endian(array.read())
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


def _text(text):
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number):
    return b"\x8a\x08" + struct.pack("<q", number)


def _little_endian(values):
    return np.asarray(values, values.dtype.newbyteorder("<"), order="C")


def _write_torch(path, arrays, description):
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


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sidecar_of(path):
    """Where the facts about a converted file stand."""
    return Path(f"{path}.json")


def write_sidecar(path, facts):
    """Put the facts about a converted file beside it."""
    with atomic(sidecar_of(path)) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def check_sidecar(path):
    """Hold a file against the SHA-256 in its sidecar, if it has one of ours; True if it was there.

    Raises WeightsFileError if they differ: the file was damaged or replaced.
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
