"""Optimizers: groups, steps equal to torch's, and state that finds its parameter by name."""

import numpy as np
import paddle
import pytest

from paddle_inline import create_model
from paddle_inline.training.optim import (
    clip_gradients,
    decay_groups,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)


class Net(paddle.nn.Layer):
    """Two equal layers, built in either order: Paddle's own names then differ."""

    NO_DECAY = ("token",)

    def __init__(self, swapped=False):
        super().__init__()
        for name in ("fc2", "fc1") if swapped else ("fc1", "fc2"):
            setattr(self, name, paddle.nn.Linear(4, 4))
        self.token = self.create_parameter([1, 1, 4])

    def forward(self, x):
        return self.fc2(paddle.tanh(self.fc1(x))) + self.token.reshape([1, 4])


def trained(net, steps, name="adamw", state=None, first=0):
    optimizer = make_optimizer(name, net, decay_groups(net, 0.05))
    if state is not None:
        load_optimizer_state(net, optimizer, state)
    for step in range(first, first + steps):
        x = paddle.to_tensor(np.random.RandomState(step).standard_normal((5, 4)).astype("float32"))
        (net(x) ** 2).sum().backward()
        optimizer.set_lr(1e-2)
        optimizer.step()
        optimizer.clear_grad()
    return optimizer


def weights(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_every_parameter_has_one_group():
    groups = {group.rule.split()[0]: group for group in decay_groups(Net(), 0.05)}
    assert groups["named"].names == ["token"] and groups["named"].weight_decay == 0
    assert groups["vectors"].names == ["fc1.bias", "fc2.bias"] and groups["vectors"].weight_decay == 0
    assert groups["all"].names == ["fc1.weight", "fc2.weight"] and groups["all"].weight_decay == 0.05


def test_the_groups_of_a_model():
    model = create_model("inline_deit_digits", depth=1)
    decays = {name: g.weight_decay for g in decay_groups(model, 0.05) for name in g.names}
    assert set(decays) == {name for name, _ in model.named_parameters()}
    no_decay = {"pos_embed", "cls_token"}
    for name, parameter in model.named_parameters():
        assert decays[name] == (0 if parameter.ndim == 1 or name in no_decay else 0.05), name


def test_a_forgotten_parameter_is_an_error():
    net = Net()
    groups = decay_groups(net, 0.05)
    groups[0].names.remove("token")
    with pytest.raises(ValueError, match=r"do not match.*token"):
        make_optimizer("adamw", net, groups)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adam"])
@pytest.mark.parametrize("own", [False, True], ids=["defaults", "others"])
def test_updates_equal_torchs(name, own):
    torch = pytest.importorskip("torch")
    adam = dict(betas=(0.8, 0.95), eps=1e-2) if own else {}
    momentum = 0.6 if own else 0.9
    paddle.set_default_dtype("float64")
    weight = np.random.RandomState(0).standard_normal((3, 2))
    bias = np.random.RandomState(1).standard_normal(2)
    net = paddle.nn.Linear(3, 2)
    net.weight.set_value(weight)
    net.bias.set_value(bias)
    ours = make_optimizer(name, net, decay_groups(net, 0.05), **adam, momentum=momentum)
    w, b = (torch.tensor(v, requires_grad=True) for v in (weight, bias))
    groups = [{"params": [w], "weight_decay": 0.05}, {"params": [b], "weight_decay": 0.0}]
    theirs = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.0, **adam),
        "adam": lambda: torch.optim.Adam(groups, lr=0.0, **adam),
        "sgd": lambda: torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=True),
    }[name]()
    for step in range(30):
        x = np.random.RandomState(step).standard_normal((5, 3))
        rate = 1e-2 / (1 + step)
        (net(paddle.to_tensor(x)) ** 3).mean().backward()
        ours.set_lr(rate)
        ours.step()
        ours.clear_grad()
        theirs.zero_grad()
        ((torch.tensor(x) @ w + b) ** 3).mean().backward()
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
    # Paddle keeps rate and momentum in float32: each step is off by up to 6e-8 of itself for the
    # rate and, as velocities add up to 1 / (1 - 0.9) gradients, by 2.4e-7 for the momentum.
    moved = np.abs(w.detach().numpy() - weight).max()
    close = dict(rtol=0, atol=moved * (6e-8 if name != "sgd" else 3e-7))
    np.testing.assert_allclose(net.weight.numpy(), w.detach().numpy(), **close)
    np.testing.assert_allclose(net.bias.numpy(), b.detach().numpy(), **close)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adam"])
@pytest.mark.parametrize("case", ["same order", "another order", "another model first"])
def test_state_finds_its_parameter_by_name(name, case):
    """The silent failure: Paddle's own state loads fc1's moments into fc2 in the last two cases."""
    net = Net()
    start = weights(net)
    optimizer = trained(net, 3, name)
    middle, state = weights(net), optimizer_state(net, optimizer)
    assert set(state) == set(start)

    straight = Net()
    straight.set_state_dict(start)
    trained(straight, 6, name)

    if case == "another model first":
        paddle.nn.Linear(7, 7)
    resumed = Net(swapped=case == "another order")
    resumed.set_state_dict(middle)
    trained(resumed, 3, name, state, first=3)
    same(weights(straight), weights(resumed))


def test_paddles_own_state_does_go_wrong():
    """What this module is for: by process-wide names the moments change places, with no error."""
    net = Net()
    own = trained(net, 3).state_dict()
    swapped = Net(swapped=True)
    swapped.set_state_dict(net.state_dict())
    names = dict(zip([p.name for p in net.parameters()], [p.name for p in swapped.parameters()]))
    assert names  # same count; the k-th built of one is the k-th built of the other
    order = [n for n, _ in net.named_parameters()], [n for n, _ in swapped.named_parameters()]
    assert order[0] != order[1]
    assert not any("fc1" in key or "fc2" in key for key in own)


def test_state_of_another_model_is_refused_and_changes_nothing():
    net = Net()
    state = optimizer_state(net, trained(net, 2))
    other = Net()
    optimizer = trained(other, 1)
    before = optimizer_state(other, optimizer)
    wrong = {**state, "fc3.weight": state["fc1.weight"]}
    with pytest.raises(ValueError, match=r"\+ fc3.weight"):
        load_optimizer_state(other, optimizer, wrong)
    wrong = {**state, "fc1.weight": {k: v[..., :1] for k, v in state["fc1.weight"].items()}}
    with pytest.raises(ValueError, match=r"! fc1.weight"):
        load_optimizer_state(other, optimizer, wrong)
    del state["token"]
    with pytest.raises(ValueError, match="- token"):
        load_optimizer_state(other, optimizer, state)
    after = optimizer_state(other, optimizer)
    for name in before:
        if name != "token":
            same(before[name], after[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("largest", [None, 1e-3, 1e3])
def test_clipping_is_that_of_the_library(dtype, largest):
    gradients = []
    for clip in (clip_gradients, paddle.nn.utils.clip_grad_norm_):
        paddle.seed(0)
        model = paddle.nn.Linear(5, 7)
        model.to(dtype=dtype)
        (model(paddle.ones([3, 5], dtype)) ** 2).sum().backward()
        of_library = clip is not clip_gradients
        norm = clip(model.parameters(), float("inf") if of_library and largest is None else largest)
        gradients.append([norm.item() if of_library else norm, *model.parameters()])
    (ours, *mine), (theirs, *others) = gradients
    assert ours == pytest.approx(theirs, rel=1e-6)
    for a, b in zip(mine, others):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=2e-6)
    moved = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in mine))
    assert moved == pytest.approx(ours if largest != 1e-3 else 1e-3, rel=1e-3)
