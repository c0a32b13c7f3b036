"""Files and folders that are no weights of ours, named by what they are, with the next step.

What a file is follows from its first bytes, and from its suffix where a format has no mark of its own. Nothing is
imported or run for it.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ..utils.errors import shortened

TORCH = "a PyTorch checkpoint"
PADDLE = "a pickle of Paddle or of Python"
SAFETENSORS = "safetensors"
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the first pickle of torch.save before 1.6
_UNPACK = "unpack it first"
_SAVE_STATE = "in the program that wrote it, save its state_dict() with torch.save, and convert that"
_EXPORTED = "it holds a program, not a checkpoint: give the .pdparams that it was exported from"
_TO_TORCH = "load it in its own framework and save the tensors, named as the PyTorch model's, with torch.save"

# (first bytes, what it is, the next step)
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or TensorFlow weights)", _TO_TORCH),
    (b"\x93NUMPY", "a numpy array (.npy)", "one array names no tensors; save a state dict"),
    (b"GGUF", "a GGUF file (llama.cpp)", _TO_TORCH),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"\xff\xd8\xff", "a JPEG picture", "give a file of weights"),
    (b"\x89PNG", "a PNG picture", "give a file of weights"),
    (b"%PDF", "a PDF", "give a file of weights"),
)
_SUFFIXES = {
    ".onnx": ("an ONNX model", "it is an export; convert the checkpoint that it was exported from"),
    ".pdiparams": ("the weights of a Paddle Inference export (.pdiparams)", _EXPORTED),
    ".pdmodel": ("the program of a Paddle Inference export (.pdmodel)", _EXPORTED),
    ".pdopt": ("an optimizer's state of Paddle (.pdopt)", "give the .pdparams beside it"),
    ".pb": ("a TensorFlow graph (.pb)", _TO_TORCH),
    ".tflite": ("a TensorFlow Lite model", _TO_TORCH),
    ".h5": ("an HDF5 file (Keras or TensorFlow weights)", _TO_TORCH),
    ".msgpack": ("a msgpack file (Flax weights)", _TO_TORCH),
    ".mlmodel": ("a Core ML model", "it is an export; convert the checkpoint that it was exported from"),
    ".engine": ("a TensorRT engine", "it is an export; convert the checkpoint that it was exported from"),
    ".plan": ("a TensorRT engine", "it is an export; convert the checkpoint that it was exported from"),
    ".distcp": (
        "one rank's part of a distributed checkpoint of PyTorch (.distcp)",
        "join the folder first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pth",
    ),
    ".tar": ("a tar archive", _UNPACK),
    ".index": ("the index of a TensorFlow checkpoint", _TO_TORCH),
}


def kind_of(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return (what a file or folder is, what to do with it); ("", "") for what has no mark that is known.

    A file of weights that can be read is TORCH, SAFETENSORS or PADDLE, and nothing is to be done.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return "", ""
    if path.suffix == ".distcp":  # torch's files, one behind another
        return _SUFFIXES[path.suffix]
    if head[:4] == b"PK\3\4":
        return _zip(path)
    if head[2:14] == _LEGACY_MAGIC:
        return TORCH, ""
    if 8 < int.from_bytes(head[:8], "little") + 8 <= size and head[8:9] == b"{":
        return SAFETENSORS, ""
    for magic, what, step in _MAGIC:
        if head.startswith(magic):
            return what, step
    if head[257:262] == b"ustar":
        return _SUFFIXES[".tar"]
    if head[4:8] == b"TFL3":
        return _SUFFIXES[".tflite"]
    if path.suffix in _SUFFIXES and (head[:1] != b"\x80" or path.suffix == ".pdopt"):
        return _SUFFIXES[path.suffix]
    if ".data-0" in path.suffix:
        return "a part of a TensorFlow checkpoint", _TO_TORCH
    if head[:1] == b"\x80":
        return PADDLE, ""
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x3a", b"\x1a"):
        return _SUFFIXES[".onnx"]
    if head[:16] == b"\0" * 16:
        return _SUFFIXES[".pdiparams"]
    return _text(head)


def _text(head: bytes) -> tuple[str, str]:
    start = head.removeprefix(b"\xef\xbb\xbf") if hasattr(head, "removeprefix") else head
    start = start.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file that was to be downloaded", "download it again, with a browser"
    if start.startswith(b"<?xml"):
        return "an XML file", "if it is OpenVINO's, convert the checkpoint that it was exported from"
    if start.startswith((b"{", b"[")):
        if b'"program"' in head and b'"base_code"' in head:
            return "the program of a Paddle Inference export (.json)", _EXPORTED
        return "a JSON file", "it holds no tensors; give the file of weights that it belongs to"
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return "", ""
    if b"\0" in head or not head.strip():
        return "", ""
    return "a text file", "it holds no tensors; give a file of weights"


def _zip(path: Path) -> tuple[str, str]:
    names = _members(path)
    ends = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in ends:
        step = "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), and convert that"
        return "a TorchScript program, not a checkpoint", f"save the state_dict(): {step}"
    if not names or "data.pkl" in ends:
        return TORCH, ""  # if it is damaged, its reader says so better
    if all(name.endswith(".npy") for name in names):
        step = "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, 'weights.pth')"
        return "numpy arrays (.npz)", f"save them as a state dict, {step}, and convert that"
    if any(name.endswith(".weights.h5") for name in names):
        return "a Keras model (.keras)", _TO_TORCH
    if any(name.endswith("serialized_exported_program.json") or "/models/" in name for name in names):
        return "a program of torch.export (.pt2)", _SAVE_STATE
    return "a zip file, but not one that torch.save wrote (no data.pkl)", _UNPACK


def _members(path: Path) -> list[str]:
    """Return the names in the end of a zip file's directory, of a bounded part of the file."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 20)))
        tail = file.read()
    names: list[str] = []
    for part, mark, name in ((head, b"PK\3\4", 30), (tail, b"PK\1\2", 46)):
        at = part.find(mark)
        while 0 <= at <= len(part) - name and len(names) < 100_000:
            size = int.from_bytes(part[at + name - (4 if name == 30 else 18) :][:2], "little")
            names.append(part[at + name : at + name + size].decode("utf-8", "replace"))
            at = part.find(mark, at + 4)
    return names


def _folder(path: Path) -> tuple[str, str]:
    names = {entry.name for entry in list(path.iterdir())[:10_000]}
    text = shlex.quote(str(path))
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {text} OUT.pth"
        return "a distributed checkpoint of PyTorch (.distcp)", f"join it first: {command}"
    if "zero_to_fp32.py" in names or any(name.startswith("global_step") for name in names):
        command = f"python {shlex.quote(str(path / 'zero_to_fp32.py'))} {text} OUT.pth"
        return "a checkpoint of DeepSpeed", f"gather it first: {command}"
    if any("zero_pp_rank" in name or name.endswith("model_states.pt") for name in names):
        return "a part of a checkpoint of DeepSpeed", "gather it with the zero_to_fp32.py in the folder above"
    if "saved_model.pb" in names:
        return "a SavedModel of TensorFlow", _TO_TORCH
    if "data.pkl" in names:
        return "an unpacked PyTorch checkpoint", "zip the folder again, without compression (zip -0 -r)"
    if "inference.pdiparams" in names or any(name.endswith(".pdiparams") for name in names):
        return "an export for Paddle Inference", _EXPORTED
    files = sorted(name for name in names if name.endswith((".pth", ".pt", ".bin", ".safetensors", ".ckpt")))
    if files:
        return "a folder of checkpoints", f"name one: {', '.join(shortened(files))}"
    return "", ""


def advice(path: str | os.PathLike[str]) -> str:
    """Return one line for a reader of Paddle's files that was given another: what it is, and the command or the step
    that leads on; "" for what has no mark that is known."""
    what, step = kind_of(path)
    if what == TORCH:
        return f"{path} is {TORCH}; convert it first: {converter(path)}"
    return f"{path} is {what}: {step}" if step else ""


def converter(path: str | os.PathLike[str]) -> str:
    """Return the command that makes Paddle's weights of a file of PyTorch's."""
    path = Path(path)
    out = path.with_name(path.name.split(".index.json")[0]).with_suffix(".pdparams")
    return f"python -m convert to-paddle {shlex.quote(str(path))} {shlex.quote(str(out))}"
