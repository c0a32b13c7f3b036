"""Whole models of every form of attention, exported for any batch: no form has to be refused.

`export_model` itself holds the files against the model in each engine that is installed, at batches of 1 and 3.
"""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model, list_attentions  # noqa: E402
from paddle_inline.inference import checks, onnx_export  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402

from .test_export import NO_ONNX, run_here  # noqa: E402

FORMS = list(list_attentions())
OPTIONS = {
    "inline without its filter": ("inline", {"local": False}),
    "linear_relu with it": ("linear_relu", {"local": True}),
}
# What Paddle Inference 2.6 computes wrongly with oneDNN or does not run; the export's check refuses it.
REFUSED = ("l2", "nystrom") if paddle.__version__.startswith("2.") else ()
ALL = {**{form: (form, {}) for form in FORMS}, **OPTIONS}
ENGINES = ["Paddle Inference", "Paddle Inference with oneDNN"]
ENGINES += [] if NO_ONNX else ["ONNX Runtime", "OpenVINO"]


def with_large_weights(model):
    """A model whose attention shows in its logits, as it does not with the weights that it begins with."""
    random = np.random.RandomState(0)
    for parameter in model.parameters():
        noise = random.standard_normal(parameter.shape).astype("float32")
        parameter.set_value(parameter.numpy() + 0.2 * noise)
    return model


def exported(model, folder, monkeypatch):
    """The card of an export for any batch, of which nothing ran in another process."""
    monkeypatch.setattr(checks, "run_python", run_here)
    monkeypatch.setattr(onnx_export, "run_python", run_here)
    return export_model(model, folder, onnx=not NO_ONNX, log=lambda line: None)


def check(card):
    assert [row["engine"] for row in card["checks"]] == ENGINES
    assert all(row["batches"] == [1, 3] and row["error"] < checks.TOLERANCE for row in card["checks"])
    assert card["input"]["shape"][0] is None and card["output"]["shape"][0] is None


@pytest.mark.parametrize("name", ALL)
def test_a_deit_of_every_form(name, tmp_path, monkeypatch):
    form, options = ALL[name]
    sizes = {"embed_dim": 24, "num_heads": 3, "depth": 1, "img_size": 16}
    model = create_model("inline_deit_digits", attn_type=form, attn_options=options, **sizes)
    if form in REFUSED:
        with pytest.raises((checks.ExportError, RuntimeError)):
            exported(with_large_weights(model), tmp_path / "out", monkeypatch)
        assert not (tmp_path / "out").exists()
        return
    check(exported(with_large_weights(model), tmp_path / "out", monkeypatch))
