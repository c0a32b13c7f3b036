"""Folders of the Hugging Face hub's layout: what Paddle writes it reads again, and nothing else passes for it."""

import json
import os
import shutil
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import paddle
import pytest

import paddle_inline
from paddle_inline import from_pretrained, save_pretrained
from paddle_inline.data.published import published_transform
from paddle_inline.utils import hub
from paddle_inline.utils.errors import MissingFileError, MissingPackageError, UserError
from paddle_inline.utils.hub_config import timm_transform, transform_of
from paddle_inline.weights.safetensors import open_safetensors

NAME = "inline_deit_digits"
SIZES = {"depth": 1, "embed_dim": 16, "num_heads": 2, "num_classes": 3}
TRANSFORM = published_transform(NAME, 48)
CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(scope="module")
def model():
    paddle.seed(0)
    model = paddle_inline.create_model(NAME, **SIZES, img_size=48)
    model.eval()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model):
    return Path(
        save_pretrained(model, tmp_path_factory.mktemp("hub") / "m", transform=TRANSFORM, classes=CLASSES)
    )


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def change(folder, function):
    config = json.loads((folder / "config.json").read_text())
    function(config)
    (folder / "config.json").write_text(json.dumps(config))


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    one, other = arrays(one), arrays(other)
    assert list(one) == list(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_what_was_saved_comes_back(model, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = from_pretrained(saved)
    assert_same(found, model)
    assert (found.name, found.num_classes, found.img_size) == (NAME, 3, model.img_size)
    assert found.description["classes"] == CLASSES and found.description["transform"] == TRANSFORM
    assert sorted(os.listdir(saved)) == ["README.md", "config.json", "model.safetensors"]
    again = from_pretrained(f"local-dir:{saved}")
    assert_same(again, model)


def test_weights_are_of_pytorch_s_names_and_layout(model, saved):
    found, metadata = open_safetensors(saved / "model.safetensors")
    assert metadata["format"] == "pt" and set(found) == set(model.state_dict())
    weight = model.blocks[0].mlp.fc1.weight.numpy()
    assert found["blocks.0.mlp.fc1.weight"].shape == weight.shape[::-1]
    np.testing.assert_array_equal(found["blocks.0.mlp.fc1.weight"].read(), weight.T)


def test_config_says_in_timm_s_terms_what_it_is(saved):
    config = json.loads((saved / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["num_features"]) == (NAME, 3, 16)
    assert config["model_args"] == {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 48}
    assert config["label_names"] == CLASSES
    assert config["pretrained_cfg"] == {
        "input_size": [3, 48, 48],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "squash",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 3,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("squash", 0.875)),
        ({"resize": "short", "crop_ratio": 0.9}, ("center", 0.9)),
        ({"crop": False}, ("squash", 1.0)),
        ({"img_size": [32, 48]}, ("squash", 0.875)),
        ({"img_size": 32}, ("squash", 1.0)),  # so small an image is not cropped
    ],
    ids=str,
)
def test_a_transform_goes_to_timm_and_back(change, expected):
    transform = {**TRANSFORM, **change}
    entries = timm_transform(transform)
    assert (entries["crop_mode"], entries["crop_pct"]) == expected
    size = transform["img_size"]
    sides = [size, size] if isinstance(size, int) else size
    back = transform_of({**entries, "input_size": [3, *sides]})
    assert back == (transform if transform["img_size"] != 32 else {**transform, "crop": False})
    assert transform_of({**entries, "input_size": [3, *sides], "crop_mode": "border"}) is None
    assert transform_of({"input_size": [3, *sides]}) is None


def test_the_card_says_what_it_is(saved):
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: paddle-inline\n") and "license" not in card
    for text in (
        f"# {NAME}",
        "| Classes | 3: cat, dog, eel |",
        "crop_ratio 0.875",
        "from_pretrained(",
        "timm.create",
    ):
        assert text in card


def test_a_head_and_a_size_of_one_s_own(saved):
    with pytest.warns(UserWarning) as caught:
        model = from_pretrained(saved, num_classes=5, img_size=96)
    said = [str(warning.message) for warning in caught if str(saved) in str(warning.message)]
    assert any("head set to zero (3 -> 5 classes), so train it" in line for line in said)
    assert any("pos_embed resized from 12 x 12 to 24 x 24" in line for line in said)
    assert {Path(warning.filename).name for warning in caught if str(saved) in str(warning.message)} == {
        "test_hub.py"
    }
    assert (model.num_classes, model.spec.img_size) == (5, 96) and not model.head.weight.numpy().any()
    assert "classes" not in model.description and model.description["transform"]["img_size"] == 96


def test_a_folder_of_timm_s_own_is_read(folder, model):
    """Such a one has none of our entries, and its weights say nothing of themselves."""
    from safetensors.numpy import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    change(folder, lambda config: config.pop("paddle_inline"))
    found = from_pretrained(folder)
    assert_same(found, model)
    assert found.description["transform"] == TRANSFORM and found.description["classes"] == CLASSES


@pytest.mark.parametrize("name", ["soft_digits", "inline_swin_tiny"])
def test_statistics_and_buffers_come_back(tmp_path, name):
    sizes = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)} if "swin" in name else {}
    model = paddle_inline.create_model(name, **sizes)
    model.description = {"num_batches_tracked": {}}
    found = from_pretrained(save_pretrained(model, tmp_path / "m"))
    assert_same(found, model) if name == "soft_digits" else None
    kept = {name for name in arrays(model) if not name.endswith("relative_position_index")}
    assert all((arrays(model)[name] == arrays(found)[name]).all() for name in kept)


def test_bfloat16_stays_bfloat16(tmp_path, model):
    half = paddle_inline.create_model(NAME, **SIZES, img_size=48)
    half.to(dtype="bfloat16")
    save_pretrained(half, tmp_path / "m")
    found, _ = open_safetensors(tmp_path / "m" / "model.safetensors")
    assert {array.dtype for array in found.values()} == {"bfloat16"}
    one = from_pretrained(tmp_path / "m").blocks[0].mlp.fc1.weight.numpy()
    np.testing.assert_array_equal(one, half.blocks[0].mlp.fc1.weight.astype("float32").numpy())


def flip_a_bit(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def forget(key):
    return lambda config: config.pop(key)


def put(**entries):
    return lambda config: config.update(entries)


WRONG = {
    "flipped bit": (
        flip_a_bit,
        "model.safetensors is not the file that config.json describes: its SHA-256 is another",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors: config.json and"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "half a config": (
        lambda f: (f / "config.json").write_text('{"architecture":'),
        "config.json is not JSON",
    ),
    "nonsense": (lambda f: (f / "config.json").write_text("[1]"), "names no model under 'architecture'"),
    "deep": (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is not JSON"),
    "another's": (put(architecture="resnet50"), "config.json says architecture='resnet50', the weights say"),
    "another model": (put(architecture="soft_tiny"), "says architecture='soft_tiny', the weights say"),
    "what no tensor shows": (
        lambda config: config["model_args"].update(kernel_function="relu"),
        "says kernel_function='relu', the weights say that they are of a model with 'identity'",
    ),
    "half of the classes": (put(num_classes=4), "its entries of num_classes differ, 4 is one"),
    "names": (put(label_names=["a", 1]), "label_names are not a list of names"),
    "more names": (put(label_names=list("abcd")), "4 class names for 3 outputs"),
    "transform": (
        lambda config: config["pretrained_cfg"].update(crop_pct=1.0),
        "pretrained_cfg says crop_pct 1.0, and the transform in paddle_inline 0.875: change both, or remove",
    ),
    "no transform": (
        lambda config: config["paddle_inline"].update(transform=[1]),
        "is none that this package writes",
    ),
    "later": (
        lambda config: config["paddle_inline"].update(format=2),
        "format 2; this version reads 1: install a later",
    ),
    "digest": (lambda config: config["paddle_inline"].update(sha256=1), "its sha256 is 1"),
    "arguments": (put(model_args=[]), "model_args and paddle_inline must be dictionaries"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_tampered_with_or_is_not_whole_is_refused(folder, name):
    spoil, message = WRONG[name]
    if name in ("flipped bit", "no weights", "no config", "half a config", "nonsense", "deep"):
        spoil(folder)
    else:
        change(folder, spoil)
    with pytest.raises(UserError) as caught:
        from_pretrained(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 10**9}, "its tensors are another model's"),
        ({"img_size": 10**4}, "its tensors are another model's"),
        ({"embed_dim": 32}, "its tensors are another model's"),
        ({"invented": 1}, "unknown override of inline_deit_digits 'invented'"),
        ({"depth": "x"}, "cannot be built"),
    ],
    ids=str,
)
def test_weights_that_say_nothing_must_be_those_of_the_model(folder, arguments, message):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pt"})
    change(folder, lambda config: (config.pop("paddle_inline"), config["model_args"].update(arguments)))
    with pytest.raises(UserError, match=message) as caught:
        from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_paddle_s_layout_is_refused(folder):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", {"format": "pd"})
    change(folder, forget("paddle_inline"))
    with pytest.raises(UserError, match=r"has Paddle's layout; in a folder of the hub it is PyTorch's"):
        from_pretrained(folder)


def test_a_save_that_fails_leaves_what_was_there(tmp_path, model, monkeypatch):
    target = tmp_path / "m"

    def full(path, arrays, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paddle_inline.hub.write_safetensors", full)
        with pytest.raises(UserError, match=r"m cannot be written: No space left on device"):
            save_pretrained(model, target)
    assert list(tmp_path.iterdir()) == []
    save_pretrained(model, target)
    (target / "README.md").write_text("mine")
    (target / "notes.txt").write_text("kept")
    before = (target / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("paddle_inline.hub.write_safetensors", full)
        with pytest.raises(UserError, match="No space left"):
            save_pretrained(model, target)
    assert (target / "model.safetensors").read_bytes() == before
    save_pretrained(model, target, classes=CLASSES)
    assert sorted(os.listdir(target)) == ["README.md", "config.json", "model.safetensors", "notes.txt"]
    assert (target / "README.md").read_text() == "mine"
    assert from_pretrained(target).description["classes"] == CLASSES


def test_only_a_model_that_can_be_read_again_is_saved(tmp_path, model):
    for wrong in (paddle.nn.Linear(1, 1), paddle_inline.create_backbone("soft_digits")):
        with pytest.raises(UserError, match="save_pretrained takes a model of create_model, not a"):
            save_pretrained(wrong, tmp_path / "m")
    with pytest.raises(UserError, match="4 class names for 3 outputs"):
        save_pretrained(model, tmp_path / "m", classes=list("abcd"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; name a folder"):
        save_pretrained(model, tmp_path / "file")
    spoilt = paddle_inline.create_model(NAME, **SIZES)
    spoilt.head.bias.set_value(np.full(3, np.nan, "float32"))
    with pytest.raises(UserError, match=r"head\.bias is NaN or infinite in 3 values"):
        save_pretrained(spoilt, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_folder(tmp_path, saved):
    with pytest.raises(
        UserError, match=r"is a file: from_pretrained takes its folder, create_model\(weights=FILE\)"
    ):
        from_pretrained(saved / "model.safetensors")
    for wrong in ("nowhere", tmp_path / "a" / "b", "local-dir:a/b", "hf-hub:a"):
        with pytest.raises(
            MissingFileError, match=r"no folder .*; give a folder with config\.json and model\.safe"
        ):
            from_pretrained(wrong)


def test_a_repository_is_downloaded_by_huggingface_hub(monkeypatch, model, saved):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["revision"], options["allow_patterns"]))
        return str(saved)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download)
    )
    files = ["config.json", "model.safetensors"]
    assert_same(from_pretrained("me/my-model"), model)
    from_pretrained("hf-hub:me/my-model@v1.0")
    from_pretrained("me/my-model", revision="abc")
    assert asked == [("me/my-model", revision, files) for revision in (None, "v1.0", "abc")]


def test_a_download_that_fails_is_one_line(monkeypatch):
    def offline(name, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=offline))
    with pytest.raises(UserError) as caught:
        from_pretrained("me/my-model")
    assert str(caught.value) == (
        "me/my-model is no folder here and was not downloaded from the Hugging Face hub (ConnectionError: no route); "
        "without a network copy the repository to a folder and give that"
    )


def test_without_huggingface_hub_a_line_names_the_extra(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        MissingPackageError, match=r"takes huggingface_hub.*pip install 'paddle-inline\[hub\]'"
    ):
        from_pretrained("me/my-model")
    with pytest.raises(MissingPackageError, match=r"to upload .*pip install 'paddle-inline\[hub\]'"):
        save_pretrained(model, "hf-hub:me/my-model")


def test_an_upload_is_what_would_be_saved(monkeypatch, tmp_path, model, saved):
    made = []

    def upload_folder(repo_id, folder_path):
        shutil.copytree(folder_path, tmp_path / "uploaded")
        made.append(repo_id)

    fake = types.SimpleNamespace(
        upload_folder=upload_folder, create_repo=lambda name, exist_ok: made.append(name)
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    address = save_pretrained(model, "hf-hub:me/my-model", transform=TRANSFORM, classes=CLASSES)
    assert address == "https://huggingface.co/me/my-model" and made == ["me/my-model"] * 2
    for file in saved.iterdir():
        assert (tmp_path / "uploaded" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match="hf-hub:me names no repository"):
        save_pretrained(model, "hf-hub:me")
    fake.create_repo = lambda name, exist_ok: (_ for _ in ()).throw(PermissionError("401"))
    with pytest.raises(UserError, match=r"me/my-model was not uploaded \(PermissionError: 401\); log in"):
        save_pretrained(model, "hf-hub:me/my-model")


def test_pretrained_says_where_weights_come_from():
    with pytest.raises(
        UserError, match=r"github\.com/LeapLabTHU/InLine, convert it \(python -m convert to-paddle"
    ):
        paddle_inline.create_model("inline_pvt_tiny", pretrained=True)
    with pytest.raises(UserError, match=r"github\.com/fudan-zvg/SOFT"):
        paddle_inline.models.soft_tiny(pretrained=True)
    with pytest.raises(
        UserError,
        match=r"it is no published size: train it \(python -m paddle_inline train --cfg (quickstart|soft_digits)\)",
    ):
        paddle_inline.create_model(NAME, pretrained=True)
    assert paddle_inline.create_model(NAME, **SIZES, pretrained=False).num_classes == 3


def test_ids_are_told_from_paths():
    assert hub._ID.fullmatch("me/my.model-1")["revision"] is None
    assert hub._ID.fullmatch("me/m@v1.0/x")["revision"] == "v1.0/x"
    for path in ("a/b/c", "./a", "../a/b", "/a/b", "a", "a b/c", "me/..@x"):
        assert hub._ID.fullmatch(path) is None, path
