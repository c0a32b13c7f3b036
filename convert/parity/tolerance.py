"""The one tolerance table. Errors are relative, by the measures of compare.py; nothing in the environment
changes these numbers.

float64: Paddle rounds its norms' epsilon to float32 even here; with epsilon 1e-5 that alone is worth 3e-10
    on outputs and ten times that on gradients. Anything wrong (an epsilon off by ten, the other GELU) is
    worth 1e-5 and more.
float32: one rounding is 6e-8; the longest sums (tens of thousands of terms) and tens of layers in a row
    multiply it by a few dozen.
bfloat16: one rounding is 4e-3, and so are a few dozen in a row, as far as they do not cancel.
"""

OUTPUT = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 1e-1}
GRADIENT = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 1.0}
# A gradient that is zero by mathematics (a key's bias: subtracting the mean of the keys removes it) holds
# rounding noise; below this share of the network's largest gradient, size is not compared.
GRADIENT_FLOOR = 1e-6
