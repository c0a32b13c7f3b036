"""Files and folders that are no weights of ours, named by what they are, with the next step.

What a file is follows from its first bytes, and from its name where a format has no mark of its own. Nothing is
imported or run for it.

(Above 300 lines: half are the tables of formats, which are read with what uses them.)
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from ..utils.errors import shortened
from ..utils.paths import expand

TORCH = "a PyTorch checkpoint"
PADDLE = "a pickle of Paddle or of Python"
SAFETENSORS = "safetensors"
UNKNOWN = "neither a checkpoint of torch's, nor safetensors, nor a .pdparams of Paddle 2 or later"
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the first pickle of torch.save before 1.6
_UNPACK = "unpack it first"
_SAVE_STATE = "in the program that wrote it, save its state_dict() with torch.save, and convert that"
_EXPORTED = "it holds a program, not a checkpoint: give the .pdparams that it was exported from"
_TO_TORCH = "load it in its own framework and save the tensors, named as the PyTorch model's, with torch.save"
_EXPORT = "it is an export; convert the checkpoint that it was exported from"
_AGAIN = "download or copy it again, and compare its size with the original's"
_NO_TENSORS = "it holds no tensors; give a file of weights"

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
    (
        b"\x78\x9c",
        "a zlib stream (as joblib writes it)",
        "load it in Python and save its state dict with torch.save",
    ),
    (
        b"\x78\x01",
        "a zlib stream (as joblib writes it)",
        "load it in Python and save its state dict with torch.save",
    ),
    (b"\x04\x22\x4d\x18", "an lz4 archive", _UNPACK),
    (b"\x7fELF", "a program or library", "give a file of weights"),
    (b"MZ", "a program of Windows", "give a file of weights"),
    (b"SQLite format 3", "an SQLite database", "give a file of weights"),
    (b"PAR1", "a Parquet table", "give a file of weights"),
    (b"\xff\xd8\xff", "a JPEG picture", "give a file of weights"),
    (b"\x89PNG", "a PNG picture", "give a file of weights"),
    (b"%PDF", "a PDF", "give a file of weights"),
)
_SUFFIXES = {
    ".onnx": ("an ONNX model", _EXPORT),
    ".pdiparams": ("the weights of a Paddle Inference export (.pdiparams)", _EXPORTED),
    ".pdmodel": ("the program of a Paddle Inference export (.pdmodel)", _EXPORTED),
    ".pdopt": ("an optimizer's state of Paddle (.pdopt)", "give the .pdparams beside it"),
    ".pb": ("a TensorFlow graph (.pb)", _TO_TORCH),
    ".tflite": ("a TensorFlow Lite model", _TO_TORCH),
    ".h5": ("an HDF5 file (Keras or TensorFlow weights)", _TO_TORCH),
    ".msgpack": ("a msgpack file (Flax weights)", _TO_TORCH),
    ".mlmodel": ("a Core ML model", _EXPORT),
    ".engine": ("a TensorRT engine", _EXPORT),
    ".plan": ("a TensorRT engine", _EXPORT),
    ".distcp": (
        "one rank's part of a distributed checkpoint of PyTorch (.distcp)",
        "join the folder first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.pth",
    ),
    ".tar": ("a tar archive", _UNPACK),
    ".index": ("the index of a TensorFlow checkpoint", _TO_TORCH),
    ".meta": ("the graph of a TensorFlow checkpoint", _TO_TORCH),
    ".mnn": ("an MNN model", _EXPORT),
    ".param": ("the network of an ncnn export", _EXPORT),
    ".caffemodel": ("a Caffe model", _TO_TORCH),
    ".prototxt": ("the network of a Caffe model", _TO_TORCH),
    ".nb": ("a Paddle Lite model", _EXPORT),
    ".om": ("an Ascend model", _EXPORT),
    ".rknn": ("an RKNN model", _EXPORT),
    ".crdownload": ("a download that is not finished", "wait for it, or download it again"),
    ".part": ("a download that is not finished", "wait for it, or download it again"),
    ".aria2": ("a download that is not finished", "wait for it, or download it again"),
    ".partial": ("a download that is not finished", "wait for it, or download it again"),
}
# Files beside these, of the same name, say what a file without a mark of its own is.
_BESIDE = {".xml": "an OpenVINO export", ".param": "an ncnn export", ".onnx": "an ONNX model"}
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<all>\d{5})(?P<suffix>\.\w+)")
# What training keeps beside a checkpoint, in files of their own.
_STATE = re.compile(
    r"(optim|optimizer|scheduler|sched|scaler|rng_state|random_states?|sampler|dl_state|training_args|trainer_state|"
    r"custom_checkpoint)[\w.-]*|[\w.-]*_optim_states\.pt",
    re.IGNORECASE,
)
_CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".pkl")


def kind_of(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return (what a file or folder is, what to do with it); ("", "") for what has no mark that is known.

    A file of weights that can be read is TORCH, SAFETENSORS or PADDLE, and nothing is to be done.
    """
    path = Path(expand(path))
    if path.is_dir():
        return _folder(path)
    if not path.is_file():  # a pipe would be waited for
        return "", ""
    kind = _file(path)
    return kind if kind[0] not in (TORCH, SAFETENSORS) else _as_shard(path) or kind


def _file(path: Path) -> tuple[str, str]:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return "", ""
    named = _by_name(path)
    if named:
        return named
    if head[:4] == b"PK\3\4":
        return _zip(path)
    if head[2:14] == _LEGACY_MAGIC:
        return TORCH, ""
    if 8 < int.from_bytes(head[:8], "little") + 8 <= size and head[8:9] == b"{":
        return SAFETENSORS, ""
    if path.suffix == ".safetensors" and head[8:9] == b"{":
        return "a safetensors file that is cut short", _AGAIN
    if size and not head.strip(b"\0") and size >= len(head):
        return (
            f"nothing but zeros where it begins, as a download leaves it that stopped ({size:,} bytes)",
            _AGAIN,
        )
    for magic, what, step in _MAGIC:
        if head.startswith(magic):
            return what, step
    if head[257:262] == b"ustar":
        return _SUFFIXES[".tar"]
    if head[4:8] == b"TFL3":
        return _SUFFIXES[".tflite"]
    if head[:1] and head[0] in range(0x81, 0x90) and head[1:2] and head[1] in range(0xA1, 0xC0):
        return _SUFFIXES[".msgpack"]
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
    if re.match(rb"c[\w.]+\n[\w.]+\n|\([dl]p?\d*\n", head):
        return (
            "a pickle of protocol 0, which is text",
            "load it in Python and save it with protocol 2 or later",
        )
    return _text(head, path) or _by_its_neighbours(path)


def _by_name(path: Path) -> tuple[str, str] | None:
    """Return what a file's name says that its bytes do not; None: nothing."""
    if path.suffix == ".distcp" or (path.name == ".metadata" and any(path.parent.glob("*.distcp"))):
        return _SUFFIXES[".distcp"]
    if path.name.endswith("_optim_states.pt"):
        return (
            "a part of DeepSpeed's optimizer state",
            "gather the weights with the zero_to_fp32.py in the folder above: python zero_to_fp32.py FOLDER OUT.pth",
        )
    if path.suffix in (".crdownload", ".part", ".aria2", ".partial"):
        return _SUFFIXES[path.suffix]
    return None


def _as_shard(path: Path) -> tuple[str, str] | None:
    """Return what a checkpoint is whose name says that it is one of several shards; None of any other."""
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["all"]) > 1:
        index = f"{shard['stem']}{shard['suffix']}.index.json"
        what = f"shard {int(shard['number'])} of {int(shard['all'])} of a checkpoint"
        if (path.parent / index).exists():
            return what, f"give their index, {path.parent / index}"
        return what, f"give their index, {index}, which lies beside them where they were downloaded from"
    return None


def _by_its_neighbours(path: Path) -> tuple[str, str]:
    """Return what a file without a mark is part of, as a file of the same name beside it says."""
    whole = path.with_suffix("") if path.suffix == ".data" else path
    for suffix, what in _BESIDE.items():
        if path.suffix != suffix and (whole.suffix == suffix or path.with_suffix(suffix).exists()):
            return f"the numbers of {what}", _EXPORT
    return "", ""


def _text(head: bytes, path: Path) -> tuple[str, str] | None:
    """Return what a file of text is, and None of anything else."""
    start = head[3:] if head.startswith(b"\xef\xbb\xbf") else head
    start = start.lstrip().lower()
    try:
        text = (head if len(head) < 512 else head[:-4]).decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\0" in text or not text.strip():
        return None
    said = f" ({shortened_text(text)})"
    if start.startswith(b"<?xml") and b"<error" not in start:
        return "an XML file", "if it is OpenVINO's, convert the checkpoint that it was exported from"
    if start.startswith((b"<?xml", b"<error")):
        return f"a server's answer, not the file that was to be downloaded{said}", "download it again"
    if start.startswith(b"<"):
        return "a web page, not the file that was to be downloaded", "download it again, with a browser"
    if start.startswith((b"{", b"[")):
        if b'"program"' in head and b'"base_code"' in head:
            return "the program of a Paddle Inference export (.json)", _EXPORTED
        if start.startswith(b'{"error') or b'"message"' in start:
            return f"a server's answer, not the file that was to be downloaded{said}", "download it again"
        if path.name.endswith(".index.json"):
            return "the index of a checkpoint's shards", f"convert it first: {converter(path)}"
        return "a JSON file", "it holds no tensors; give the file of weights that it belongs to"
    if path.suffix in (*_CHECKPOINTS, ".pdparams", ".tar", ""):
        return f"a text{said}, not the file that was to be downloaded", "download it again"
    return "a text file", _NO_TENSORS


def shortened_text(text: str) -> str:
    """Return the beginning of a text for a message."""
    first = " ".join(text.split())
    return repr(first if len(first) <= 80 else f"{first[:80]}...")


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
    if any(
        name.endswith("serialized_exported_program.json") or "/models/" in name or "archive_format" in name
        for name in names
    ):
        return "a program of torch.export (.pt2)", _SAVE_STATE
    return "a zip file, but not one that torch.save wrote (no data.pkl)", _UNPACK


def _members(path: Path) -> list[str]:
    """Return the names in a zip file's directory; of one that is cut short or large, those in a bounded part of it."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 20)))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
    if tail[end - 20 : end - 16] == b"PK\6\7":  # both records of a zip64's end
        end -= 76
    if 0 < size <= end:  # the directory, without that of an archive inside
        head, tail = b"", tail[end - size : end]
    names: list[str] = []
    for part, mark, name in ((head, b"PK\3\4", 30), (tail, b"PK\1\2", 46)):
        at = part.find(mark)
        while 0 <= at <= len(part) - name and len(names) < 100_000:
            size = int.from_bytes(part[at + name - (4 if name == 30 else 18) :][:2], "little")
            names.append(part[at + name : at + name + size].decode("utf-8", "replace"))
            at = part.find(mark, at + 4)
    return names


def _folder(path: Path, deeper: bool = True) -> tuple[str, str]:
    names = sorted(entry.name for entry in list(path.iterdir())[:10_000])
    text = shlex.quote(str(path))
    if not names:
        return "an empty folder", "give a file of weights"
    if ".metadata" in names or _ending(names, ".distcp"):
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {text} OUT.pth"
        return "a distributed checkpoint of PyTorch (.distcp)", f"join it first: {command}"
    if "zero_to_fp32.py" in names or any(name.startswith("global_step") for name in names):
        command = f"python {shlex.quote(str(path / 'zero_to_fp32.py'))} {text} OUT.pth"
        return "a checkpoint of DeepSpeed", f"gather it first: {command}"
    if any("zero_pp_rank" in name or name.endswith("model_states.pt") for name in names):
        return "a part of a checkpoint of DeepSpeed", "gather it with the zero_to_fp32.py in the folder above"
    if "card.json" in names:
        step = f"give it to Predictor, or python -m paddle_inline predict --export {text}"
        return (
            "an export of this package",
            f"{step}; for weights give the .pdparams that it was exported from",
        )
    if "saved_model.pb" in names:
        return "a SavedModel of TensorFlow", _TO_TORCH
    if "checkpoint" in names and _ending(names, ".index"):
        return "a checkpoint of TensorFlow", _TO_TORCH
    if {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"} & set(names):
        return "a checkpoint of Orbax (JAX)", _TO_TORCH
    if path.suffix == ".mlpackage":
        return "a Core ML model", _EXPORT
    if "data.pkl" in names:
        return "an unpacked PyTorch checkpoint", "zip the folder again, without compression (zip -0 -r)"
    if _ending(names, ".pdiparams"):
        return "an export for Paddle Inference", _EXPORTED
    if any(f"{name[:-4]}.bin" in names for name in _ending(names, ".xml")):
        return "an OpenVINO export", _EXPORT
    files = checkpoints_of(names)
    if files:
        return "a folder of checkpoints", f"name one: {', '.join(shortened(files))}"
    below = [path / name for name in names[:50] if (path / name).is_dir()] if deeper else []
    found = {folder: kind for folder in below if (kind := _folder(folder, deeper=False))[1]}
    if len(found) == 1:
        (folder, (what, step)), *_ = found.items()
        return f"a folder with {what} in {folder.name}", step
    return "", ""


def _ending(names: Iterable[str], suffix: str) -> list[str]:
    return [name for name in names if name.endswith(suffix)]


def checkpoints_of(names: Collection[str]) -> list[str]:
    """Return, of a folder's file names, those of PyTorch's checkpoints: shards by their index, without the optimizers
    and generators that training keeps in files of their own."""
    indices = _ending(names, ".index.json")
    shards = {name for name in names if (m := _SHARD.fullmatch(name)) and int(m["all"]) > 1}
    files = [name for name in names if name.endswith(_CHECKPOINTS) and name not in shards]
    files = [name for name in files if not is_training_state(name)]
    return sorted([*indices, *files]) or sorted(shards)


def is_training_state(name: str) -> bool:
    """Return whether a file's name is that of an optimizer, a schedule or a generator, which hold no weights."""
    return bool(_STATE.fullmatch(name))


def not_weights(path: str | os.PathLike[str]) -> str:
    """Return one line on a file of bytes that are no weights and have no mark that is known."""
    with open(path, "rb") as file:
        head = file.read(8)
    return f"{path} is not a file of weights: {UNKNOWN} (it begins with {head!r}); {_AGAIN}"


def advice(path: str | os.PathLike[str]) -> str:
    """Return one line for a reader of Paddle's files that was given another: what it is, and the command or the step
    that leads on; "" for a file of Paddle's, and for what has no mark that is known."""
    what, step = kind_of(path)
    if what == TORCH:
        return f"{path} is {TORCH}; convert it first: {converter(path)}"
    return f"{path} is {what}: {step}" if step else ""


def converter(path: str | os.PathLike[str]) -> str:
    """Return the command that makes Paddle's weights of a file of PyTorch's."""
    path = Path(path)
    out = path.with_name(path.name.split(".index.json")[0]).with_suffix(".pdparams")
    if out == path:
        out = path.with_name(f"{path.stem}_paddle.pdparams")
    return f"python -m convert to-paddle {shlex.quote(str(path))} {shlex.quote(str(out))}"
