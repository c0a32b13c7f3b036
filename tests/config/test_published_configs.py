"""The files in configs/ against the published recipes, number by number."""

import math
from pathlib import Path

import pytest

from paddle_inline.config.evaluation import evaluation_transform
from paddle_inline.config.load import Config, load_config
from paddle_inline.data.published import published_transform
from paddle_inline.training.build import build_schedule

CONFIGS = Path(__file__).parent.parent.parent / "configs"
NONE, EMA = None, {"decay": 0.9996, "lr_batch": 4096}

# batch/device, epochs, warm-up, cool-down, base, warm-up and min rate, decay, clip, drop path, size
DEFAULT = (128, 300, 20, 0, 5e-4, 5e-7, 5e-6, 0.05, 5.0, 0.1, 224)
PVT = (128, 300, 5, 10, 5e-4, 1e-6, 1e-5, 0.05, NONE, 0.1, 224)
CSWIN = (128, 300, 20, 10, 5e-4, 1e-6, 1e-5, 0.05, NONE, 0.2, 224)
SOFT = (128, 300, 10, 0, 1e-3, 1e-6, 5e-5, 0.05, 1.0, 0.1, 224)


def but(row, **changes):
    names = [  # as in the table above
        "batch",
        "epochs",
        "warmup",
        "cooldown",
        "base",
        "warm",
        "floor",
        "decay",
        "clip",
        "drop",
        "size",
    ]
    values = {**dict(zip(names, row)), **changes}
    return tuple(values[name] for name in names)


RECIPES = {
    "base_imagenet": ("inline_deit_tiny", DEFAULT),
    "inline_deit_t": ("inline_deit_tiny", but(DEFAULT, batch=512)),
    "inline_deit_s": ("inline_deit_small", but(DEFAULT, size=288)),
    "inline_deit_b": ("inline_deit_base", but(DEFAULT, batch=64, size=448)),
    "inline_pvt_t": ("inline_pvt_tiny", PVT),
    "inline_pvt_s": ("inline_pvt_small", PVT),
    "inline_pvt_m": ("inline_pvt_medium", but(PVT, clip=1.0, drop=0.3)),
    "inline_pvt_l": ("inline_pvt_large", but(PVT, batch=64, clip=1.0, drop=0.3)),
    "inline_swin_t": ("inline_swin_tiny", but(DEFAULT, drop=0.2)),
    "inline_swin_s": ("inline_swin_small", but(DEFAULT, drop=0.3)),
    "inline_swin_b": ("inline_swin_base", but(DEFAULT, batch=64, drop=0.5)),
    "inline_swin_b_384": (
        "inline_swin_base_384",
        (32, 30, 5, 0, 2e-5, 2e-8, 2e-7, 1e-8, 5.0, 0.5, 384),
    ),
    "inline_cswin_t": ("inline_cswin_tiny", CSWIN),
    "inline_cswin_s": ("inline_cswin_small", but(CSWIN, drop=0.4)),
    "inline_cswin_b": ("inline_cswin_base", but(CSWIN, batch=64, decay=0.1, drop=0.5)),
    "inline_cswin_b_384": (
        "inline_cswin_base_384",
        (32, 20, 0, 10, 5e-6, 5e-6, 5e-7, 1e-8, NONE, 0.7, 384),
    ),
}
for size, batch, base, base_norm in (
    ("tiny", 128, 1e-3, 1e-3),
    ("small", 128, 1e-3, 1e-3),
    ("medium", 32, 3.5e-4, 4e-4),
    ("large", 32, 3.3e-4, 3.3e-4),
    ("huge", 32, 2.7e-4, 2.7e-4),
):
    RECIPES[f"soft_{size}"] = (f"soft_{size}", but(SOFT, batch=batch, base=base))
    RECIPES[f"soft_norm_{size}"] = (f"soft_norm_{size}", but(SOFT, batch=batch, base=base_norm))


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_of_the_recipe(name):
    model, row = RECIPES[name]
    config = load_config(str(CONFIGS / f"{name}.yaml"))
    train = config.train
    assert config.model.name == model
    assert row == (
        *(config.data.batch_size, train.epochs, train.warmup_epochs, train.cooldown_epochs),
        *(train.base_lr, train.warmup_lr, train.min_lr, train.weight_decay, train.clip_grad),
        *(config.model.drop_path_rate, config.data.img_size),
    )
    assert config.test.crop is (name != "inline_swin_b_384")
    soft = name.startswith("soft")
    rates = (train.lr_batch, train.lr_scaled, train.lr_per)
    assert rates == ((1024, "base", "epoch") if soft else (512, "all", "step"))
    assert config.data.interpolation == ("random" if soft else "bicubic")
    assert (config.test.resize, config.test.crop_ratio) == (("short", 0.9) if soft else ("square", 0.875))
    transform = published_transform(model, config.data.img_size)
    assert evaluation_transform(config) == transform  # what weights are taken to want that do not say
    average = {"decay": config.ema.decay, "lr_batch": config.ema.lr_batch}
    expected = {"inline_cswin": EMA, "soft": {"decay": 0.99996, "lr_batch": None}}
    found = [value for start, value in expected.items() if name.startswith(start)]
    assert average == (found[0] if found else {"decay": None, "lr_batch": None})
    assert (config.aug.mixup, config.aug.cutmix, config.aug.reprob) == (0.8, 1.0, 0.25)


def cosine(epoch, base, warmup=1e-6, floor=5e-5):
    """The rate of an epoch of 300 with 10 of warm-up, by hand."""
    if epoch < 10:
        return warmup + epoch * (base - warmup) / 10
    return floor + (base - floor) * (1 + math.cos(math.pi * epoch / 300)) / 2


@pytest.mark.parametrize(
    ("name", "ranks", "accumulation", "base"),
    [
        ("soft_tiny", 8, 1, 1e-3),
        ("soft_tiny", 1, 1, 1.25e-4),
        ("soft_medium", 8, 1, 8.75e-5),
        ("soft_medium", 8, 4, 3.5e-4),
        ("soft_norm_medium", 8, 1, 1e-4),
        ("soft_large", 8, 1, 8.25e-5),
        ("soft_huge", 4, 1, 3.375e-5),
        ("soft_norm_huge", 16, 2, 2.7e-4),
    ],
)
def test_soft_s_rates_are_set_once_an_epoch_and_its_base_rate_alone_is_scaled(
    name, ranks, accumulation, base
):
    config = load_config(
        str(CONFIGS / f"{name}.yaml"), assignments=[f"train.accumulation_steps={accumulation}"]
    )
    images = config.data.batch_size * ranks * accumulation
    rate = build_schedule(config, images, 5)
    train = config.train
    assert train.epochs + train.cooldown_epochs == 300  # and no epoch of a cool-down
    found = [[rate(5 * epoch + step) for step in range(5)] for epoch in range(300)]
    assert all(len(set(steps)) == 1 for steps in found)
    assert [steps[0] for steps in found] == pytest.approx([cosine(e, base) for e in range(300)], rel=1e-12)
    assert found[0][0] == 1e-6 and found[299][0] == pytest.approx(5e-5, rel=3e-3)


def test_the_base_file_says_what_the_defaults_are():
    assert load_config(str(CONFIGS / "base_imagenet.yaml")) == Config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_read_and_says_what_it_is_for(path):
    config = load_config(str(path))
    head = path.read_text(encoding="utf-8").split("\n")
    assert head[0].startswith("# ")
    assert config.model.name
    if path.stem != "base_imagenet":
        assert f"--cfg {path.stem}" in "".join(line for line in head if line.startswith("#"))


def test_every_published_model_has_a_file():
    from paddle_inline import list_models

    named = {load_config(str(path)).model.name for path in CONFIGS.glob("*.yaml")}
    assert set(list_models()) <= named
