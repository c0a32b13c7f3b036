"""Settings: inheritance, coercion, every kind of mistake, and the upper-case files."""

import dataclasses

import pytest

from paddle_inline.config import load as module
from paddle_inline.config.evaluation import fit_to_channels
from paddle_inline.config.load import Config, ConfigError, load_config, model_name, to_dict, to_yaml
from paddle_inline.config.schema import known_settings
from paddle_inline.utils.errors import UserError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_the_imagenet_recipe():
    config = load_config()
    train, aug = config.train, config.aug
    assert (train.epochs, train.warmup_epochs, train.cooldown_epochs) == (300, 20, 0)
    assert (train.base_lr, train.warmup_lr, train.min_lr) == (5e-4, 5e-7, 5e-6)
    assert (train.weight_decay, train.clip_grad, train.lr_batch) == (0.05, 5.0, 512)
    assert (train.optimizer.name, train.optimizer.betas) == ("adamw", [0.9, 0.999])
    assert (aug.mixup, aug.cutmix, aug.reprob, aug.remode) == (0.8, 1.0, 0.25, "pixel")
    assert aug.auto_augment == "rand-m9-mstd0.5-inc1"
    assert config.model.label_smoothing == 0.1


def test_a_file_inherits_and_the_command_line_wins(tmp_path):
    write(tmp_path / "a.yaml", "train: {epochs: 30, base_lr: 5e-4}\nseed: 1\n")
    write(tmp_path / "b.yaml", "base: a.yaml\ntrain: {epochs: 40}\nseed: 2\ntag: b\n")
    path = write(tmp_path / "c.yaml", "base: b.yaml\nseed: 3\n")
    config = load_config(path, ["train.epochs", "50", "tag", "opts"], ["tag=flag"])
    assert (config.train.epochs, config.seed, config.tag) == (50, 3, "flag")
    assert config.train.base_lr == 5e-4 and isinstance(config.train.base_lr, float)


def test_bases_in_a_circle_are_an_error(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    path = write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match="circle"):
        load_config(path)


@pytest.mark.parametrize("value", ["5e-4", "5.0e-4", "0.0005", "'5e-4'"])
def test_every_spelling_of_a_float_is_a_float(tmp_path, value):
    from_file = load_config(write(tmp_path / "a.yaml", f"train: {{base_lr: {value}}}\n"))
    from_flag = load_config(assignments=[f"train.base_lr={value}"])
    assert from_file.train.base_lr == from_flag.train.base_lr == 5e-4


def test_values_from_the_command_line():
    config = load_config(
        opts=["train.clip_grad", "None", "train.optimizer.betas", "(0.9, 0.95)"],
        assignments=["data.data_path=/a=b/c", "aug.scale=[0.6, 1]", "train.sync_bn=yes"],
    )
    assert config.train.clip_grad is None
    assert config.train.optimizer.betas == [0.9, 0.95]
    assert config.data.data_path == "/a=b/c"
    assert config.aug.scale == [0.6, 1.0]
    assert config.train.sync_bn is True


def test_texts_stay_as_they_are_typed(tmp_path):
    config = load_config(
        write(tmp_path / "a.yaml", "model: {overrides: {attn_type: '1111'}}\n"),
        ["TAG", "007", "data.data_path", "1e5"],
        ["model.overrides.window_size=28", "model.overrides.depths=[2, 2]"],
    )
    assert (config.tag, config.data.data_path) == ("007", "1e5")
    assert config.model.overrides == {"attn_type": "1111", "window_size": 28, "depths": [2, 2]}


def test_options_of_attention_forms_are_given_in_a_file_and_on_the_command_line(tmp_path):
    options = "{attn_type: agent, attn_options: {num_agents: [9, 16, 49, 49]}}"
    path = write(tmp_path / "a.yaml", f"model: {{overrides: {options}}}\n")
    assert load_config(path).model.overrides["attn_options"] == {"num_agents": [9, 16, 49, 49]}
    config = load_config(path, ["model.overrides.attn_options.num_agents", "9"])
    assert config.model.overrides == {"attn_type": "agent", "attn_options": {"num_agents": 9}}
    assert load_config(write(tmp_path / "b.yaml", to_yaml(config))) == config


def test_nothing_is_evaluated(tmp_path):
    config = load_config(assignments=["tag=__import__('os').getcwd()"])
    assert config.tag == "__import__('os').getcwd()"
    with pytest.raises(ConfigError, match="not looked up"):
        load_config(write(tmp_path / "a.yaml", "data: {data_path: '${oc.env:HOME}'}\n"))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'"),
        ("train.learning_rate=3", "unknown key 'train.learning_rate'"),
        ("base_lr=3", "did you mean 'train.base_lr'"),
        ("zzz=3", "sections are amp, aug, data"),
        ("train=3", "train is a section"),
        ("train.epochs=many", "train.epochs is 'many'; it takes a whole number"),
        ("train.epochs=1.5", "train.epochs is 1.5; it takes a whole number"),
        ("train.base_lr=fast", "train.base_lr is 'fast'; it takes a number"),
        ("train.base_lr=null", "train.base_lr is None; it takes a number"),
        ("train.clip_grad=x", "train.clip_grad is 'x'; it takes a number, or null"),
        ("train.sync_bn=3", "train.sync_bn is 3; it takes true or false"),
        ("aug.scale=3", "aug.scale is 3; it takes a list of numbers"),
        ("aug.scale=[3]", "two numbers"),
        ("data.dataset=mnist", "it is one of imagenet, cifar10"),
        ("data.batch_size=0", "data.batch_size is 0; it must be at least 1"),
        ("model.drop_path_rate=1", "at least 0 and below 1"),
        ("aug.reprob=2", "from 0 to 1"),
        ("train.clip_grad=-1", "at least 0, or null"),
        ("tag=../x", "holds no path"),
        ("model.overrides.img_size=64", "model.overrides.img_size is 64, and a run sets it by data.img_size"),
        ("model.overrides.num_classes=20", "a run sets it by model.num_classes: set that in its place"),
        ("seed", "write KEY=VALUE"),
    ],
)
def test_mistakes_name_the_key_the_value_and_the_rule(assignment, message):
    with pytest.raises(ConfigError) as error:
        load_config(assignments=[assignment])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_opts_without_a_value_is_an_error():
    with pytest.raises(UserError, match="'seed' has no value"):
        load_config(opts=["tag", "x", "seed"])


def test_opts_are_keys_and_values_or_assignments():
    for opts in (["seed", "3", "tag", "a=b"], ["seed=3", "tag=a=b"], ["seed=3", "tag", "a=b"]):
        config = load_config(opts=opts)
        assert (config.seed, config.tag) == (3, "a=b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1", "not valid YAML"),
        ("- 1\n- 2\n", "holds a list"),
        ("train: {epoch: 3}", "did you mean 'train.epochs'"),
        ("train: {epochs: x}", "a.yaml: train.epochs is 'x'"),
        ("base: none.yaml", "no such configuration file"),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path, text, message):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    write(tmp_path / "quickstart.yaml", "seed: 1\n")
    with pytest.raises(ConfigError, match=r"did you mean .*quickstart\.yaml"):
        load_config(str(tmp_path / "quickstrat.yaml"))


def test_yaml_reads_back_to_the_same_settings(tmp_path):
    config = load_config(assignments=["model.overrides.attn_type=S", "train.clip_grad=null"])
    again = load_config(write(tmp_path / "a.yaml", to_yaml(config)))
    assert again == config
    assert module.differences(to_dict(config), to_dict(again)) == []
    other = dataclasses.replace(again, seed=7)
    assert module.differences(to_dict(config), to_dict(other)) == ["seed: 0 -> 7"]


def test_names_that_are_no_utf_8_are_escaped_in_yaml():
    config = load_config("", ["data.data_path", "/d/\udcb5", "model.overrides.name", "\u7535"])
    text = to_yaml(config)
    assert r"data_path: /d/\udcb5" in text and "name: \u7535" in text
    text.encode("utf-8")


LIMITED = {key: known.metadata for key, known in known_settings().items() if known.metadata}


@pytest.mark.parametrize("key", LIMITED)
def test_every_limit_of_a_field_is_enforced(key):
    limits, wrong = LIMITED[key], []
    assert set(limits) <= {"choices", "pair", "minimum", "maximum", "above", "below", "size", "each_above"}
    if "choices" in limits:
        wrong = ["x"]
    if "pair" in limits:
        wrong = ["[1]", "[2, 1]"]
    if "size" in limits:
        wrong = [
            "0",
            "-1",
            "1.5",
            "true",
            "big",
            "null",
            "[]",
            "[32]",
            "[32, 0]",
            "[32, 32, 32]",
            "[[32], 32]",
        ]
    if "each_above" in limits:
        wrong = [f"[1, 1, {limits['each_above']}]"]
    wrong += [limits[name] - 1 for name in ("minimum",) if name in limits]
    wrong += [limits[name] + 1 for name in ("maximum",) if name in limits]
    wrong += [limits[name] for name in ("above", "below") if name in limits]
    assert wrong
    for value in wrong:
        with pytest.raises(ConfigError, match=f"^{key} is "):
            load_config(assignments=[f"{key}={value}"])


def test_as_many_settings_have_limits_as_are_known():
    assert len(LIMITED) == 60
    assert is_config(load_config())


@pytest.mark.parametrize(
    "text, size", [("96", 96), ("[64, 64]", 64), ("[192, 640]", [192, 640]), ("(64,32)", [64, 32])]
)
def test_a_size_is_one_side_or_height_and_width(tmp_path, text, size):
    file = write(tmp_path / "a.yaml", f"data: {{img_size: '{text}'}}")
    theirs = write(tmp_path / "b.yaml", f"DATA: {{IMG_SIZE: {text.replace('(', '[').replace(')', ']')}}}")
    found = [load_config(file), load_config(theirs), load_config(opts=["data.img_size", text])]
    for config in (*found, load_config(write(tmp_path / "c.yaml", to_yaml(found[0])))):
        assert config.data.img_size == size


@pytest.mark.parametrize(
    "channels, given, expected",
    [
        (1, [0.1, 0.2, 0.6], [0.3]),
        (1, [0.5], [0.5]),
        (3, [0.5], [0.5, 0.5, 0.5]),
        (4, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.1]),
        (4, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_mean_and_std_are_fitted_to_the_channels_and_that_is_said(channels, given, expected):
    config = load_config(
        opts=["model.in_chans", str(channels), "data.mean", str(given), "data.std", str(given)]
    )
    notes = fit_to_channels(config)
    assert config.data.mean == pytest.approx(expected) and config.data.std == pytest.approx(expected)
    assert len(notes) == (0 if given == expected else 2)
    assert fit_to_channels(config) == []


@pytest.mark.parametrize("channels, count", [(3, 2), (3, 4), (1, 2), (1, 4), (4, 2)])
def test_mean_and_std_of_other_channels_are_refused(channels, count):
    config = load_config(opts=["model.in_chans", str(channels), "data.mean", str([0.5] * count)])
    with pytest.raises(ValueError, match=rf"{count} values.*for images of {channels} channel"):
        fit_to_channels(config)


def is_config(value):
    return type(value) is Config and dataclasses.is_dataclass(value.train)


UPPER = """
BASE: ['']
MODEL:
  TYPE: inline_swin
  NAME: inline_swin_b_384
  DROP_PATH_RATE: 0.5
  NUM_CLASSES: 1000
  LABEL_SMOOTHING: 0.1
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [2, 2, 18, 2]
    NUM_HEADS: [4, 8, 16, 32]
    WINDOW_SIZE: 96
  LA:
    ATTN_TYPE: IIMS2
DATA:
  IMG_SIZE: 384
  BATCH_SIZE: 32
  PIN_MEMORY: True
  ZIP_MODE: False
  CACHE_MODE: part
TRAIN:
  EPOCHS: 30
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 1e-8
  BASE_LR: 2e-05
  WARMUP_LR: 2e-08
  MIN_LR: 2e-07
  CLIP_GRAD: None
  LR_SCHEDULER:
    NAME: 'cosine'
    DECAY_EPOCHS: 30
  OPTIMIZER:
    NAME: 'AdamW'
    EPS: 1e-8
    BETAS: (0.9, 0.999)
    MOMENTUM: 0.9
AUG:
  COLOR_JITTER: 0.4
  AUTO_AUGMENT: rand-m9-mstd0.5-inc1
  CUTMIX_MINMAX: None
TEST:
  CROP: False
AMP_OPT_LEVEL: O1
SAVE_FREQ: 1
"""


def test_upper_case_files_are_accepted_unchanged(tmp_path):
    config = load_config(write(tmp_path / "a.yaml", UPPER), ["TRAIN.EPOCHS", "31"])
    assert config.model.name == "inline_swin_base_384"
    assert config.model.drop_path_rate == 0.5
    assert config.model.overrides == {
        **{"window_size": 96, "attn_type": "IIMS2", "embed_dim": 128},
        **{"depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
    }
    assert (config.data.img_size, config.data.batch_size) == (384, 32)
    assert config.train.weight_decay == 1e-8
    assert config.train.base_lr == 2e-5
    assert config.train.clip_grad is None
    assert config.train.epochs == 31
    assert config.train.optimizer.name == "adamw"
    assert config.train.optimizer.betas == [0.9, 0.999]
    assert config.aug.cutmix_minmax is None
    assert config.test.crop is False
    assert config.amp.level == "O1"


def test_keys_that_are_not_used_are_named_with_the_reason(tmp_path):
    notes = []
    load_config(write(tmp_path / "a.yaml", UPPER), ["TEST.SHUFFLE", "true"], notes=notes)
    assert notes == [
        "settings not used: DATA.PIN_MEMORY (the loader decides), DATA.CACHE_MODE (files are read when needed), "
        "TEST.SHUFFLE (evaluation is always sequential)"
    ]
    load_config(assignments=["seed=1"], notes=notes)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN: {EPOCH: 3}", "did you mean 'train.epochs'"),
        ("MODEL: {DROP_PATH_RAET: 0.3}", "did you mean 'model.drop_path_rate'"),
        ("TRAIN: {EPOCHS: x}", "train.epochs is 'x'"),
    ],
)
def test_typos_in_upper_case_files_are_errors_too(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path / "a.yaml", text))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("inline_deit_t", "inline_deit_tiny"),
        ("inline_deit_s", "inline_deit_small"),
        ("InLine_DeiT_B", "inline_deit_base"),
        ("inline_pvt_m", "inline_pvt_medium"),
        ("inline_pvt_l", "inline_pvt_large"),
        ("inline_pvt_b", "inline_pvt_large"),
        ("inline_swin_b_384", "inline_swin_base_384"),
        ("inline_cswin_s", "inline_cswin_small"),
        ("inline_deit_tiny", "inline_deit_tiny"),
        ("soft_tiny", "soft_tiny"),
        ("soft_tiny_norm", "soft_norm_tiny"),
        ("resnet50", "resnet50"),
    ],
)
def test_model_names(theirs, ours):
    assert model_name(theirs) == ours


@pytest.mark.parametrize(
    ("model", "name", "overrides"),
    [
        ("{TYPE: inline_pvt_t, NAME: my best run}", "inline_pvt_tiny", {}),
        ("{NAME: inline_pvt_s}", "inline_pvt_small", {}),
        ("{TYPE: inline_swin_t}", "inline_swin_tiny", {"window_size": 7, "attn_type": "IIII"}),
        (
            "{TYPE: inline_swin, NAME: mine, SWIN: {EMBED_DIM: 48, DEPTHS: [1, 1, 2, 1], QKV_BIAS: False, APE: False}}",
            "inline_swin_tiny",
            dict(window_size=7, attn_type="IIII", embed_dim=48, depths=[1, 1, 2, 1], qkv_bias=False),
        ),
        (
            "{TYPE: inline_swin, NAME: inline_swin_b, SWIN: {QK_SCALE: None, WINDOW_SIZE: 56},"
            " INLINE: {ATTN_TYPE: IIIS}}",
            "inline_swin_base",
            {"window_size": 56, "attn_type": "IIIS"},
        ),
    ],
)
def test_the_model_of_a_file_of_theirs(tmp_path, model, name, overrides):
    config = load_config(write(tmp_path / "a.yaml", f"MODEL: {model}\n"))
    assert (config.model.name, config.model.overrides) == (name, overrides)
    assert config.train.auto_resume is True


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{TYPE: inline_swin_t, SWIN: {QK_SCALE: 0.3}}", "MODEL.SWIN.QK_SCALE is 0.3"),
        ("{TYPE: inline_swin_t, SWIN: {APE: True}}", "MODEL.SWIN.APE is True"),
        ("{TYPE: inline_swin_t, SWIN: {EMBED_DIMM: 96}}", "MODEL.SWIN.EMBED_DIMM is no key"),
        ("{TYPE: inline_swin_t, SWIN: {PATCH_SIZE: 2}}", "MODEL.SWIN.PATCH_SIZE is 2"),
        (
            "{TYPE: inline_deit_t, VIT: {DEPTH: 3}}",
            "the sizes of a model stand in DEIT, PVT, SWIN, CSWIN, SOFT, not in VIT",
        ),
        ("{TYPE: inline_swin_t, WINDOWS: 3}", "unknown key 'model.windows'"),
        ("{TYPE: inline_swin, NAME: mine}", "a family, and MODEL.NAME 'mine' is no model of it"),
        ("{TYPE: resnet, NAME: mine}", "name no model"),
    ],
)
def test_what_of_a_model_cannot_be_built_is_refused_by_name(tmp_path, model, message):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path / "a.yaml", f"MODEL: {model}\n"))
    assert message in str(error.value)


def test_what_their_files_mean_without_saying_it(tmp_path):
    config = load_config(write(tmp_path / "a.yaml", "MODEL: {TYPE: inline_cswin_t}\nEVAL_MODE: True\n"))
    assert (config.ema.decay, config.ema.lr_batch) == (0.9996, 4096)
    assert config.eval_mode is True and config.train.auto_resume is True
    config = load_config(
        write(
            tmp_path / "a.yaml",
            "MODEL: {TYPE: inline_cswin_t}\nTRAIN: {AUTO_RESUME: False, CLIP_GRAD: 0.0}\n",
        ),
        ["AMP", "True"],
    )
    assert config.train.auto_resume is False and config.train.clip_grad == 0 and config.amp.level == "O1"
    assert load_config(write(tmp_path / "b.yaml", "TRAIN: {EPOCHS: 9}\n")).train.auto_resume is False


FULL = """
MODEL:
  TYPE: inline_deit_t
  DEIT: {QKV_BIAS: True, PATCH_SIZE: 16}
  SWIN: {EMBED_DIM: 96, DEPTHS: [2, 2, 6, 2], NUM_HEADS: [3, 6, 12, 24], WINDOW_SIZE: 7, APE: False, QK_SCALE: null}
  CSWIN: {EMBED_DIM: 64, SPLIT: [1, 2, 7, 7]}
  PVT: {LA_SR_RATIOS: '1111'}
"""


def test_a_file_written_out_in_full_means_its_own_family(tmp_path):
    notes = []
    config = load_config(write(tmp_path / "a.yaml", FULL), notes=notes)
    assert (config.model.name, config.model.overrides) == ("inline_deit_tiny", {"patch_size": 16})
    for section in ("SWIN", "CSWIN", "PVT"):
        assert f"MODEL.{section} (of another family)" in notes[0]
    pvt = FULL.replace("inline_deit_t", "inline_pvt_t").replace("DEIT", "SWINV2")
    assert load_config(write(tmp_path / "a.yaml", pvt)).model.overrides == {"la_sr_ratios": [1, 1, 1, 1]}
    with pytest.raises(
        ConfigError, match=r"MODEL\.DEIT\.QKV_BIAS is False; inline_deit_tiny can be built with True"
    ):
        load_config(write(tmp_path / "a.yaml", FULL.replace("QKV_BIAS: True", "QKV_BIAS: False")))


def test_the_command_line_names_the_model_of_a_file_of_theirs_by_its_type(tmp_path):
    path = write(tmp_path / "a.yaml", "MODEL: {TYPE: inline_deit_t, NAME: mine}\n")
    assert load_config(path, ["MODEL.TYPE", "inline_pvt_s"]).model.name == "inline_pvt_small"
    assert load_config(path, [], ["MODEL.TYPE=inline_swin_t"]).model.overrides["window_size"] == 7
    assert load_config(path, ["MODEL.NAME", "another label"]).model.name == "inline_deit_tiny"
    assert load_config(path, [], ["model.name=inline_pvt_small"]).model.name == "inline_pvt_small"
    with pytest.raises(ConfigError, match=r"MODEL\.NAME is a label; name the model with MODEL\.TYPE"):
        load_config(path, ["MODEL.NAME", "inline_pvt_s"])
    ours = write(tmp_path / "b.yaml", "model: {name: inline_deit_tiny}\n")
    for key in ("MODEL.NAME", "MODEL.TYPE"):
        config = load_config(ours, [key, "inline_pvt_s"])
        assert config.model.name == "inline_pvt_small" and not config.train.auto_resume


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("AMP: True\nAMP_OPT_LEVEL: ''\n", "O1"),
        ("AMP_OPT_LEVEL: ''\nAMP: True\n", "O1"),
        ("AMP: True\nAMP_OPT_LEVEL: null\n", "O1"),
        ("AMP: False\nAMP_OPT_LEVEL: ''\n", "O0"),
        ("AMP_OPT_LEVEL: O2\n", "O2"),
    ],
)
def test_mixed_precision_of_their_files(tmp_path, text, level):
    assert load_config(write(tmp_path / "a.yaml", text)).amp.level == level


def test_sections_without_keys_set_nothing(tmp_path):
    text = "MODEL: {TYPE: inline_deit_t, SWIN: {}}\nTRAIN:\nAUG: null\n"
    assert load_config(write(tmp_path / "a.yaml", text)).model.name == "inline_deit_tiny"
