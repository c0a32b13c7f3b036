"""What OpenVINO is given in place of an ONNX file computes the same, and is changed only where it is as expected."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

from paddle_inline.inference.openvino_graph import openvino_core, simplify  # noqa: E402

HEIGHT, WIDTH, CHANNELS = 3, 4, 5


def shifted(
    batch=2, order=None, fill=0.0, axis=1, double=False, keep_tap=False, swap=(0, 2, 1), edges=1, more=()
):
    """Nine shifted products as paddle2onnx writes them: tokens [B, 12, 5], filters [B, 5, 3, 3] -> [B, 12, 5].

    `more`: what else is made of the tokens, heads [B, 5, 12, 1], other parts [B, 3, 4, 5] and a map [B, 5, 3, 4].
    """
    v = ops.parameter([batch, HEIGHT * WIDTH, CHANNELS], np.float32)
    kernel = ops.parameter([batch, CHANNELS, 3, 3], np.float32)

    def zeros(x, axes, stop):
        edge = ops.slice(x, [0], [stop], [1], [axes])
        return ops.broadcast(
            ops.constant(np.full([1], fill, np.float32)), ops.shape_of(edge), "BIDIRECTIONAL"
        )

    x = ops.reshape(v, [-1, HEIGHT, WIDTH * CHANNELS], True)
    edge = zeros(x, 1, edges)
    x = ops.concat([edge, x, edge], 1)
    edge = zeros(x, 2, CHANNELS)
    x = ops.concat([edge, x, edge], 2)
    flat = ops.transpose(ops.reshape(kernel, [-1, CHANNELS, 9], True), list(swap))
    weights = ops.variadic_split(flat, axis, [1] * 9)
    total, kept = None, []
    for number, (y, shift) in enumerate(order or [(y, s) for y in range(3) for s in range(3)]):
        begin = [y, shift * CHANNELS]
        end = [y + HEIGHT, (shift + WIDTH) * CHANNELS]
        tap = ops.reshape(ops.slice(x, begin, end, [1, 1], [1, 2]), [-1, HEIGHT * WIDTH, CHANNELS], True)
        product = ops.multiply(tap, weights.output(number))
        kept.append(product)
        if double and number == 4:
            product = ops.add(product, product)
        total = product if total is None else ops.add(total, product)
    results = [total, kept[3]] if keep_tap else [total]
    if "heads" in more:
        heads = ops.reshape(v, [-1, HEIGHT * WIDTH, CHANNELS, 1], False)
        results.append(ops.exp(ops.transpose(heads, [0, 2, 1, 3])))
    if "parts" in more:
        parts = ops.reshape(v, [-1, 4, 3, CHANNELS], False)
        results.append(ops.exp(ops.transpose(parts, [0, 2, 1, 3])))
    if "map" in more:
        image = ops.reshape(v, [-1, HEIGHT, WIDTH, CHANNELS], False)
        results.append(ops.exp(ops.transpose(image, [0, 3, 1, 2])))
    return openvino.Model(results, [v, kernel], "shifted")


def kinds(program):
    return Counter(node.get_type_name() for node in program.get_ordered_ops())


def answers(program, *inputs):
    compiled = openvino_core().compile_model(program, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(one) for one in compiled(inputs).values()]


def inputs(batch=2):
    random = np.random.RandomState(0)
    shapes = (batch, HEIGHT * WIDTH, CHANNELS), (batch, CHANNELS, 3, 3)
    return [random.standard_normal(shape).astype("float32") for shape in shapes]


def test_nine_shifted_products_are_one_convolution():
    before, after = shifted(), shifted()
    simplify(after)
    assert kinds(after)["GroupConvolution"] == 1 and kinds(after)["Slice"] == 0
    (expected,), (found,) = answers(before, *inputs()), answers(after, *inputs())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    image, kernel = inputs()
    padded = np.pad(image.reshape(2, HEIGHT, WIDTH, CHANNELS), ((0, 0), (1, 1), (1, 1), (0, 0)))
    truth = sum(  # the definition
        padded[:, y : y + HEIGHT, x : x + WIDTH] * kernel[:, None, None, :, y, x]
        for y in range(3)
        for x in range(3)
    )
    np.testing.assert_allclose(found, truth.reshape(found.shape), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("batch", "more", "from_heads"), [
    (2, ("heads",), True), (1, ("heads",), False), (2, ("heads", "map"), False), (2, (), False),
    (2, ("parts",), False),
])  # fmt: skip
def test_the_map_is_made_of_the_heads_where_that_spares_a_copy(batch, more, from_heads):
    before, after = shifted(batch, more=more), shifted(batch, more=more)
    simplify(after)
    image = next(node for node in after.get_ordered_ops() if node.get_type_name() == "GroupConvolution")
    while image.get_type_name() != "Transpose":
        image = image.input_value(0).get_node()
    assert (image.input_value(1).get_node().get_data().tolist() == [0, 1, 3, 2]) is from_heads
    for found, expected in zip(answers(after, *inputs(batch)), answers(before, *inputs(batch))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "other",
    [
        dict(order=[(y, x) for x in range(3) for y in range(3)]),  # the filter transposed
        dict(fill=1.0),  # padded with ones
        dict(edges=2),  # padded by more
        dict(double=True),  # one product counts twice
        dict(keep_tap=True),  # a product is used elsewhere, too
        dict(batch=-1),  # for any batch
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_not_as_expected_stays(other):
    before, after = shifted(**other), shifted(**other)
    simplify(after)
    assert kinds(after) == kinds(before) and kinds(after)["GroupConvolution"] == 0
    for found, expected in zip(answers(after, *inputs()), answers(before, *inputs())):
        np.testing.assert_array_equal(found, expected)


def means(rows=3, columns=4, first=-2, last=-2, keep=True):
    x = ops.parameter([2, rows * columns, 5], np.float32)
    inner = ops.reduce_mean(ops.reshape(x, [-1, rows, columns, 5], True), [first], False)
    return openvino.Model([ops.reduce_mean(inner, [last], keep)], [x], "means")


@pytest.mark.parametrize("keep", [True, False])
def test_a_mean_of_means_is_one_mean(keep):
    after = means(keep=keep)
    simplify(after)
    assert kinds(after)["ReduceMean"] == 1 and kinds(after)["Reshape"] == 0
    x = np.random.RandomState(0).standard_normal((2, 12, 5)).astype("float32")
    (found,) = answers(after, x)
    np.testing.assert_allclose(found, x.mean(-2, keepdims=keep), rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [dict(first=-3), dict(last=-1)], ids=repr)
def test_means_over_other_dimensions_stay(other):
    after = means(**other)
    simplify(after)
    assert kinds(after)["ReduceMean"] == 2


def test_what_does_nothing_is_left_out():
    """`Identity` of ONNX has no constructor here; a sum with 0 has. One with a row of zeros widens its input."""
    x = ops.parameter([2, 1], np.float32)
    nothing, small, wide = (ops.add(x, ops.constant(np.float32(c))) for c in (0.0, 1e-9, np.zeros((1, 1, 1))))
    program = openvino.Model([ops.relu(one) for one in (nothing, small, wide)], [x], "sums")
    simplify(program)
    assert kinds(program)["Add"] == 2 and [len(one.shape) for one in program.outputs] == [2, 2, 3]


AFTER_ENGINES = """
import contextlib, os, signal, sys
import numpy as np
import openvino
from paddle_inline.inference import backends, openvino_graph
path, way = sys.argv[1:]
core = lambda: openvino.Core().compile_model(path, "CPU")
make, around = {
    "engines": (lambda: [backends.OpenVinoEngine(path) for _ in range(2)], contextlib.nullcontext),
    "cores": (lambda: [core() for _ in range(2)], contextlib.nullcontext),
    "cores of a library": (lambda: [core() for _ in range(2)], openvino_graph.signal_stack_kept),
}[way]
with around():
    first, second = make()
    if way == "engines":
        [each(np.zeros((1, 3), np.float32)) for each in (first, second)], backends.multiplies_bfloat16()
    del first
del second
signal.signal(signal.SIGUSR1, lambda *which: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's stacks for signals")
def test_signals_are_handled_after_engines_in_any_order(tmp_path):
    """One Core a process: of two, the second to end leaves a stack for signals that is gone."""
    x = ops.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([ops.relu(x)], [x], "relu"), str(tmp_path / "m.xml"))
    for way, code in (("engines", 0), ("cores", -11), ("cores of a library", 0)):
        command = [sys.executable, "-c", AFTER_ENGINES, str(tmp_path / "m.xml"), way]
        done = subprocess.run(command, capture_output=True, text=True)
        # where "cores" is 0, OpenVINO has mended it, and `openvino_core` has lost its reason
        assert done.returncode == code, (way, done.stderr)
        assert (done.stdout == "handled\n") == (code == 0)
