"""configs/zoo: the DeiT-T recipe with every form of attention, and nothing else changed."""

from pathlib import Path

import pytest

from paddle_inline import create_model, list_attentions
from paddle_inline.config.load import load_config
from paddle_inline.layers.basic import meta_init

CONFIGS = Path(__file__).parent.parent.parent / "configs"
ZOO = sorted((CONFIGS / "zoo").glob("*.yaml"))


def test_every_form_has_a_file():
    forms = {load_config(str(path)).model.overrides["attn_type"] for path in ZOO}
    assert forms == set(list_attentions())  # inline as a control


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_a_file_changes_the_attention_alone(path):
    config, base = load_config(str(path)), load_config(str(CONFIGS / "inline_deit_t.yaml"))
    overrides, config.model.overrides = config.model.overrides, {}
    assert config == base
    assert overrides["attn_type"] == path.stem or path.stem == {
        "inline": "inline_without_local",
        "linear_relu": "linear_relu_with_local",
    }.get(overrides["attn_type"])
    with meta_init():
        create_model(config.model.name, **overrides)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# DeiT-Tiny with ") and f"--cfg zoo/{path.stem} " in text
    assert len(text.splitlines()) <= 6
