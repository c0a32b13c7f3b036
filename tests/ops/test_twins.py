"""Each op of the two packages on the same numbers: equal to the last bits of float64, gradients too."""

import importlib

import numpy as np
import paddle
import pytest
import torch

HEADS = (2, 3, 12, 4)  # B, h, N, d

CASES = {
    ("tokens", "split_heads"): ([(2, 6, 24)], {"num_heads": 4}),
    ("tokens", "merge_heads"): ([HEADS], {}),
    ("tokens", "tokens_to_map"): ([(2, 12, 5)], {"size": (3, 4)}),
    ("tokens", "map_to_tokens"): ([(2, 5, 3, 4)], {}),
    ("tokens", "concat_tokens"): ([(2, 3, 5), (2, 4, 5)], {}),
    ("tokens", "prepend_token"): ([(1, 1, 5), (2, 4, 5)], {}),
    ("tokens", "mean_tokens"): ([(2, 4, 5)], {}),
    ("inline_attention", "inline_attention"): ([HEADS, HEADS, HEADS], {"scale": 0.5}),
    ("inline_attention", "quadratic_inline_attention"): ([HEADS, HEADS, HEADS], {"scale": 0.5}),
    ("inline_attention", "inline_attention_weights"): ([HEADS, HEADS], {"scale": 0.5}),
    ("inline_attention", "softmax_attention"): ([HEADS, HEADS, HEADS, (3, 12, 12)], {"scale": 0.5}),
    ("inline_attention", "local_residual"): ([(2, 12, 5), (2, 5, 3, 3)], {"size": (3, 4)}),
}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_op_and_its_gradients_are_equal(case):
    module, name = case
    shapes, arguments = CASES[case]
    arrays = [np.random.standard_normal(shape) for shape in shapes]
    ours = [paddle.to_tensor(array, stop_gradient=False) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    op, reference_op = (
        getattr(importlib.import_module(f"{package}.ops.{module}"), name)
        for package in ("paddle_inline", "torch_ref")
    )
    if name == "softmax_attention":  # its fourth tensor, the bias, comes last
        out, reference = (
            op(*ours[:3], **arguments, bias=ours[3]),
            reference_op(*theirs[:3], **arguments, bias=theirs[3]),
        )
    else:
        out, reference = op(*ours, **arguments), reference_op(*theirs, **arguments)
    np.testing.assert_allclose(out.numpy(), reference.detach().numpy(), rtol=1e-13, atol=1e-13)
    factor = np.random.standard_normal(reference.shape)
    (out * paddle.to_tensor(factor)).sum().backward()
    (reference * torch.tensor(factor)).sum().backward()
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12, atol=1e-12)
