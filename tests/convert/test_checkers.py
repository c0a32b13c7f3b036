"""Every check of a conversion is called by what users call: one thing is broken, and it stops at its name."""

import json
from collections import OrderedDict

import numpy as np
import paddle
import pytest
import torch

import paddle_inline
import torch_ref
from convert import conversion, training_run
from convert.checkpoint import ConversionOptions
from convert.conversion import convert
from convert.errors import CheckFailedError, UnfitWeightsError
from convert.formats.select import select_weights
from convert.formats.source import open_source
from convert.formats.write import sidecar_of
from convert.training_run import training_to_paddle, training_to_torch
from paddle_inline.training.checkpoint import check_checkpoint, save_checkpoint
from paddle_inline.training.ema import Ema
from paddle_inline.training.optim import _create_slots, decay_groups, make_optimizer, optimizer_state
from paddle_inline.training.state import Origin, Progress, TrainingState
from paddle_inline.utils.errors import UserError

NAME, SMALL = "inline_deit_digits", {"img_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
SWIN = {
    "depths": (1, 1, 1, 1),
    "embed_dim": 8,
    "num_heads": (1, 1, 1, 1),
    "num_classes": 4,
    "attn_type": "SSSS",
}
NO_CHECK, CHECK = ConversionOptions(verify=False), ConversionOptions()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A file of PyTorch's weights."""
    path = tmp_path_factory.mktemp("plain") / "a.pth"
    torch.manual_seed(0)
    torch.save(torch_ref.create_model(NAME, **SMALL).state_dict(), path)
    return path


def torch_run(path, order=(True, False), averaged=True):
    """Write a training checkpoint of PyTorch; `order`: whether the first and the second group decay."""
    torch.manual_seed(1)
    model = torch_ref.create_model(NAME, **SMALL)
    no_decay = getattr(model, "NO_DECAY", ())
    kinds = {True: [], False: []}
    for name, parameter in model.named_parameters():
        kinds[parameter.ndim > 1 and not any(part in name for part in no_decay)].append(parameter)
    groups = [{"params": kinds[kind], "weight_decay": 0.05 if kind else 0.0} for kind in order]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for _ in range(2):
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    contents = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 1,
        "max_accuracy": 50.0,
    }
    if averaged:
        contents["state_dict_ema"] = {name: value + 1 for name, value in model.state_dict().items()}
        contents["max_accuracy_e"] = 51.0
    torch.save(contents, path)
    return model, optimizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training checkpoint of PyTorch, with averaged weights."""
    path = tmp_path_factory.mktemp("trained") / "run.pth"
    torch_run(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of train_paddle.py, with averaged weights."""
    model = paddle_inline.create_model(NAME, **SMALL)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    _create_slots(optimizer, model.parameters())
    for slots in optimizer._accumulators.values():
        for name, value in slots.items():
            if "pow_acc" not in name and value.shape != [1]:
                value.set_value(paddle.rand(value.shape))
    ema = Ema(model, 0.9)
    ema.average["head.bias"].set_value(paddle.ones([10]))
    state = TrainingState(NAME, SMALL, Progress(1, 1, 60.0, 1, 61.5, 1), steps_per_epoch=1)
    folder = tmp_path_factory.mktemp("checkpoint")
    return (
        save_checkpoint(folder, model=model, optimizer=optimizer, ema=ema, state=state),
        model,
        optimizer,
        ema,
    )


def transposed(model):
    """Return the names of the matrices that Paddle has the other way round: those of PyTorch's `Linear`."""
    return {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}


def changed_by(function, spoil):
    """Return a function that spoils what another returns."""

    def spoiled(*given, **more):
        result = function(*given, **more)
        spoil(result)
        return result

    return spoiled


def raised(state, name, by=1e-3):
    state[name] = state[name] + by


def test_a_moment_that_was_not_written_as_it_is_stops_a_run_on_its_way_to_paddle(
    trained, tmp_path, monkeypatch
):
    def spoiled(folder, *, optimizer, **given):
        moments = next(iter(optimizer._accumulators["moment1"].values()))
        kept = moments.numpy()
        moments.set_value(moments + 1)
        made = save_checkpoint(folder, optimizer=optimizer, **given)
        moments.set_value(kept)
        return made

    monkeypatch.setattr(training_run, "save_checkpoint", spoiled)
    with pytest.raises(CheckFailedError, match="moment1 does not come back bit for bit"):
        training_to_paddle(trained, tmp_path / "run", NO_CHECK)
    assert not list((tmp_path / "run").glob("step_*"))


@pytest.mark.parametrize("which", ["weight", "average"])
def test_weights_that_were_not_written_as_they_are_stop_it_too(trained, tmp_path, monkeypatch, which):
    def spoiled(folder, *, model, ema, **given):
        tensor = model.head.bias if which == "weight" else ema.average["head.bias"]
        kept = tensor.numpy()
        tensor.set_value(tensor + 1)
        made = save_checkpoint(folder, model=model, ema=ema, **given)
        tensor.set_value(kept)
        return made

    monkeypatch.setattr(training_run, "save_checkpoint", spoiled)
    with pytest.raises(CheckFailedError, match=r"head\.bias does not come back bit for bit"):
        training_to_paddle(trained, tmp_path / "run", NO_CHECK)


def test_a_run_that_computes_something_else_in_paddle_is_refused(trained, tmp_path, monkeypatch):
    def spoil(arrays):
        array = arrays["head.bias"]
        arrays["head.bias"] = type(array)(array.shape, array.dtype, lambda: array.read() + np.float32(1))

    monkeypatch.setattr(training_run, "torch_side", changed_by(training_run.torch_side, spoil))
    with pytest.raises(
        CheckFailedError, match="computes something else in the other framework: first at head"
    ):
        training_to_paddle(trained, tmp_path / "run", CHECK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_a_moment_that_was_not_written_as_it_is_stops_a_run_on_its_way_to_pytorch(
    checkpoint, tmp_path, monkeypatch, moment
):
    def spoil(optimizer):
        raised(optimizer["state"][3], moment)

    monkeypatch.setattr(training_run, "torch_optimizer", changed_by(training_run.torch_optimizer, spoil))
    with pytest.raises(CheckFailedError, match=rf"the {moment} of .* does not come back bit for bit"):
        training_to_torch(checkpoint[0], tmp_path / "run.pth", CHECK)
    assert not (tmp_path / "run.pth").exists() and not sidecar_of(tmp_path / "run.pth").exists()


def test_a_run_that_computes_something_else_in_pytorch_is_refused(checkpoint, tmp_path, monkeypatch):
    spoil = lambda state: raised(state, "head.bias")  # noqa: E731
    monkeypatch.setattr(training_run, "_torch_weights", changed_by(training_run._torch_weights, spoil))
    with pytest.raises(CheckFailedError, match="first at head"):
        training_to_torch(checkpoint[0], tmp_path / "run.pth", CHECK)
    assert not (tmp_path / "run.pth").exists()


def test_what_a_run_keeps_on_its_way_to_pytorch(checkpoint, tmp_path):
    folder, model, optimizer, _ = checkpoint
    training_to_torch(folder, tmp_path / "run.pth", NO_CHECK)
    found = torch.load(tmp_path / "run.pth", weights_only=True)
    assert (found["max_accuracy"], found["max_accuracy_e"], found["epoch"]) == (60.0, 61.5, 1)
    assert torch.equal(found["state_dict_ema"]["head.bias"], torch.ones(10))
    np.testing.assert_array_equal(found["model"]["head.bias"].numpy(), model.head.bias.numpy())
    slots, theirs = optimizer_state(model, optimizer), torch_ref.create_model(NAME, **SMALL)
    names, turned = [name for name, _ in theirs.named_parameters()], transposed(theirs)
    decay = {name for group in decay_groups(model, 1.0) if group.weight_decay for name in group.names}
    ordered = [name for name in names if name in decay] + [name for name in names if name not in decay]
    for number, name in enumerate(ordered):
        slot = found["optimizer"]["state"][number]
        for moment, own in (("exp_avg", "moment1"), ("exp_avg_sq", "moment2")):
            value = slots[name][own]
            expected = value.T if name in turned else value
            np.testing.assert_array_equal(slot[moment].numpy(), expected, err_msg=f"{moment} of {name}")
        assert slot["step"] == 1


@pytest.mark.parametrize(
    ("power", "steps"),
    [
        (
            0.0,
            25,
        ),  # worn down by rounding: the steps since it came from PyTorch, and those that AdamW had counted
        (0.999**26, 25),
        (0.999**6, 5),  # a parameter that was left out of some
        (0.999, None),  # that has never been updated
    ],
)
def test_the_steps_that_adamw_has_counted_are_in_pytorch_s_file(tmp_path, power, steps):
    """Of a run that came from PyTorch with 20 steps counted and 10 skipped, and has done 5 more here."""
    model = paddle_inline.create_model(NAME, **SMALL)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    _create_slots(optimizer, model.parameters())
    for value in optimizer._accumulators["beta2_pow_acc"].values():
        value.set_value(paddle.full([1], power))
    origin = Origin([], adam_steps=20, source_step=30)
    state = TrainingState(NAME, SMALL, Progress(7, 35), steps_per_epoch=5, origin=origin)
    made = save_checkpoint(tmp_path, model=model, optimizer=optimizer, state=state)
    training_to_torch(made, tmp_path / "run.pth", NO_CHECK)
    slots = torch.load(tmp_path / "run.pth", weights_only=True)["optimizer"]["state"]
    assert {slot["step"].item() for slot in slots.values()} == ({steps} if steps else set())


@pytest.mark.parametrize("accumulation", [1, 4])
def test_batch_norm_counts_every_batch_since_a_run_came_from_pytorch(tmp_path, accumulation):
    small = {"num_classes": 4, "embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)}
    model = paddle_inline.create_model("soft_digits", **small)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    _create_slots(optimizer, model.parameters())
    counted = [
        name for name in torch_ref.create_model("soft_digits", **small).state_dict() if "tracked" in name
    ]
    origin = Origin([], adam_steps=30, source_step=30, num_batches_tracked={name: 100 for name in counted})
    config = {"train": {"accumulation_steps": accumulation, "epochs": 9}}
    state = TrainingState(
        "soft_digits", small, Progress(7, 35), steps_per_epoch=5, origin=origin, config=config
    )
    made = save_checkpoint(tmp_path, model=model, optimizer=optimizer, state=state)
    training_to_torch(made, tmp_path / "run.pth", NO_CHECK)
    found = torch.load(tmp_path / "run.pth", weights_only=True)["state_dict"]
    assert counted and {found[name].item() for name in counted} == {100 + 5 * accumulation}


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_moments_go_to_their_own_parameters_whichever_group_comes_first(tmp_path, order):
    """One-dimensional parameters of one size can take each other's places."""
    model, optimizer = torch_run(tmp_path / "run.pth", order)
    made = training_to_paddle(tmp_path / "run.pth", tmp_path / "run", NO_CHECK)
    ours, its_optimizer, _, state = training_run._open_run(made)
    slots = optimizer_state(ours, its_optimizer)
    for name, parameter in model.named_parameters():
        for moment, own in (("exp_avg", "moment1"), ("exp_avg_sq", "moment2")):
            value = optimizer.state[parameter][moment].numpy()
            expected = value.T if name in transposed(model) else value
            np.testing.assert_array_equal(slots[name][own], expected, err_msg=f"{moment} of {name}")
        power = slots[name]["beta2_pow_acc"].item()
        assert power == pytest.approx(0.999**3, rel=1e-6)  # of the step that comes next
    assert (state.progress.best_top1, state.progress.best_ema_top1) == (50.0, 51.0)
    assert check_checkpoint(made) == state


def test_negative_second_moments_are_refused(tmp_path):
    torch_run(tmp_path / "run.pth")
    contents = torch.load(tmp_path / "run.pth", weights_only=True)
    contents["optimizer"]["state"][0]["exp_avg_sq"].view(-1)[0] = -1e-30
    torch.save(contents, tmp_path / "run.pth")
    with pytest.raises(UnfitWeightsError, match=r"exp_avg_sq of .* has negative values"):
        training_to_paddle(tmp_path / "run.pth", tmp_path / "run", NO_CHECK)


def test_buffers_that_follow_from_the_sizes_must_be_those_of_the_sizes(tmp_path):
    state = torch_ref.create_model("inline_swin_tiny", **SWIN).state_dict()
    name = "layers.0.blocks.0.attn.relative_position_index"
    assert name in state
    options = ConversionOptions(model="inline_swin_tiny", overrides=SWIN, verify=False)
    torch.save(state, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "a.pdparams", "paddle", options)
    state[name] = state[name].flip(0)
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(
        UnfitWeightsError, match="relative_position_index is not what the model's sizes make it"
    ):
        convert(tmp_path / "b.pth", tmp_path / "b.pdparams", "paddle", options)
    assert not (tmp_path / "b.pdparams").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["paddle", "torch"])
def test_values_that_no_model_has_are_refused_both_ways(tmp_path, value, side):
    model = (torch_ref if side == "paddle" else paddle_inline).create_model(NAME, **SMALL)
    state = model.state_dict()
    if side == "paddle":
        state["head.bias"][3] = value
        torch.save(state, tmp_path / "a.pth")
    else:
        state["head.bias"].set_value(np.full(10, value, "float32"))
        paddle.save(state, str(tmp_path / "a.pdparams"))
    source = tmp_path / ("a.pth" if side == "paddle" else "a.pdparams")
    with pytest.raises(UnfitWeightsError, match=r"head\.bias is NaN or infinite in \d+ value"):
        convert(source, tmp_path / ("b.pdparams" if side == "paddle" else "b.pth"), side, NO_CHECK)


def test_a_stale_description_does_not_outlive_its_file(plain, tmp_path, monkeypatch):
    """A conversion that dies between the file and its sidecar leaves the file alone, not with another's facts."""
    output = tmp_path / "m.pdparams"
    output.write_bytes(b"earlier")
    sidecar_of(output).write_text(json.dumps({"output": {"sha256": "0" * 64}}))

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_sidecar", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(plain, output, "paddle", NO_CHECK)
    assert not sidecar_of(output).exists() and output.read_bytes() != b"earlier"
    assert open_source(output).description["model"] == NAME


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_the_input_under_another_name_is_not_overwritten(plain, tmp_path, link):
    (tmp_path / "a.pth").write_bytes(plain.read_bytes())
    if not hasattr(tmp_path, link):
        pytest.skip("Python 3.9 has no hardlink_to")
    getattr(tmp_path / "b.pth", link)(tmp_path / "a.pth")
    with pytest.raises(UserError, match="is the input"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", "torch", NO_CHECK)
    assert (tmp_path / "a.pth").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("verify", [True, False])
def test_a_conversion_is_verified_unless_that_is_turned_off(plain, tmp_path, monkeypatch, verify):
    checked = []
    monkeypatch.setattr(
        "convert.verify.check", lambda *given, **more: checked.append(more) or {"text": "fine"}
    )
    outcome = convert(plain, tmp_path / "m.pdparams", "paddle", ConversionOptions(verify=verify))
    assert checked == ([{"exact": True}] if verify else [])
    assert outcome.verification == ({"text": "fine"} if verify else {"done": False, "why": "--no-verify"})
    if verify:
        changed = ConversionOptions(num_classes=3)
        convert(plain, tmp_path / "n.pdparams", "paddle", changed)
        assert checked[1] == {"exact": False}


def test_two_averages_in_a_file_the_first_is_taken(tmp_path):
    model = torch_ref.create_model(NAME, **SMALL)
    averages = [OrderedDict((k, v + i) for k, v in model.state_dict().items()) for i in (1, 2)]
    torch.save(
        {"model": model.state_dict(), "state_dict_ema": averages[0], "ema": averages[1]}, tmp_path / "a.pth"
    )
    found = select_weights(open_source(tmp_path / "a.pth"), "ema")
    assert found.taken == "state_dict_ema"
    np.testing.assert_array_equal(found.arrays["head.bias"].read(), averages[0]["head.bias"].numpy())
