"""Learning rates against timm's schedulers, step by step."""

import pytest

from paddle_inline.training.schedule import make_schedule, scaled

PER_EPOCH = 7
RECIPES = {
    "default": dict(base=5e-4, warmup=5e-7, floor=5e-6, epochs=30, warmup_epochs=4),
    "pvt": dict(base=5e-4, warmup=1e-6, floor=1e-5, epochs=12, warmup_epochs=5),
    "cswin_384": dict(base=5e-6, warmup=5e-6, floor=5e-7, epochs=20, warmup_epochs=0),
}
COOLDOWN = 3  # epochs beyond the schedule


def rates_of_timm(scheduler_class, recipe, **arguments):
    """The rate of every step when the scheduler is told of each one after it was made."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe["base"])
    scheduler = scheduler_class(
        optimizer,
        warmup_lr_init=recipe["warmup"],
        warmup_t=recipe["warmup_epochs"] * PER_EPOCH,
        warmup_prefix=False,
        t_in_epochs=False,
        **arguments,
    )
    rates = []
    for step in range((recipe["epochs"] + COOLDOWN) * PER_EPOCH):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step)
    return rates


def ours(name, recipe, **arguments):
    rate = make_schedule(name, **recipe, steps_per_epoch=PER_EPOCH, **arguments)
    return [rate(step) for step in range((recipe["epochs"] + COOLDOWN) * PER_EPOCH)]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_cosine_equals_timm(recipe):
    scheduler = pytest.importorskip("timm.scheduler")
    theirs = rates_of_timm(
        scheduler.CosineLRScheduler,
        recipe,
        t_initial=recipe["epochs"] * PER_EPOCH,
        lr_min=recipe["floor"],
        cycle_limit=1,
    )
    assert ours("cosine", recipe) == theirs
    assert theirs[-1] == recipe["floor"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_step_equals_timm(recipe):
    scheduler = pytest.importorskip("timm.scheduler")
    theirs = rates_of_timm(scheduler.StepLRScheduler, recipe, decay_t=3 * PER_EPOCH, decay_rate=0.2)
    assert ours("step", recipe, decay_epochs=3, decay_rate=0.2) == theirs


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_rate_an_epoch_equals_timm(recipe):
    """As timm's own training program steps: `step(epoch + 1)` at an epoch's end."""
    scheduler, torch = pytest.importorskip("timm.scheduler"), pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe["base"])
    theirs = scheduler.CosineLRScheduler(
        optimizer,
        t_initial=recipe["epochs"],
        lr_min=recipe["floor"],
        warmup_lr_init=recipe["warmup"],
        warmup_t=recipe["warmup_epochs"],
        cycle_limit=1,
    )
    rates = []
    for epoch in range(recipe["epochs"] + COOLDOWN):
        rates += [optimizer.param_groups[0]["lr"]] * PER_EPOCH
        theirs.step(epoch + 1)
    assert ours("cosine", recipe, per="epoch") == rates


def test_the_first_step_and_the_one_after_use_the_same_clock():
    rates = ours("cosine", RECIPES["default"])
    assert rates[0] == rates[1] == 5e-7 < rates[2]


def test_linear():
    recipe = RECIPES["default"]
    rates = ours("linear", recipe)
    assert rates[0] == recipe["warmup"]
    assert rates[4 * PER_EPOCH + 1] == max(rates) == recipe["base"]
    middle = 1 + (4 * PER_EPOCH + 30 * PER_EPOCH) // 2
    assert rates[middle] == pytest.approx((recipe["base"] + recipe["floor"]) / 2, rel=1e-12)
    assert rates[30 * PER_EPOCH + 1 :] == [recipe["floor"]] * (COOLDOWN * PER_EPOCH - 1)


def test_rates_scale_with_the_batch():
    assert scaled(5e-4, 1024) == 1e-3
    assert scaled(5e-4, 128) == 1.25e-4
    assert scaled(3.3e-4, 256, None) == 3.3e-4
