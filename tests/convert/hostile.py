"""Hostile files: each maker writes one into a folder and returns its path. A folder named `trap` appears
beside it if anything that it names is run."""

import collections
import hashlib
import json
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import torch

TRAP = "trap"
SMALL = {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 8, "num_classes": 3}


class Trap:
    """Pickled, it makes an unpickler run a command."""

    def __init__(self, folder):
        self.command = f"mkdir {folder / TRAP}"

    def __reduce__(self):
        return os.system, (self.command,)


def good_state():
    import torch_ref

    torch.manual_seed(0)
    return torch_ref.create_model("inline_deit_digits", **SMALL).state_dict()


def paddle_state():
    """The same on Paddle's side, by hand: Linear weights are transposed."""
    linear = ("qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight", "head.weight")
    return {
        name: np.ascontiguousarray(value.numpy().T) if name.endswith(linear) else value.numpy()
        for name, value in good_state().items()
    }


MAKERS = {}


def hostile(code):
    """Register a maker of a file that must be answered with this exit code."""

    def register(maker):
        MAKERS[maker.__name__] = (maker, code)
        return maker

    return register


def torch_file(folder, value, **options):
    torch.save(value, folder / "a.pth", **options)
    return folder / "a.pth"


def pickle_file(folder, data):
    (folder / "a.pdparams").write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, 4))
    return folder / "a.pdparams"


def archive(folder, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "a.pth", "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return folder / "a.pth"


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def safetensors_file(folder, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder / "a.safetensors"


# -- code that wants to run --


@hostile(3)
def command_as_the_file(folder):
    return torch_file(folder, Trap(folder))


@hostile(3)
def command_in_place_of_a_tensor(folder):
    return torch_file(folder, {"model": {**good_state(), "head.bias": Trap(folder)}})


@hostile(3)
def command_in_the_settings(folder):
    return torch_file(folder, {"model": good_state(), "config": {"deep": [Trap(folder)]}})


@hostile(3)
def command_as_an_attribute_of_the_state_dict(folder):
    state = collections.OrderedDict(good_state())
    state._metadata = Trap(folder)
    return torch_file(folder, state)


@hostile(3)
def command_in_a_file_from_before_zip(folder):
    return torch_file(folder, {"a": Trap(folder)}, _use_new_zipfile_serialization=False)


@hostile(3)
def command_before_a_file_from_before_zip(folder):
    path = torch_file(folder, good_state(), _use_new_zipfile_serialization=False)
    path.write_bytes(pickle.dumps(Trap(folder), 2) + path.read_bytes())
    return path


@hostile(3)
def command_in_place_of_a_storage(folder):
    path = torch_file(folder, good_state())
    data = b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", 4) + b"true\x85RQ."
    return archive(folder, [(n, data if n.endswith("data.pkl") else d) for n, d in members_of(path)])


@hostile(3)
def command_in_pdparams(folder):
    return pickle_file(folder, Trap(folder))


@hostile(3)
def command_deep_in_pdparams(folder):
    return pickle_file(folder, {**paddle_state(), "StructuredToParameterName@@": {"a": [Trap(folder)]}})


@hostile(3)
def command_in_the_oldest_protocol(folder):
    return pickle_file(folder, f"cos\nsystem\n(S'mkdir {folder / TRAP}'\ntR.".encode())


@hostile(3)
def command_behind_a_safe_name(folder):
    path = folder / TRAP
    text = b"X" + struct.pack("<I", len(f"mkdir {path}")) + f"mkdir {path}".encode()
    return pickle_file(folder, b"\x80\x04cbuiltins\ntuple\nccollections\nos.system\n" + text + b"\x85R.")


@hostile(3)
def evaluation_in_pdparams(folder):
    return pickle_file(folder, b"\x80\x04cbuiltins\neval\nX\x04\0\0\0" + b"1+1 " + b"\x85R.")


@hostile(3)
def array_of_objects(folder):
    return pickle_file(folder, {"a": np.array([Trap(folder)], dtype=object)})


# -- sizes that are not there --


def changed_pickle(folder, old, new):
    path = torch_file(folder, good_state())
    members = [(n, d.replace(old, new, 1) if n.endswith("data.pkl") else d) for n, d in members_of(path)]
    assert members != members_of(path)
    return archive(folder, members)


@hostile(3)
def tensor_larger_than_its_storage(folder):
    return changed_pickle(folder, b"K\x01K\x01K\x08\x87", b"J\0\0\0\x70J\0\0\0\x70K\x08\x87")


@hostile(3)
def tensor_of_one_number_repeated(folder):
    return torch_file(folder, {**good_state(), "head.weight": torch.zeros(1).expand(1 << 40, 8)})


@hostile(3)
def tensors_that_share_one_storage(folder):
    base = torch.zeros(1 << 16)
    return torch_file(folder, {f"blocks.{i}.attn.qkv.weight": base[:] for i in range(2000)})


@hostile(3)
def storage_larger_than_the_file(folder):
    path = torch_file(folder, {"a": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"K\x03N", b"\x8a\x07" + (1 << 50).to_bytes(7, "little") + b"N"))
    return path


@hostile(3)
def safetensors_larger_than_the_file(folder):
    entry = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    return safetensors_file(folder, {"a": entry}, b"\0" * 64)


@hostile(3)
def safetensors_whose_shape_overflows(folder):
    entry = {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}
    return safetensors_file(folder, {"a": entry})


@hostile(3)
def safetensors_with_a_header_without_end(folder):
    return safetensors_file(folder, b"[" * (1 << 20))


@hostile(3)
def array_larger_than_its_bytes(folder):
    data = pickle.dumps({"a": np.zeros(3, "f4")}, 4)
    return pickle_file(
        folder, data.replace(b"K\x03\x85", b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"\x85")
    )


@hostile(3)
def byte_string_larger_than_the_file(folder):
    return pickle_file(folder, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b".")


@hostile(3)
def memo_of_two_billion_places(folder):
    return pickle_file(folder, b"\x80\x04]r\xff\xff\xff\x7f.")


@hostile(3)
def millions_of_containers(folder):
    return pickle_file(folder, b"\x80\x04" + b"}\x94" * (4 << 20) + b".")


@hostile(3)
def millions_of_marks(folder):
    return pickle_file(folder, b"\x80\x04" + b"(" * (8 << 20) + b".")


@hostile(3)
def millions_of_objects(folder):
    data = b"\x80\x02ca\nb\nq\0" + b"h\0)\x81" * (2 << 20) + b"."
    return archive(folder, [("a/data.pkl", data), ("a/version", b"3\n")])


@hostile(3)
def a_thousand_million_laughs(folder):
    laughs = "ha"
    for _ in range(60):
        laughs = [laughs, laughs]
    return pickle_file(folder, {"model": {"a": laughs}, "b": laughs})


@hostile(3)
def a_key_that_takes_for_ever_to_hash(folder):
    return pickle_file(folder, b"\x80\x04})" + b"".join(b"\x94h%c\x86" % i for i in range(100)) + b"Ns.")


# -- archives --


@hostile(3)
def zip_bomb_in_the_pickle(folder):
    return archive(folder, [("a/data.pkl", b"\0" * (1 << 28))], zipfile.ZIP_DEFLATED)


@hostile(3)
def zip_bomb_in_a_tensor(folder):
    members = members_of(torch_file(folder, {"a": torch.zeros(1 << 22)}))
    return archive(folder, members, zipfile.ZIP_DEFLATED)


@hostile(3)
def zip_bomb_of_members_that_overlap(folder):
    path = torch_file(folder, {"a": torch.zeros(1 << 16)})
    data = path.read_bytes()
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    directory = data[start : start + struct.unpack_from("<I", data, end + 12)[0]]
    entries = [b"PK\1\2" + entry for entry in directory.split(b"PK\1\2")[1:]]
    large = next(entry for entry in entries if entry[46:].startswith(b"a/data/0"))
    entries += [large.replace(b"a/data/0", b"a/data/%c" % letter) for letter in range(65, 91)]
    directory = b"".join(entries)
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), start, 0)
    path.write_bytes(data[:start] + directory + tail)
    return path


@hostile(3)
def archive_of_a_million_members(folder):
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    directory = (entry + b"a") * 400_000
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), 4, 0)
    (folder / "a.pth").write_bytes(b"PK\3\4" + directory + tail)
    return folder / "a.pth"


@hostile(3)
def archive_that_climbs_out(folder):
    members = members_of(torch_file(folder, good_state()))
    return archive(folder, [*members, ("a/../../../../escaped", b"x")])


@hostile(3)
def archive_with_an_absolute_path(folder):
    return archive(folder, [*members_of(torch_file(folder, good_state())), ("/tmp/escaped", b"x")])


@hostile(3)
def storage_named_by_a_path(folder):
    return changed_pickle(folder, b"X\x01\0\0\x000", b"X\x10\0\0\0../../etc/passwd")


@hostile(3)
def index_that_climbs_out(folder):
    path = folder / "a.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../../../../etc/passwd"}}))
    return path


@hostile(3)
def index_of_itself(folder):
    path = folder / "a.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": path.name}}))
    return path


@hostile(3)
def index_of_a_name_without_end(folder):
    path = folder / "a.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "x" * 100_000}}))
    return path


@hostile(3)
def shard_that_is_a_device(folder):
    (folder / "b.safetensors").symlink_to("/dev/zero")
    path = folder / "a.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    return path


# -- names that come twice --


@hostile(3)
def member_that_comes_twice(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return archive(folder, members_of(torch_file(folder, good_state())) * 2)


@hostile(3)
def key_that_comes_twice_in_a_pickle(folder):
    data = pickle.dumps({"a": 1, "b": 2}, 4).replace(b"\x8c\x01b", b"\x8c\x01a")
    return pickle_file(folder, data)


@hostile(3)
def key_that_comes_twice_in_safetensors(folder):
    entry = b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    return safetensors_file(folder, b"{" + entry + b", " + entry + b"}", b"\0" * 4)


# -- damage --


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@hostile(3)
def cut_short(folder):
    return cut(torch_file(folder, good_state()))


@hostile(3)
def cut_short_before_zip(folder):
    return cut(torch_file(folder, good_state(), _use_new_zipfile_serialization=False), 0.95)


@hostile(3)
def cut_short_pdparams(folder):
    return cut(pickle_file(folder, paddle_state()))


@hostile(3)
def cut_short_safetensors(folder):
    from safetensors.torch import save_file

    save_file(good_state(), folder / "a.safetensors")
    return cut(folder / "a.safetensors")


@hostile(3)
def one_bit_flipped_in_a_file_with_a_sidecar(folder):
    path = pickle_file(folder, paddle_state())
    data = bytearray(path.read_bytes())
    facts = {"output": {"sha256": hashlib.sha256(data).hexdigest()}}
    (folder / "a.pdparams.json").write_text(json.dumps(facts))
    data[data.index(paddle_state()["cls_token"].tobytes()) + 2] ^= 1
    path.write_bytes(data)
    return path


@hostile(3)
def random_bytes(folder):
    (folder / "a.pth").write_bytes(np.random.RandomState(0).bytes(100_000))
    return folder / "a.pth"


@hostile(3)
def a_web_page(folder):
    (folder / "a.pth").write_bytes(b"<!doctype html><html>Too many downloads</html>" * 20)
    return folder / "a.pth"


# -- not a file --


@hostile(3)
def empty_file(folder):
    (folder / "a.pth").touch()
    return folder / "a.pth"


@hostile(3)
def no_file(folder):
    return folder / "none.pth"


@hostile(3)
def empty_folder(folder):
    (folder / "sub").mkdir()
    return folder / "sub"


@hostile(3)
def link_to_a_device(folder):
    (folder / "a.pth").symlink_to("/dev/zero")
    return folder / "a.pth"


@hostile(3)
def link_to_nowhere(folder):
    (folder / "a.pth").symlink_to("/nowhere")
    return folder / "a.pth"


@hostile(3)
def pipe_that_never_ends(folder):
    os.mkfifo(folder / "a.pth")
    return folder / "a.pth"


@hostile(3)
def dtype_of_nothing_here(folder):
    return torch_file(folder, {**good_state(), "head.bias": torch.zeros(3).to(torch.float8_e4m3fn)})


@hostile(3)
def sparse_tensor(folder):
    return torch_file(folder, {**good_state(), "head.bias": torch.zeros(3).to_sparse()})


# -- a model that is not the file's, described in it --


def described(folder, name, **overrides):
    pickle_file(folder, paddle_state())
    text = json.dumps({"paddle_inline": {"model": name, "overrides": {**SMALL, **overrides}}})
    with open(folder / "a.pdparams", "a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    return folder / "a.pdparams"


@hostile(3)
def description_of_a_deep_model(folder):
    return described(folder, "inline_deit_digits", depth=10**9)


@hostile(3)
def description_of_a_wide_model(folder):
    return described(folder, "inline_deit_digits", embed_dim=10**6)


@hostile(3)
def description_of_a_large_image(folder):
    return described(folder, "inline_deit_digits", img_size=10**9)


@hostile(3)
def description_of_other_types(folder):
    return described(folder, "inline_deit_digits", img_size="large", num_heads=[[1]])


@hostile(3)
def description_of_no_model(folder):
    return described(folder, "x" * 10_000)


@hostile(3)
def description_of_enormous_masks(folder):
    import torch_ref

    small = {"embed_dim": 32, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 1, 1), "attn_type": "IIII"}
    state = torch_ref.create_model("inline_swin_tiny", **small, num_classes=2).state_dict()
    sizes = {**small, "num_classes": 2, "img_size": 32 * 7 * 10**6, "window_size": 7}
    state.paddle_inline = json.dumps({"model": "inline_swin_tiny", "overrides": sizes})
    return torch_file(folder, state)


# -- weights that are none: the file can be opened, and its model is needed to say more --


@hostile(3)
def one_bit_flipped_in_a_tensor(folder):
    path = torch_file(folder, good_state())
    data = bytearray(path.read_bytes())
    data[data.index(good_state()["blocks.0.mlp.fc2.weight"].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)
    return path


@hostile(4)
def unknown_model(folder):
    return torch_file(folder, torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).state_dict())


@hostile(4)
def block_that_is_missing(folder):
    state = good_state()
    del state["blocks.0.norm2.bias"]
    return torch_file(folder, state)


@hostile(4)
def depth_of_a_million(folder):
    return torch_file(folder, {**good_state(), "blocks.999999.norm1.weight": torch.ones(8)})


@hostile(5)
def not_a_number(folder):
    state = good_state()
    state["blocks.0.mlp.fc1.weight"][3, 2] = float("nan")
    return torch_file(folder, state)


@hostile(5)
def infinite_in_half_precision(folder):
    state = {name: value.bfloat16() for name, value in good_state().items()}
    state["head.bias"][0] = float("inf")
    return torch_file(folder, state)


@hostile(5)
def integers_for_weights(folder):
    return torch_file(folder, {**good_state(), "head.bias": torch.zeros(3, dtype=torch.int64)})


@hostile(5)
def window_index_out_of_its_table(folder):
    import torch_ref

    small = {"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "attn_type": "IIIS"}
    state = torch_ref.create_model("inline_swin_tiny", **small, num_classes=2).state_dict()
    state["layers.3.blocks.0.attn.relative_position_index"][0, 0] = 1 << 40
    return torch_file(folder, state)
