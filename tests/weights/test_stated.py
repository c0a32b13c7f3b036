"""What no tensor shows, a model takes from its weights; and weights as Paddle's programs wrap them."""

import pickle
import re

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from paddle_inline import create_model, load_weights  # noqa: E402
from paddle_inline.inference.predictor import Predictor  # noqa: E402
from paddle_inline.training.checkpoint import CheckpointError, find_checkpoint, save_weights  # noqa: E402
from paddle_inline.utils.errors import MissingFileError, UserError  # noqa: E402
from paddle_inline.weights import load_adapted, open_weights, read_weights  # noqa: E402
from paddle_inline.weights.description import describe  # noqa: E402

SMALL = {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 8, "num_classes": 3}
SOFT_SMALL = {
    "embed_dims": (32, 32, 64, 64),
    "num_heads": (1, 1, 2, 2),
    "depths": (1, 1, 1, 1),
    "num_classes": 3,
}


def written(path, name, **overrides):
    """The weights of a fresh model, in a file that says what they are; and its logits of some images."""
    model = create_model(name, **overrides)
    model.eval()
    save_weights(path, model.state_dict(), describe(name, overrides))
    return logits(model)


def logits(model):
    model.eval()
    images = np.random.RandomState(0).rand(2, model.spec.in_chans, *model.img_size).astype("float32")
    return model(paddle.to_tensor(images)).numpy()


def test_a_named_model_takes_what_no_tensor_shows_from_its_weights(tmp_path):
    path = tmp_path / "a.pdparams"
    expected = written(path, "inline_deit_digits", **SMALL, kernel_function="relu")
    sizes = {key: SMALL[key] for key in ("depth", "embed_dim", "num_heads")}
    for model in (create_model("inline_deit_digits", path, **sizes), create_model(weights=path)):
        assert model.spec.kernel_function == "relu"
        np.testing.assert_array_equal(logits(model), expected)
    said = "kernel_function='relu', and the model has 'identity'"
    with pytest.raises(UserError, match=re.escape(f"{path} is of a inline_deit_digits with {said}: build")):
        create_model("inline_deit_digits", path, **SMALL, kernel_function="identity")
    model = create_model("inline_deit_digits", **SMALL)
    with pytest.raises(UserError, match=re.escape(said)):
        load_weights(model, path)
    assert load_adapted(model, path) == [f"they were trained with {said}"]
    load_weights(model, read_weights(path))  # asked for


def test_forms_of_attention_and_their_options_are_taken_from_the_weights(tmp_path):
    """Whose tensors do not tell relu from relu2, or how many landmarks there are."""
    for attn_type, options in (("relu2", {}), ("nystrom", {"num_landmarks": 3})):
        path = tmp_path / f"{attn_type}.pdparams"
        form = {"attn_type": attn_type, "attn_options": options}
        expected = written(path, "inline_deit_digits", **SMALL, **form)
        sizes = {key: SMALL[key] for key in ("depth", "embed_dim", "num_heads")}
        for model in (create_model("inline_deit_digits", path, **sizes), create_model(weights=path)):
            assert (model.spec.attn_type, model.spec.attn_options) == (attn_type, options)
            np.testing.assert_array_equal(logits(model), expected)
    with pytest.raises(UserError, match=r"attn_options=\{'num_landmarks': 3\}, and the model has \{\}"):
        create_model("inline_deit_digits", path, **SMALL, attn_type="nystrom", attn_options={})


def test_weights_of_another_model_with_the_same_tensors_are_refused(tmp_path):
    path = tmp_path / "a.pdparams"
    written(path, "soft_norm_tiny", **SOFT_SMALL)
    assert create_model("soft_norm_tiny", path, **SOFT_SMALL).spec.normed
    with pytest.raises(
        UserError, match=r"is of soft_norm_tiny, not of soft_tiny: it has .*; give that name, or none"
    ):
        create_model("soft_tiny", path, **SOFT_SMALL)


def test_the_twin_does_the_same(tmp_path):
    pytest.importorskip("torch")
    import torch_ref
    from convert.conversion import convert

    written(tmp_path / "a.pdparams", "inline_deit_digits", **SMALL, kernel_function="relu")
    convert(tmp_path / "a.pdparams", tmp_path / "a.pth", "torch")
    sizes = {key: SMALL[key] for key in ("depth", "embed_dim", "num_heads")}
    model = torch_ref.create_model("inline_deit_digits", tmp_path / "a.pth", **sizes)
    assert model.spec.kernel_function == "relu"


ARRAYS = {
    name: tensor.numpy() for name, tensor in create_model("inline_deit_digits", **SMALL).state_dict().items()
}


def saved(path, contents):
    path.write_bytes(pickle.dumps(contents, 4))
    return path


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["state_dict", "model", "net", "ema", "weights"]), max_size=3, unique=True),
    st.lists(st.sampled_from(["_layers.", "module.", "model.", "_orig_mod."]), max_size=2),
    st.booleans(),
)
def test_weights_under_keys_and_wrappers(tmp_path_factory, keys, prefixes, optimizer):
    contents = {"".join(prefixes) + name: value for name, value in ARRAYS.items()}
    for key in reversed(keys):
        contents = {key: contents, "epoch": 3}
    if keys and optimizer:
        contents["optimizer"] = {"w_moment1_0": np.ones(3)}
    path = saved(tmp_path_factory.mktemp("wrapped") / "a.pdparams", contents)
    found = open_weights(path)[0]
    assert set(found) == set(ARRAYS)
    assert all((found[name].read() == value).all() for name, value in ARRAYS.items())


def test_what_is_not_one_dictionary_of_weights_is_said(tmp_path):
    path = saved(tmp_path / "a.pdparams", {"student": ARRAYS, "teacher": ARRAYS})
    command = f"python -m convert to-paddle {path} {tmp_path / 'a_model.pdparams'} --take KEY"
    said = f"several dictionaries of weights: student, teacher; take one out of it: {command}"
    with pytest.raises(UserError, match=re.escape(said)):
        open_weights(path)
    with pytest.raises(UserError, match="holds no named weights, only epoch, loss; save the state_dict"):
        open_weights(saved(path, {"epoch": 3, "loss": [1.0]}))
    with pytest.raises(UserError, match="holds a list, not named weights; save its state_dict"):
        open_weights(saved(path, [ARRAYS]))
    other = {f"encoder.{name}": value for name, value in ARRAYS.items()}
    with pytest.raises(
        UserError, match=f"none of its names are the model's: python -m convert inspect {path}"
    ):
        create_model("inline_deit_digits", saved(path, other), **SMALL)


def test_a_predictor_and_a_run_say_what_they_were_given(tmp_path):
    path = saved(tmp_path / "a.pdparams", ARRAYS)
    with pytest.raises(
        MissingFileError, match=f"{path} is a file: a Predictor takes the folder that .*export --weights"
    ):
        Predictor(path)
    with pytest.raises(MissingFileError, match="is an address: a Predictor takes the folder"):
        Predictor("https://example.org/export")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"holds no checkpoint of the training program; it is a folder of checkpoints"
    ):
        find_checkpoint(tmp_path / "hub")


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("inline_deit_digits", {**SMALL, "invented": 1}, "unknown override of inline_deit_digits 'invented'"),
        ("a_model_of_later", SMALL, "unknown model 'a_model_of_later'"),
    ],
)
def test_a_description_of_no_model_here_names_its_file(tmp_path, name, overrides, message):
    path = tmp_path / "a.pdparams"
    save_weights(
        path, {key: paddle.to_tensor(value) for key, value in ARRAYS.items()}, describe(name, overrides)
    )
    with pytest.raises(UserError, match=f"{path} says of what model it is, but: {message}"):
        create_model(weights=path)
    if name == "inline_deit_digits":
        with pytest.raises(UserError, match=f"{path} says of what model it is, but: {message}"):
            create_model(name, path, **SMALL)
