"""Runs shorter than their warm-up: whatever the settings, they train, and say what rates they reach."""

from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_inline.config.schema import Config
from paddle_inline.training.build import build_schedule
from paddle_inline.training.plan import notes_on_limits


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(["cosine", "linear", "step"]),
    st.sampled_from(["step", "epoch"]),
    *[st.integers(low, high) for low, high in ((1, 5), (0, 7), (0, 4), (1, 3))],
)
def test_the_line_on_the_warm_up_is_right(name, per, epochs, warmup, cooldown, steps):
    config = Config()
    train = config.train
    train.lr_scheduler.name, train.lr_per, train.lr_batch = name, per, None
    train.base_lr, train.warmup_lr, train.min_lr = 1.0, 0.1, 0.01
    train.epochs, train.warmup_epochs, train.cooldown_epochs = epochs, warmup, cooldown
    rate = build_schedule(config, 512, steps)
    rates = [rate(step) for step in range(steps * (epochs + cooldown))]
    assert all(0 < one <= 1 for one in rates)
    said = "".join(note for note in notes_on_limits(config, 512, steps) if "warm-up" in note)
    warm = warmup * steps + (per == "step")  # the first step that is not of the warm-up
    if not warmup or warm < steps * epochs:
        assert not said
    elif warm < len(rates):
        assert "in the cool-down alone" in said
    else:
        assert "stays below train.base_lr" in said and max(rates) < 1
