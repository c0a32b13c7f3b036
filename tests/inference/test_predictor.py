"""Images to classes: the training's transform, any number of images, files that cannot be read."""

import concurrent.futures
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

paddle = pytest.importorskip("paddle")

from paddle_inline import create_model  # noqa: E402
from paddle_inline.data.folders import find_images  # noqa: E402
from paddle_inline.data.transforms import eval_transform  # noqa: E402
from paddle_inline.inference import predictor as predict  # noqa: E402
from paddle_inline.inference.backends import PaddleEngine  # noqa: E402
from paddle_inline.inference.engine_process import EngineProcess  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.inference.gallery import page  # noqa: E402
from paddle_inline.inference.predictor import Predictor, read_image  # noqa: E402
from paddle_inline.utils.errors import UserError  # noqa: E402

NAMES = ["zero", "<one>", *"23456789"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = create_model("inline_deit_digits", depth=1)
    export_model(model, folder / "any", classes=NAMES, log=lambda line: None)
    export_model(model, folder / "two", batch=2, log=lambda line: None)
    return model, folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.png", "b.JPG", "more/c.png")):
        pixels = np.random.RandomState(i).randint(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_an_export_and_its_model_answer_alike(exported, photos):
    model, folder = exported
    images = [read_image(path) for path in find_images([photos])]
    from_files, from_model = Predictor(folder / "any")(images), Predictor(model, classes=NAMES)(images)
    assert [[g.name for g in row] for row in from_files] == [[g.name for g in row] for row in from_model]
    for found, expected in zip(from_files, from_model):
        assert len(found) == 5
        assert [g.probability for g in found] == pytest.approx([g.probability for g in expected], abs=1e-5)
        assert found == sorted(found, key=lambda g: -g.probability)


def test_the_transform_is_the_training_one(exported, photos):
    predictor = Predictor(exported[1] / "any")
    image = read_image(photos / "a.png")
    expected = eval_transform(32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))(image, None)
    np.testing.assert_array_equal(predictor.transform(image), expected)


def test_a_program_of_two_serves_any_number(exported):
    _, folder = exported
    images = np.random.RandomState(0).standard_normal((5, 3, 32, 32)).astype("float32")
    expected = Predictor(folder / "any").logits(images)
    np.testing.assert_allclose(Predictor(folder / "two").logits(images), expected, rtol=0, atol=1e-5)
    assert Predictor(folder / "two").logits(images[:0]).shape == (0, 10)


def test_onednn_that_fails_is_left_off_with_a_warning(exported, monkeypatch):
    _, folder = exported
    run = PaddleEngine.__call__
    made = []

    def fail_with_onednn(self, images):
        if made[-1]:
            raise RuntimeError("(Unimplemented) an attribute\n  [Hint: oneDNN]")
        return run(self, images)

    init = PaddleEngine.__init__
    monkeypatch.setattr(
        PaddleEngine,
        "__init__",
        lambda self, *a, onednn, **k: made.append(onednn) or init(self, *a, onednn=onednn, **k),
    )
    monkeypatch.setattr(PaddleEngine, "__call__", fail_with_onednn)
    with pytest.warns(UserWarning, match="left off.*Hint: oneDNN"):
        Predictor(folder / "any", onednn=True).logits(np.zeros((1, 3, 32, 32), "float32"))
    assert made == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorrt"}, "unknown engine"),
        ({"engine": "onnx"}, "holds no ONNX file"),
        ({"engine": "openvino"}, "holds no ONNX file"),
        ({"classes": ["a", "b"]}, "2 class names for a model of 10"),
        ({"device": "gpu:x"}, "device 'gpu:x' must be cpu, gpu or gpu:N"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_what_an_export_does_not_have_is_refused(exported, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor(exported[1] / "any", **options)


def test_the_fastest_engine_that_is_there_is_taken(exported, tmp_path, monkeypatch):
    _, folder = exported
    assert Predictor(folder / "any").engine == "paddle"  # no ONNX file
    card = json.loads((folder / "any" / "card.json").read_text())
    card["files"]["onnx"] = "model.onnx"
    (tmp_path / "card.json").write_text(json.dumps(card))
    for installed, in_float32, in_bfloat16 in (
        ({"openvino", "onnxruntime"}, "openvino", "openvino"),
        ({"onnxruntime"}, "onnx", "paddle"),
        ((), "paddle", "paddle"),
    ):
        monkeypatch.setattr(predict, "find_spec", installed.__contains__ if installed else lambda name: False)
        assert Predictor(tmp_path).engine == in_float32
        assert Predictor(tmp_path, precision="bf16").engine == in_bfloat16
        assert Predictor(tmp_path, device="gpu").engine == "paddle"
    with pytest.raises(ValueError, match="use engine paddle for gpu"):
        Predictor(tmp_path, engine="openvino", device="gpu")
    with pytest.raises(ValueError, match="use paddle or openvino for bf16"):
        Predictor(tmp_path, engine="onnx", precision="bf16")


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        Predictor(tmp_path)


def test_the_page_escapes_names():
    guess = predict.Prediction(1, "<one>", 0.5)
    card = {"model": "<m>", "num_classes": 10, "preprocessing": {"img_size": 32}}
    from pathlib import Path

    text = page(card, [(Path('"x<.png'), Image.new("RGB", (8, 8)), [guess])])
    assert "&lt;one&gt;" in text and "<one>" not in text and "&lt;m&gt;" in text and "&#34;x&lt;.png" in text


@pytest.mark.parametrize("engine", ["exported", "eager"])
def test_threads_may_share_a_predictor(exported, engine):
    model, folder = exported
    images = np.random.RandomState(0).standard_normal((4, 6, 3, 32, 32)).astype("float32")
    alone = Predictor(folder / "any")
    expected = [alone.logits(some) for some in images]
    shared = Predictor(folder / "any" if engine == "exported" else model)
    stdout = os.fstat(1)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, truth in zip(pool.map(shared.logits, images), expected):
                np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5)
    assert (os.fstat(1).st_dev, os.fstat(1).st_ino) == (stdout.st_dev, stdout.st_ino)


def test_two_threads_never_meet_in_an_engine(exported):
    predictor, inside, met = Predictor(exported[1] / "any"), threading.Event(), []

    def engine(images):
        met.append(inside.is_set())
        inside.set()
        time.sleep(0.01)
        inside.clear()
        return np.zeros((len(images), 10), "float32")

    predictor._start = lambda images: engine
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(predictor.logits, [np.zeros((1, 3, 32, 32), "float32")] * 8))
    assert met == [False] * 8


def test_it_takes_paths_arrays_and_images_one_or_several(exported, photos):
    predictor = Predictor(exported[1] / "any")
    path = photos / "a.png"
    image = read_image(path)
    expected = predictor([image])
    for one in (path, str(path), np.asarray(image), image):
        assert predictor(one) == expected
        assert predictor([one, one]) == expected * 2
        assert predictor(iter((one,))) == expected
    assert predictor([]) == []


@pytest.mark.parametrize(
    "given",
    [
        *(None, 1, b"bytes", {"a.png": 1}, [None], [b"bytes"], [["a.png"]], np.zeros((8, 8), "uint8")),
        *(np.zeros((8, 8, 3), "float32"), np.zeros((8, 8, 4), "uint8"), np.zeros((0, 8, 3), "uint8")),
    ],
    ids=repr,
)
def test_what_it_does_not_take_is_answered_with_what_it_takes(exported, given):
    with pytest.raises(TypeError, match="a Predictor takes a path, an array of H x W x 3 uint8"):
        Predictor(exported[1] / "any")(given)


def test_a_batch_of_other_sizes_is_refused_before_the_engine(exported):
    for predictor in (Predictor(exported[1] / "two"), Predictor(exported[0])):
        for shape in ((1, 3, 48, 48), (1, 1, 32, 32), (3, 32, 32)):
            with pytest.raises(ValueError, match="transformed images of shape"):
                predictor.logits(np.zeros(shape, "float32"))


@pytest.mark.parametrize("kind", ["exported", "eager"])
@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
def test_a_predictor_can_be_pickled(exported, photos, kind, called):
    predictor = Predictor(exported[1] / "any" if kind == "exported" else exported[0], classes=NAMES)
    if called:
        predictor(photos / "a.png")
    again = pickle.loads(pickle.dumps(predictor))
    assert again(photos / "a.png") == predictor(photos / "a.png")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_predictor_answers_in_a_forked_process(exported, photos):
    predictors = [Predictor(exported[1] / "any", engine="paddle") for _ in range(2)]
    expected = predictors[0](photos / "a.png")
    busy = [threading.Thread(target=predictor, args=[photos / "a.png"]) for predictor in predictors]
    for thread in busy:  # each leaves threads of the engine behind, which the child has not got
        thread.start()
    for thread in busy:
        thread.join()
    predictors[0]._lock.acquire()  # as by a thread that is in a call

    def in_child():
        answers = [predictors[0](photos / "a.png") for _ in range(2)]
        again = pickle.loads(pickle.dumps(predictors[0]))
        predictors[0]._engine._process.kill()
        with pytest.raises(RuntimeError, match="the engine's process ended with -9"):
            predictors[0](photos / "a.png")
        queue.put([*answers, again.card == predictors[0].card])

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child)
    child.start()
    predictors[0]._lock.release()
    try:
        assert queue.get(timeout=60) == [expected, expected, True]
    finally:
        child.kill()
        child.join()


def test_what_an_engine_raises_in_its_process_is_raised_here(exported):
    process = EngineProcess(Predictor(exported[1] / "two", engine="paddle"))
    with pytest.raises(Exception, match="shape"):
        process(np.zeros((1, 3, 7, 7), "float32"))


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_export_is_refused_by_its_digests(exported, photos, tmp_path, damage):
    shutil.copytree(exported[1] / "any", tmp_path / "any")
    params = tmp_path / "any" / "model.pdiparams"
    data = bytearray(params.read_bytes())
    data[len(data) // 2] ^= 64
    params.write_bytes(data[:500] if damage == "cut" else data)
    if damage == "gone":
        params.unlink()
    with pytest.raises(UserError, match=r"model\.pdiparams.*copy the (whole )?export"):
        Predictor(tmp_path / "any")(photos / "a.png")


def test_the_working_directory_may_change_before_the_first_call(exported, photos, monkeypatch, tmp_path):
    monkeypatch.chdir(exported[1])
    predictor = Predictor("any")
    monkeypatch.chdir(tmp_path)
    assert predictor(photos / "a.png") == Predictor(exported[1] / "any")(photos / "a.png")


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="of a build for CPUs")
@pytest.mark.parametrize("device", ["gpu", "gpu:7"])
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(exported, photos, device):
    with pytest.raises(UserError, match=f"device '{device}': Paddle sees 0 GPUs here, .*paddlepaddle-gpu"):
        Predictor(exported[1] / "any", device=device)(photos / "a.png")
