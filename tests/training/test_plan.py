"""What a run says of itself before it begins is what it does."""

import pytest

from paddle_inline.config.schema import Config
from paddle_inline.training.build import build_schedule
from paddle_inline.training.plan import notes_on_limits, plan


def lines(config, images=1024, steps=10):
    return plan(config, build_schedule(config, images, steps), images, steps)


def test_a_plain_run():
    length, rate, step = lines(Config())
    assert length == "length: 300 epochs, of 10 steps: 3000 steps"
    assert rate == (
        "learning rate: 1e-06 at first, 0.000989 after the warm-up of 20 epochs, 1e-05 in the end (cosine, changed "
        "every step); train.base_lr 0.0005 is for 512 images a step (train.lr_batch), here there are 1024"
    )
    assert step == (
        "every step: gradients cut to a norm of 5, adamw with weight decay 0.05; no average of the weights is kept"
    )


def test_one_epoch_of_one_step():
    config = Config()
    config.train.epochs = config.train.warmup_epochs = 1
    assert lines(config, steps=1)[0] == "length: 1 epoch, of 1 step: 1 step"
    assert "the warm-up of 1 epoch " in notes_on_limits(config, 1024, 1)[0]


def test_a_cool_down_an_average_and_nothing_cut():
    config = Config()
    config.train.cooldown_epochs, config.train.warmup_epochs, config.train.epochs = 10, 0, 6
    config.train.clip_grad, config.train.weight_decay, config.train.lr_batch = None, 0.0, None
    config.ema.decay, config.ema.lr_batch, config.ema.warmup = 0.99, 512, True
    length, rate, step = lines(config)
    assert length == (
        "length: 16 epochs, 6 (train.epochs) and 10 of cool-down at the last rate (train.cooldown_epochs), of 10 "
        "steps: 160 steps"
    )
    assert rate == "learning rate: 0.0005 at first, 5e-06 in the end (cosine, changed every step)"
    assert step == (
        "every step: gradients are not cut, adamw with no weight decay; an average of the weights (EMA) keeps 0.9801 "
        "of itself a step, at most"
    )


def test_a_warm_up_that_is_not_finished_has_no_full_rate():
    config = Config()
    config.train.epochs = 5
    assert "after the warm-up" not in lines(config)[1]


@pytest.mark.parametrize(("epochs", "rises"), [(5, False), (30, True)])
def test_the_rate_is_said_to_rise_to_the_end_only_where_the_warm_up_ends_before(epochs, rises):
    config = Config()
    config.train.base_lr, config.train.epochs = 1e-6, epochs  # below train.min_lr; 20 epochs of warm-up
    said = " ".join(notes_on_limits(config, 512, 10))
    assert ("rises to the end" in said, "is not finished" in said) == (rises, not rises)


def test_a_16_bit_type_without_mixed_precision_is_said_to_do_nothing():
    config = Config()
    assert not any("amp" in note for note in notes_on_limits(config, 512, 10))
    config.amp.dtype = "bfloat16"
    said = [note for note in notes_on_limits(config, 512, 10) if "amp" in note]
    assert len(said) == 1 and said[0].startswith("amp.dtype is bfloat16 and amp.level O0")
    config.amp.level = "O1"
    assert not any("amp" in note for note in notes_on_limits(config, 512, 10))
