"""timm finds and builds the reference models."""

import pytest
import timm

import torch_ref
from torch_ref.timm_registry import register_with_timm


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_with_timm()


def test_every_model_is_listed():
    assert set(torch_ref.list_models()) <= set(timm.list_models())


def test_overrides_pass_through():
    model = timm.create_model("inline_deit_digits", num_classes=3, in_chans=1, img_size=16)
    assert (model.spec.num_classes, model.spec.in_chans, model.spec.img_size) == (3, 1, 16)


def test_pretrained_says_what_to_do():
    with pytest.raises(ValueError, match="inline_deit_digits has no weights to download; pass weights=FILE"):
        timm.create_model("inline_deit_digits", pretrained=True)
