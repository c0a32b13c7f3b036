"""What a Predictor is given: any form that means one picture is read alike, any other is named with the way out."""

import copy
import io
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model  # noqa: E402
from paddle_inline.inference.predictor import Predictor  # noqa: E402
from paddle_inline.utils.errors import FileAccessError, MissingFileError, UserError, WrongTypeError  # noqa: E402

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 15, 3), np.uint8)
SMALL = {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 8, "num_classes": 3}


@pytest.fixture(scope="module")
def model():
    return create_model("inline_deit_digits", **SMALL)


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(PIXELS).save(path)
    return path


def read_only(pixels):
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


ALIKE = {
    "text": str,
    "path": pathlib.Path,
    "pure path": pathlib.PurePosixPath,
    "numpy's text": lambda path: np.str_(path),
    "array": lambda path: PIXELS,
    "read-only": lambda path: read_only(PIXELS),
    "Fortran's order": lambda path: np.asfortranarray(PIXELS),
    "strided": lambda path: np.repeat(PIXELS, 2, 0)[::2],
    "turned twice": lambda path: PIXELS[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "big-endian": lambda path: PIXELS.astype(">u1"),
    "picture": lambda path: Image.fromarray(PIXELS),
    "picture not yet read": Image.open,
    "list": lambda path: [PIXELS],
    "generator": lambda path: (pixels for pixels in [PIXELS]),
    "batch": lambda path: PIXELS[None],
    "set": lambda path: {str(path)},
    "values": lambda path: {"a": PIXELS}.values(),
}


@pytest.mark.parametrize("form", ALIKE)
def test_forms_of_one_picture_are_answered_alike(predictor, file, form):
    assert predictor(ALIKE[form](file), topk=3) == predictor(PIXELS, topk=3)


OTHERS = {
    "bytes of a file": (
        lambda: b"\x89PNG",
        WrongTypeError,
        r"not bytes: .*PIL\.Image\.open\(io\.BytesIO\(DATA\)\)",
    ),
    "memoryview": (lambda: memoryview(PIXELS), WrongTypeError, "not memoryview"),
    "open file": (
        lambda: io.BytesIO(b"x"),
        WrongTypeError,
        r"an open file \(BytesIO\).*PIL\.Image\.open\(FILE\)",
    ),
    "open file in a list": (lambda: [io.BytesIO(b"x")], WrongTypeError, "an open file"),
    "open text": (lambda: io.StringIO("a\nb"), WrongTypeError, "an open file"),
    "dictionary": (lambda: {"a": PIXELS}, WrongTypeError, r"a dict: give its values\(\)"),
    "list in a list": (lambda: [[PIXELS]], WrongTypeError, "a list in a list: give one list"),
    "tensor": (lambda: paddle.to_tensor(PIXELS), WrongTypeError, r"a Tensor: give its numpy\(\)"),
    "number": (lambda: 3, WrongTypeError, "not a int"),
    "nothing": (lambda: None, WrongTypeError, "not a NoneType"),
    "address": (
        lambda: "https://example.org/a.jpg",
        MissingFileError,
        "https://example.org/a.jpg: it is an address",
    ),
    "data address": (lambda: "data:image/png;base64,AAAA", MissingFileError, "it is an address"),
    "empty text": (lambda: "", FileAccessError, "'' is a folder"),
    "folder": (lambda: "/", FileAccessError, "'/' is a folder, not an image: give the paths of its images"),
    "long name": (lambda: "x" * 5000, MissingFileError, "no image xxxx"),
    "zero byte": (lambda: "a\0b", MissingFileError, "no image"),
}


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_no_picture_is_named(predictor, form):
    make, error, message = OTHERS[form]
    with pytest.raises(error, match=message):
        predictor(make())


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from(["uint8", "int64", "float32", "float64", "uint16", "bool", "complex64", "U3", "object"]),
)
def test_an_array_of_another_kind_is_refused_never_guessed(predictor, shape, dtype):
    array = np.zeros(shape, dtype)
    batch = array if array.ndim == 4 else array[None]
    good = dtype == "uint8" and batch.ndim == 4 and batch.shape[-1] == 3 and batch[0:1].size
    if good or (array.ndim == 4 and not len(array)):
        assert len(predictor(array)) == len(batch)
    else:
        with pytest.raises(WrongTypeError, match="H x W x 3 uint8"):
            predictor(array)


WRONG = {
    "topk": ({"topk": "5"}, "topk is a str; give a whole number"),
    "topk of a fraction": ({"topk": 2.5}, "topk is a float"),
    "batch": ({"batch_size": None}, "batch_size is a NoneType"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_of_a_call_are_checked(predictor, name):
    given, message = WRONG[name]
    with pytest.raises(WrongTypeError, match=message):
        predictor(PIXELS, **given)


OPTIONS = {
    "threads": ({"threads": "4"}, "threads is '4'"),
    "device": ({"device": None}, "device None must be cpu"),
    "precision": ({"precision": "fp16"}, "unknown precision 'fp16'"),
    "classes": ({"classes": "abc"}, "classes is a str; give a list of names"),
    "classes by number": ({"classes": {0: "a"}}, "classes is a dict"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_checked_before_the_first_call(model, name):
    options, message = OPTIONS[name]
    with pytest.raises(UserError, match=message):
        Predictor(model, **options)


def test_classes_of_any_sequence(model):
    for classes in (np.array(["a", "b", "c"]), ("a", "b", "c"), (name for name in "abc")):
        assert {one.name for one in Predictor(model, classes=classes)(PIXELS)[0]} == {"a", "b", "c"}


def test_transform_and_logits_say_what_they_take(predictor):
    with pytest.raises(WrongTypeError, match="transform takes a PIL image, not a ndarray"):
        predictor.transform(PIXELS)
    with pytest.raises(UserError, match=r"transformed images of shape \[1, 12, 15, 3\]"):
        predictor.logits([PIXELS])


def test_a_model_is_left_as_it_was(model):
    """Its layers' modes, also where some are frozen in eval mode or the call fails; its precision is its own."""
    mine = create_model("inline_deit_digits", **SMALL)
    mine.train()
    mine.blocks[0].eval()
    modes = [layer.training for layer in mine.sublayers(include_self=True)]
    predictor = Predictor(mine)
    predictor(PIXELS)
    assert [layer.training for layer in mine.sublayers(include_self=True)] == modes
    double = Predictor(copy.deepcopy(model).to(dtype="float64"))
    single = [one.probability for one in Predictor(model)(PIXELS, topk=3)[0]]
    assert [one.probability for one in double(PIXELS, topk=3)[0]] == pytest.approx(single, abs=1e-6)
    paddle.enable_static()
    try:
        with pytest.raises(UserError, match=r"call paddle\.disable_static\(\) first"):
            predictor(PIXELS)
    finally:
        paddle.disable_static()


def test_a_generator_that_fails_leaves_a_predictor_that_works(predictor):
    def pictures(error):
        yield PIXELS
        if error:
            raise error
        predictor(PIXELS)  # while another call is at work
        yield PIXELS

    with pytest.raises(KeyError):
        predictor(pictures(KeyError("mine")), batch_size=1)
    assert len(predictor(pictures(None), batch_size=1)) == 2
