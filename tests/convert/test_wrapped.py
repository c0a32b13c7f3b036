"""Checkpoints as other tools wrap them: any dictionary, any prefix, marks inside names, company beside the weights."""

import argparse
import collections
import enum
import functools
import json
import pathlib
import pickle
import random
import re
import types

import numpy as np
import pytest
import torch

import torch_ref
from convert.__main__ import main
from convert.checkpoint import ConversionOptions, open_checkpoint, training_hints
from convert.errors import UnknownModelError
from convert.formats.select import dictionaries
from convert.formats.source import open_source
from convert.identify import identify
from convert.mapping import shapes_of, skeleton
from paddle_inline.utils.errors import UserError
from paddle_inline.weights.lazy_array import WeightsFileError
from tests.convert.hostile import TRAP, Trap, archive, good_state, members_of, paddle_state


@pytest.fixture(scope="module")
def state():
    return good_state()


def save(folder, contents):
    torch.save(contents, folder / "a.pth")
    return folder / "a.pth"


def opened(folder, contents, take="model", **options):
    return open_checkpoint(save(folder, contents), ConversionOptions(take=take, **options))


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def other(state):
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


def assert_same(found, state):
    assert found.identity.name == "inline_deit_digits"
    assert set(found.weights.arrays) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(found.weights.arrays[name].read(), value.numpy())


def test_lightning(tmp_path, state):
    contents = {"state_dict": {**under("model.", state), "criterion.weight": torch.ones(3)}, "epoch": 3}
    found = opened(tmp_path, {**contents, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {}}})
    assert_same(found, state)
    assert list(found.left_out) == ["criterion.weight"]


def test_mmpretrain(tmp_path, state):
    body = {name: value for name, value in state.items() if not name.startswith("head.")}
    head = {"head.fc.weight": torch.ones(7, 8), "head.fc.bias": torch.zeros(7)}
    found = opened(tmp_path, {"meta": {"epoch": 1}, "state_dict": {**under("backbone.", body), **head}})
    assert_same(found, body)
    assert found.identity.overrides["num_classes"] == 0
    assert list(found.left_out) == list(head)


def test_dino(tmp_path, state, capsys):
    body = {name: value for name, value in state.items() if not name.startswith("head.")}
    teacher = {**under("module.backbone.", other(body)), "module.head.mlp.0.weight": torch.ones(2, 8)}
    contents = {"student": {**teacher, **under("module.backbone.", body)}, "teacher": teacher}
    contents["dino_loss"] = {"center": torch.zeros(1, 9)}
    with pytest.raises(UserError, match=r"several models.*--take student or --take teacher"):
        opened(tmp_path, contents)
    assert_same(opened(tmp_path, contents, "student"), body)
    found = opened(tmp_path, contents, "teacher")
    assert_same(found, other(body))
    assert list(found.left_out) == ["module.head.mlp.0.weight"]
    assert main(["inspect", str(tmp_path / "a.pth")]) == 0
    said = capsys.readouterr().out
    assert "student" in said and "teacher" in said and "dino_loss: 1 tensor" in said
    assert (
        f"python -m convert to-paddle {tmp_path / 'a.pth'} {tmp_path / 'a.pdparams'} --take teacher" in said
    )
    assert main(["to-paddle", str(tmp_path / "a.pth"), str(tmp_path / "m.pdparams")]) == 2


@pytest.mark.parametrize(
    "path", ["state", "trainer.model", "a.b.c.d", "models.1", "ema_states.net", "checkpoint.state_dict"]
)
def test_any_dictionary_at_any_depth(tmp_path, state, path):
    contents = state
    for key in reversed(path.split(".")):
        contents = [{}, contents] if key == "1" else {key: contents, "epoch": 1}
    assert_same(opened(tmp_path, contents), state)
    assert_same(opened(tmp_path, contents, path), state)


def test_two_models_in_one_dictionary(tmp_path, state):
    contents = {
        "state_dict": {
            **under("encoder_q.", state),
            **under("encoder_k.", other(state)),
            "queue": torch.ones(2, 9),
        }
    }
    with pytest.raises(UserError, match=r"--take state_dict\.encoder_q or --take state_dict\.encoder_k"):
        opened(tmp_path, contents)
    found = opened(tmp_path, contents, "state_dict.encoder_k")
    assert_same(found, other(state))
    assert list(found.left_out) == ["queue"]


def test_lightnings_average_beside_the_model(tmp_path, state):
    contents = {"state_dict": {**under("ema_model.module.", other(state)), **under("model.", state)}}
    assert_same(opened(tmp_path, contents), state)
    assert_same(opened(tmp_path, contents, "ema"), other(state))
    assert_same(opened(tmp_path, contents, "state_dict.ema_model"), other(state))


def test_an_average_with_its_counter(tmp_path, state):
    found = opened(tmp_path, {**under("module.", state), "n_averaged": torch.tensor(5)})
    assert_same(found, state)
    assert list(found.left_out) == ["n_averaged"]


def test_what_is_a_part_of_the_network_is_never_left_out(tmp_path, state):
    for name in (
        "dist_token",
        "fc_norm.weight",
        "blocks.0.attn.q_norm.weight",
        "pos_embed2",
        "stem.0.weight",
    ):
        with pytest.raises(UnknownModelError, match=rf"\+ {name}"):
            opened(tmp_path, {**state, name: torch.ones(1, 1, 8)})
    short = {name: value for name, value in state.items() if name != "norm.weight"}
    with pytest.raises(UnknownModelError, match=r"- norm\.weight"):
        opened(tmp_path, {"state_dict": under("model.", short)})


COMPANY = """criterion.weight train_acc.total head_dist.weight aux_head.fc.weight queue queue_ptr global_step
loss_fn.prototypes.weight total_ops blocks.0.attn.total_ops optimizer.m.0 patch_loss.weight pixel_mean
decoder.blocks.0.weight"""


@pytest.mark.parametrize("name", re.findall(r"\S+", COMPANY))
def test_company_is_left_out_by_name(tmp_path, state, name, capsys):
    found = opened(tmp_path, {**state, name: torch.ones(1, dtype=torch.float64)})
    assert_same(found, state)
    assert list(found.left_out) == [name]
    assert main(["to-paddle", str(tmp_path / "a.pth"), str(tmp_path / "m.pdparams"), "--no-verify"]) == 0
    assert f"left out, as it is beside the model: {name}" in capsys.readouterr().out


MARKS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
KEYS = ("", "model", "state_dict", "net.weights", "trainer.0.student", "x.y.z")
PREFIXES = ("", "model.", "backbone.", "encoder.trunk.", "net.0.", "task.model.module.")


@pytest.mark.parametrize("seed", range(40))
def test_any_wrapper(tmp_path, state, seed):
    """Keys, prefixes, marks and company, drawn."""
    draw = random.Random(seed)
    prefix, marks = draw.choice(PREFIXES), draw.sample(MARKS, draw.randint(0, 3))
    company = {}
    if draw.random() < 0.5:
        company = {"criterion.weight": torch.ones(2), "metrics.acc.total": torch.tensor(3)}
    names = {}
    for name in state:
        parts = name.split(".")
        for mark in marks:  # after a module of its own, in every name that has it
            at = MARKS.index(mark) % 3
            if at < len(parts) - 1:
                parts.insert(at, mark)
        names[name] = prefix + ".".join(parts)
    contents = {**{names[name]: value for name, value in state.items()}, **company}
    for key in reversed(list(filter(None, draw.choice(KEYS).split(".")))):
        contents = [contents] if key == "0" else {key: contents, "epoch": 1, "best": {"loss": torch.ones(1)}}
    found = opened(tmp_path, contents)
    assert_same(found, state)
    assert set(found.left_out) == set(company)


@pytest.mark.parametrize("attn_type", ["IIIS", "SSSS", "IIII"])
def test_rebuilt_buffers_may_be_absent(tmp_path, attn_type):
    small = {"embed_dim": 32, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 1, 1), "num_classes": 2}
    whole = torch_ref.create_model(
        "inline_swin_tiny", **small, attn_type=attn_type, window_size=7
    ).state_dict()
    bare = {n: v for n, v in whole.items() if not n.endswith(("attn_mask", "relative_position_index"))}
    found = opened(tmp_path, {"model": bare}, model="inline_swin_tiny", overrides={"window_size": 7})
    assert set(found.rebuilt) == set(whole) - set(bare)
    assert set(found.weights.arrays) == set(whole)
    for name in found.rebuilt:
        np.testing.assert_array_equal(found.weights.arrays[name].read(), whole[name].numpy())
    found = opened(tmp_path, {"model": bare})
    assert found.identity.overrides.get("img_size", 224) == 224
    assert found.identity.overrides.get("attn_type", "IIIS") == attn_type or attn_type == "IIII"


class Color(enum.Enum):
    RED = 1


class Kind(str, enum.Enum):
    BEST = "best"


class Placeholder:
    """In the place of a class or function that is not here: `renamed` puts its name into the file."""

    def __init__(self, *arguments, **attributes):
        self.__dict__.update(attributes)


def renamed(folder, contents, *paths):
    """Save contents, in which Placeholder, Placeholder1, ... stand for what is called `paths`."""
    pickled = members_of(save(folder, contents))
    for i, path in reversed(list(enumerate(paths))):
        old = f"c{__name__}\nPlaceholder{i or ''}\n".encode()
        new = "c{}\n{}\n".format(*path.rsplit(".", 1)).encode()
        pickled = [(n, d.replace(old, new) if n.endswith("data.pkl") else d) for n, d in pickled]
    return archive(folder, pickled)


class Placeholder1(Placeholder):
    """Another."""


class Called:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


HARMLESS = {
    "path": pathlib.PurePosixPath("/data"),
    "enum": Color.RED,
    "text enum": Kind.BEST,
    "float": np.float64(1.5),
    "int": np.int64(3),
    "bool": np.bool_(True),
    "text": np.str_("best"),
    "date": np.datetime64("2024-01-01"),
    "texts": np.array(["cat", "dog"]),
    "objects": np.array(["cat", 1], dtype=object),
    "namespace": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x"), kind=Color.RED),
    "simple": types.SimpleNamespace(a=1),
    "partial": functools.partial(torch.nn.LayerNorm, eps=1e-6),
    "random": np.random.RandomState(0).get_state(),
    "generator": np.random.default_rng(0),
    "python random": random.Random(0).getstate(),
    "tuple keys": {(0, 1): "a", 0.5: "b", Color.RED: "c"},
    "default": collections.defaultdict(list, a=[1]),
    "device": torch.device("cpu"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_company_needs_no_flag(tmp_path, state, name):
    assert_same(opened(tmp_path, {"model": state, "args": HARMLESS[name]}), state)


OTHERS = (
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "pathlib.PosixPath",
    "torchx.util.Precision",
    "omegaconf.nodes.AnyNode",
    "mmengine.logging.HistoryBuffer",
    "lightning.fabric.utilities.enums.Mode",
)


@pytest.mark.parametrize("path", OTHERS)
def test_constructors_of_other_interpreters_and_packages(tmp_path, state, path):
    contents = {"model": state, "args": {"deep": [Called(Placeholder, "a", 1)]}}
    assert_same(open_checkpoint(renamed(tmp_path, contents, path), ConversionOptions()), state)


COMMANDS = (
    "shutil.rmtree",
    "subprocess.Popen",
    "torch.hub.load",
    "somewhere.run",
    "webbrowser.Chrome",
    "os.system",
)


@pytest.mark.parametrize("path", COMMANDS)
def test_what_could_be_a_command_is_refused_by_name(tmp_path, state, path):
    file = renamed(tmp_path, {"model": state, "args": Called(Placeholder, "x")}, path)
    with pytest.raises(WeightsFileError, match=rf"is to call {path}.*Nothing was run"):
        open_checkpoint(file, ConversionOptions())


def test_a_member_of_an_enumeration_as_python_3_11_wrote_it(tmp_path, state):
    assert_same(opened(tmp_path, {"model": state, "args": Called(getattr, Color, "RED")}), state)
    with pytest.raises(WeightsFileError, match=r"call builtins\.getattr"):
        opened(tmp_path, {"model": state, "args": Called(getattr, pathlib.Path, "home")})


def test_a_command_in_a_namespace_is_still_refused(tmp_path, state):
    with pytest.raises(WeightsFileError, match=r"posix\.system"):
        opened(tmp_path, {"model": state, "args": argparse.Namespace(a=Trap(tmp_path))})
    assert not (tmp_path / TRAP).exists()


def test_harmless_company_of_a_paddle_file(tmp_path, state):
    contents = {"model": paddle_state(), "args": argparse.Namespace(lr=0.1), "kind": Color.RED}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(contents, 4))
    found = open_checkpoint(tmp_path / "a.pdparams", ConversionOptions())
    assert found.identity.side == "paddle"


def test_tensors_of_a_device_have_their_numbers_inside(tmp_path, state):
    rebuild = torch._utils._rebuild_device_tensor_from_numpy
    from_cpu = torch._utils._rebuild_device_tensor_from_cpu_tensor
    for make in (
        lambda value: Called(rebuild, value.numpy(), value.dtype, "xla:0", False),
        lambda value: Called(from_cpu, value, value.dtype, "xla:0", False),
    ):
        contents = {"model": {name: make(value) for name, value in state.items()}}
        assert_same(opened(tmp_path, contents), state)


def test_a_tensor_without_its_numbers_stops_only_who_needs_it(tmp_path, state):
    for value, reason in (
        (torch.empty(3, device="meta"), "meta device"),
        (torch.zeros(3).to_sparse(), "sparse"),
        (torch.zeros(3).to(torch.float8_e4m3fn), "float8"),
        (torch.zeros(3, dtype=torch.complex64), "ComplexFloatStorage"),
    ):
        found = opened(tmp_path, {"model": state, "other": {"x": value}})
        assert_same(found, state)
        found = opened(tmp_path, {"model": {**state, "criterion.x": value}})
        assert list(found.left_out) == ["criterion.x"]
        with pytest.raises(WeightsFileError, match=rf"of head\.bias, .*{reason}"):
            opened(tmp_path, {"model": {**state, "head.bias": value}})


def test_a_whole_module_in_a_checkpoint(tmp_path, state):
    model = torch.nn.Module()
    for name, value in state.items():
        *path, last = name.split(".")
        owner = model
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner._modules[part]
        owner.register_parameter(last, torch.nn.Parameter(value))
    model.blocks.register_buffer("scratch", torch.ones(2), persistent=False)
    assert_same(opened(tmp_path, {"epoch": 1, "model": model}), state)


def test_settings_of_omegaconf(tmp_path):
    """As OmegaConf pickles them: nodes whose entries are in their state."""
    weights = torch_ref.create_model("soft_tiny", **SOFT_SMALL).state_dict()
    name = Placeholder(_metadata=None, _parent=None, _val="soft_norm_tiny")
    config = Placeholder1(_metadata=None, _content={"arch": name, "lr": 0.1})
    nodes = ("omegaconf.nodes.AnyNode", "omegaconf.dictconfig.DictConfig")
    file = renamed(tmp_path, {"model": weights, "cfg": config}, *nodes)
    assert open_checkpoint(file, ConversionOptions()).identity.model.spec.normed


def test_zero_3_is_named(tmp_path, state):
    empty = {name: torch.empty(0) for name in state}
    for contents in ({"module": empty, "ds_version": "0.14"}, empty, {"state_dict": under("model.", empty)}):
        with pytest.raises(WeightsFileError, match=r"ZeRO-3.*gather with zero_to_fp32\.py"):
            opened(tmp_path, contents)


def test_dtensors_are_named(tmp_path, state):
    """As torch saves a state dict of sharded tensors."""
    wrap = torch._utils._rebuild_wrapper_subclass
    made = Called(torch._tensor._rebuild_from_type_v2, wrap, Placeholder, (Placeholder, torch.float32), {})
    file = renamed(tmp_path, {"model": dict.fromkeys(state, made)}, "torch.distributed.tensor.DTensor")
    with pytest.raises(WeightsFileError, match=r"DTensor.*full_tensor"):
        open_checkpoint(file, ConversionOptions())


SOFT_SMALL = {
    "embed_dims": (32, 32, 64, 64),
    "num_heads": (1, 1, 2, 2),
    "depths": (1, 1, 1, 1),
    "num_classes": 3,
}


def test_softs_files_name_their_model(tmp_path):
    weights = torch_ref.create_model("soft_tiny", **SOFT_SMALL).state_dict()
    for arch in ("soft_tiny", "soft_norm_tiny", "soft_tiny_norm"):
        for contents in (
            {"arch": arch, "state_dict": weights, "version": 2, "epoch": 3},
            {"state_dict": weights, "args": argparse.Namespace(model=arch, img_size=224)},
        ):
            assert opened(tmp_path, contents).identity.model.spec.normed == ("norm" in arch)
    shapes = shapes_of(skeleton("soft_norm_tiny", {}), "torch")
    for arch in ("soft_tiny", "soft_norm_tiny"):
        assert identify(shapes, hints=training_hints({"arch": arch})).name == arch
    with pytest.raises(UnknownModelError, match="several models have exactly these tensors"):
        identify(shapes, hints=training_hints({"arch": "resnet50"}))


@pytest.mark.parametrize("name", ["inline_cswin_tiny", "inline_pvt_tiny"])
def test_settings_inside_name_a_model_of_softmax(name):
    shapes = shapes_of(skeleton(name, {"attn_type": "SSSS"}), "torch")
    with pytest.raises(UnknownModelError, match="does not show its number of heads"):
        identify(shapes)
    for text in (name, name.replace("tiny", "t"), name.rsplit("_", 1)[0]):
        found = identify(shapes, hints={"text": text, "img_size": 224})
        assert found.name == name
        assert "the training settings in the file" in found.how
    with pytest.raises(UnknownModelError, match="does not show its number of heads"):
        identify(shapes, hints={"text": "my_label"})


def test_inspect_lists_everything_and_what_to_do(tmp_path, state, capsys):
    contents = {
        "model": {**state, "criterion.weight": torch.ones(2)},
        "state_dict_ema": other(state),
        "history": {"losses": torch.ones(9)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
    }
    path = save(tmp_path, contents)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    for line in (
        "  model: 24 tensors and 1 beside them, create_model('inline_deit_digits'",
        "  state_dict_ema: 24 tensors, create_model('inline_deit_digits'",
        "  history: 1 tensor, of no model here",
        "left out, as it is beside the model: criterion.weight",
        f"python -m convert to-paddle {path} {tmp_path / 'a.pdparams'}",
    ):
        assert line in said, said
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in facts["dictionaries"]] == ["model", "state_dict_ema", "history"]
    assert facts["left_out"] == ["criterion.weight"]
    assert facts["next"][0].startswith("python -m convert to-paddle")


def test_every_dictionary_is_listed(tmp_path, state):
    nested = {
        "a": {"b": [{"w": torch.ones(1)}, {"w": torch.ones(1)}]},
        "model": state,
        "c": {"d": {"x": torch.ones(2)}},
    }
    found = dictionaries(open_source(save(tmp_path, nested)))
    assert [each.label for each in found] == ["a.b.0", "a.b.1", "model", "c.d"]
