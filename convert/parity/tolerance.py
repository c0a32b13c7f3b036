"""The one tolerance table. Errors are relative, by the measures of metrics.py and golden.py; nothing in
the environment changes these numbers.
"""

OUTPUT = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 5e-2}
GRADIENT = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 3e-1}
REASONS = {
    "float64": "One rounding is 1e-16. Measured: outputs 3e-14, gradients 1e-12 (where SOFT inverts). "
    "The rest is room for other machines. Anything wrong, as an epsilon off by ten or the other GELU, is "
    "worth 1e-5 and more; an epsilon rounded to float32, as Paddle's own norms do even here and ours do not, "
    "is worth 3e-10.",
    "float32": "One rounding is 6e-8; tens of layers in a row and sums over thousands of tokens multiply it "
    "by a few dozen. Measured on all models: outputs 3e-6, gradients 2e-4.",
    "bfloat16": "One rounding is 4e-3, and where one goes the other way in one framework it stays for all "
    "layers that follow. Measured on all models: outputs 2e-2, gradients (by their norm) 1e-1.",
}
# A gradient that is zero by mathematics (a key's bias: subtracting the mean of the keys removes it) holds
# rounding noise; below this share of the network's largest gradient, size is not compared.
GRADIENT_FLOOR = 1e-6

# Weights that both sides loaded are the same bits.
WEIGHT = 0.0

# Training steps in float64: of each loss, and of each weight's difference by the weight's norm.
STEP_LOSS, STEP_WEIGHT = 1e-8, 1e-7

# The arbiter: Paddle may stand this many times as far from the float64 truth as PyTorch, plus some ulp.
ARBITER_FACTOR, ARBITER_ULP = 2.0, 4
ULP = {"float32": 2.0**-23, "bfloat16": 2.0**-7}

# Recorded numbers, float64: (outputs, gradients). Measured: 6e-15 and 3e-13, in both frameworks. In float32
# the logits alone are compared.
GOLDEN = {"torch": (1e-10, 1e-10), "paddle": (1e-10, 1e-10)}
GOLDEN_FLOAT32_LOGITS = 5e-6
