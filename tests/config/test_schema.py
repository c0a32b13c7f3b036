"""The defaults and limits of all settings, and what is on either side of a limit."""

import math

import pytest

from paddle_inline.config.schema import Config, ConfigError, broken_rule, check, known_settings

SHARE = {"minimum": 0, "below": 1}
PART = {"minimum": 0, "maximum": 1}
SOME = {"minimum": 0}
ONE = {"minimum": 1}
PAIR = {"pair": True}

# key: (default, limits)
SETTINGS = {
    "model.name": ("inline_deit_tiny", {}),
    "model.num_classes": (None, ONE),
    "model.in_chans": (3, ONE),
    "model.drop_rate": (0.0, SHARE),
    "model.drop_path_rate": (0.1, SHARE),
    "model.label_smoothing": (0.1, SHARE),
    "model.overrides": ({}, {}),
    "model.pretrained": ("", {}),
    "model.resume": ("", {}),
    "data.dataset": ("imagenet", {"choices": ("imagenet", "cifar10", "cifar100", "digits", "folder")}),
    "data.data_path": ("", {}),
    "data.val_split": (0.0, SHARE),
    "data.batch_size": (128, ONE),
    "data.img_size": (224, {"size": True}),
    "data.interpolation": ("bicubic", {"choices": ("bicubic", "bilinear", "random")}),
    "data.zip_mode": (False, {}),
    "data.num_workers": (8, SOME),
    "data.on_bad_image": ("fail", {"choices": ("fail", "skip", "read")}),
    "data.reduced_decoding": (False, {}),
    "data.mean": ([0.485, 0.456, 0.406], {}),
    "data.std": ([0.229, 0.224, 0.225], {"each_above": 0}),
    "train.epochs": (300, ONE),
    "train.warmup_epochs": (20, SOME),
    "train.cooldown_epochs": (0, SOME),
    "train.base_lr": (5e-4, SOME),
    "train.warmup_lr": (5e-7, SOME),
    "train.min_lr": (5e-6, SOME),
    "train.lr_batch": (512, ONE),
    "train.lr_scaled": ("all", {"choices": ("all", "base")}),
    "train.lr_per": ("step", {"choices": ("step", "epoch")}),
    "train.weight_decay": (0.05, SOME),
    "train.clip_grad": (5.0, SOME),
    "train.accumulation_steps": (1, ONE),
    "train.use_checkpoint": (False, {}),
    "train.sync_bn": (False, {}),
    "train.auto_resume": (False, {}),
    "train.max_bad_losses": (3, ONE),
    "train.lr_scheduler.name": ("cosine", {"choices": ("cosine", "linear", "step")}),
    "train.lr_scheduler.decay_epochs": (30, ONE),
    "train.lr_scheduler.decay_rate": (0.1, PART),
    "train.optimizer.name": ("adamw", {"choices": ("adamw", "sgd", "adam")}),
    "train.optimizer.eps": (1e-8, SOME),
    "train.optimizer.betas": ([0.9, 0.999], PAIR),
    "train.optimizer.momentum": (0.9, {}),
    "aug.scale": ([0.08, 1.0], PAIR),
    "aug.ratio": ([3 / 4, 4 / 3], PAIR),
    "aug.hflip": (0.5, PART),
    "aug.rotation": (0.0, SOME),
    "aug.color_jitter": (0.4, SOME),
    "aug.auto_augment": ("rand-m9-mstd0.5-inc1", {}),
    "aug.reprob": (0.25, PART),
    "aug.remode": ("pixel", {"choices": ("pixel", "rand", "const")}),
    "aug.recount": (1, ONE),
    "aug.mixup": (0.8, SOME),
    "aug.cutmix": (1.0, SOME),
    "aug.cutmix_minmax": (None, PAIR),
    "aug.cutmix_boxes": ("exact", {"choices": ("exact", "timm-0.4")}),
    "aug.mixup_prob": (1.0, PART),
    "aug.mixup_switch_prob": (0.5, PART),
    "aug.mixup_mode": ("batch", {"choices": ("batch", "pair", "elem")}),
    "ema.decay": (None, SHARE),
    "ema.lr_batch": (None, ONE),
    "ema.warmup": (False, {}),
    "amp.level": ("O0", {"choices": ("O0", "O1", "O2")}),
    "amp.dtype": ("float16", {"choices": ("float16", "bfloat16")}),
    "gpu.prefetch": (2, SOME),
    "gpu.fused_update": (True, {}),
    "gpu.fused_attention": (True, {}),
    "gpu.autotune": (True, {}),
    "gpu.tf32": (None, {}),
    "test.crop": (True, {}),
    "test.resize": ("square", {"choices": ("square", "short")}),
    "test.crop_ratio": (0.875, {"minimum": 0.1, "maximum": 1}),
    "test.reduced_decoding": (False, {}),
    "eval_mode": (False, {}),
    "throughput_mode": (False, {}),
    "output": ("output", {}),
    "tag": ("default", {}),
    "seed": (0, SOME),
    "print_freq": (10, ONE),
    "save_freq": (1, ONE),
    "save_steps": (0, SOME),
    "keep_last": (2, ONE),
    "save_optimizer": (False, {}),
    "visualdl": (True, {}),
    "histogram_freq": (0, SOME),
}
LIMITED = [key for key, (_, limits) in SETTINGS.items() if {*limits} & {"minimum", "maximum", "below"}]


def value_of(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


def with_value(key, value):
    config = Config()
    *path, last = key.split(".")
    setattr(value_of(config, ".".join(path)) if path else config, last, value)
    return config


def test_every_setting_has_its_default_and_its_limits():
    config, known = Config(), known_settings()
    assert {key: (value_of(config, key), dict(field.metadata)) for key, field in known.items()} == SETTINGS


def test_defaults_are_not_shared():
    Config().data.mean.append(1.0)
    Config().model.overrides["a"] = 1
    assert Config().data.mean == [0.485, 0.456, 0.406] and Config().model.overrides == {}


@pytest.mark.parametrize("key", LIMITED)
def test_a_limit_itself_is_on_the_side_that_its_name_says(key):
    limits = SETTINGS[key][1]
    for name, inclusive, away in (("minimum", True, -1), ("maximum", True, 1), ("below", False, 1)):
        if name not in limits:
            continue
        limit = float(limits[name])
        inside, outside = math.nextafter(limit, -away * 9e9), math.nextafter(limit, away * 9e9)
        for value, fits in ((inside, True), (limit, inclusive), (outside, False)):
            if fits:
                check(with_value(key, value))
                continue
            with pytest.raises(ConfigError, match=f"{key} is "):
                check(with_value(key, value))


@pytest.mark.parametrize("key", [key for key, (_, limits) in SETTINGS.items() if "choices" in limits])
def test_a_choice_is_one_of_those_that_there_are(key):
    for choice in SETTINGS[key][1]["choices"]:
        check(with_value(key, choice))
    with pytest.raises(ConfigError, match=f"{key} is 'other'; it is one of"):
        check(with_value(key, "other"))


@pytest.mark.parametrize("key", [key for key, (_, limits) in SETTINGS.items() if "pair" in limits])
def test_a_pair_is_two_numbers_the_smaller_one_first(key):
    for value in ([0.5, 0.5], [0.1, 0.2]):
        check(with_value(key, value))
    for value in ([0.2, 0.1], [0.1], [0.1, 0.2, 0.3], []):
        with pytest.raises(ConfigError, match="takes two numbers, the smaller one first"):
            check(with_value(key, value))


def test_rules_that_no_setting_has_yet():
    assert broken_rule(1, {"above": 1}) == "must be above 1" and broken_rule(1.5, {"above": 1}) == ""


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "/a", "a/"])
def test_a_tag_names_one_folder(tag):
    with pytest.raises(ConfigError, match="it names one folder"):
        check(with_value("tag", tag))
    check(with_value("tag", "..a"))
