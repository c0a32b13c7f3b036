"""The flat files of SOFT's program mean its recipe."""

from pathlib import Path

import pytest

from paddle_inline.config.flat_keys import IGNORED, KEYS, OFF
from paddle_inline.config.load import ConfigError, load_config
from paddle_inline.config.schema import known_settings

CONFIGS = Path(__file__).parent.parent.parent / "configs"
MEDIUM = """
model: soft_medium
num_classes: 1000
img_size: 224
batch_size: 32
lr: 3.5e-4
warmup_lr: 1e-6
min_lr: 5e-5
epochs: 300
warmup_epochs: 10
cooldown_epochs: 10
sched: cosine
opt: adamw
opt_eps: 1e-8
opt_betas: [0.9, 0.999]
weight_decay: 0.05
clip_grad: 1.0
drop: 0.0
drop_path: 0.1
smoothing: 0.1
aa: rand-m9-mstd0.5-inc1
color_jitter: 0.4
train_interpolation: random
reprob: 0.25
remode: pixel
mixup: 0.8
cutmix: 1.0
model_ema: true
model-ema-decay: 0.99996
crop_pct: 0.9
interpolation: bicubic
workers: 8
pin_mem: true
jsd: false
lr_noise: null
"""


def read(tmp_path, text, notes=None):
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    return load_config(str(tmp_path / "a.yaml"), notes=notes)


def test_a_file_of_theirs_is_the_published_recipe(tmp_path):
    notes = []
    config = read(tmp_path, MEDIUM, notes)
    expected = load_config(str(CONFIGS / "soft_medium.yaml"))
    assert config.model.num_classes == 1000
    config.model.num_classes = None
    assert config == expected
    assert "cooldown_epochs (scheduled there and never run)" in notes[0] and "pin_mem" in notes[0]
    assert read(tmp_path, "model: soft_medium\nlr: 3.5e-4\nbatch_size: 32\n") == expected


def test_amp_averages_and_other_values(tmp_path):
    config = read(
        tmp_path, "model: soft_tiny\nmodel_ema: false\nnative_amp: true\nclip_grad: null\naa: none\n"
    )
    assert (config.ema.decay, config.amp.level, config.train.clip_grad) == (None, "O1", None)
    assert config.aug.auto_augment == "none"
    config = read(tmp_path, "model: soft_norm_tiny\nmodel_ema_decay: 0.999\nlr: 1e-3\ntrain: {epochs: 3}\n")
    assert (config.model.name, config.ema.decay, config.train.epochs) == ("soft_norm_tiny", 0.999, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr: 1", "unknown key 'lrr' in a flat file of SOFT's program; did you mean 'lr'?"),
        ("jsd: true", "jsd is True, which is not done here"),
        ("tta: 3", "tta is 3, which is not done here"),
        ("opt: lamb", "train.optimizer.name is 'lamb'; it is one of"),
        ("epochs: many", "train.epochs is 'many'; it takes a whole number"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, f"model: soft_tiny\n{text}\n")
    assert message in str(error.value)


def test_every_key_leads_to_a_setting():
    assert set(KEYS.values()) <= set(known_settings())
    assert not set(KEYS) & set(OFF)
    assert set(KEYS) & set(IGNORED) == set()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model: inline_deit_tiny\ntrain: {epochs: 3}\n", "inline_deit_tiny is none of its models"),
        ("model: inline_pvt_tiny\nlr: 1e-3\n", "inline_pvt_tiny is none of its models"),
        ("base: quickstart\nmodel: soft_tiny\n", r"its base .*quickstart\.yaml has sections"),
    ],
)
def test_a_models_name_in_place_of_the_section_is_refused_where_soft_is_not_meant(tmp_path, text, why):
    with pytest.raises(ConfigError, match=rf"a\.yaml: model is .*; but {why}: write model: \{{name: \w+\}}"):
        read(tmp_path, text)


def test_a_flat_file_may_go_on_from_a_flat_one(tmp_path):
    (tmp_path / "b.yaml").write_text("model: soft_tiny\nlr: 1e-3\n", encoding="utf-8")
    config = read(tmp_path, "base: b.yaml\nlr: 2e-3\ntrain: {epochs: 3}\n")
    assert (config.model.name, config.train.base_lr, config.train.epochs) == ("soft_tiny", 2e-3, 3)
