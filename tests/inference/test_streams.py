"""Several batches at once in OpenVINO: each picture has its own answer, in its place."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

openvino = pytest.importorskip("openvino")
pytest.importorskip("paddle2onnx")
paddle = pytest.importorskip("paddle")

from paddle_inline import Predictor, create_model  # noqa: E402
from paddle_inline.cli import predict  # noqa: E402
from paddle_inline.inference.backends import OpenVinoEngine  # noqa: E402
from paddle_inline.inference.export import export_model  # noqa: E402
from paddle_inline.utils.errors import UserError  # noqa: E402

PICTURES, UNREADABLE = 13, (0, 5, 6, 7)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams") / "export"
    paddle.seed(0)
    export_model(
        create_model("inline_deit_digits", depth=1), folder, batch=None, onnx=True, log=lambda line: None
    )
    return folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    paths = [folder / f"{number:02}.png" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        if number in UNREADABLE:
            path.write_text("no picture")
        else:
            Image.fromarray(rng.randint(0, 256, (40, 40, 3), np.uint8)).save(path)
    return paths


def test_threads_that_call_at_once_have_their_own_answers(exported):
    images = np.random.RandomState(0).standard_normal((24, 3, 32, 32)).astype("float32")
    expected = Predictor(exported, engine="openvino").logits(images)
    parts = [images[start : start + 2] for start in range(0, 24, 2)]
    engine = Predictor(exported, engine="openvino", streams=3)._start(parts[0])
    meet = threading.Barrier(3, timeout=60)

    def run(images):
        meet.wait()  # nobody goes on before three are here
        return engine(images)

    with ThreadPoolExecutor(3) as pool:
        found = np.concatenate(list(pool.map(run, parts)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert engine.options["NUM_STREAMS"] == 3 and engine.options["PERFORMANCE_HINT"] == "THROUGHPUT"


@pytest.mark.parametrize("streams", [1, 2])
def test_as_many_run_at_once_as_there_are_streams(exported, monkeypatch, streams):
    inside, most, lock, meet = [0], [0], threading.Lock(), threading.Barrier(streams, timeout=60)
    predictor = Predictor(exported, engine="openvino", streams=streams)
    images = np.zeros((1, 3, 32, 32), np.float32)
    right = predictor.run(images)

    class Request:
        def infer(self, *given, **more):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            meet.wait()  # until as many are inside as there may be
            with lock:
                inside[0] -= 1
            return [right]

    free = predictor._engine.requests[1]
    assert free.qsize() == streams
    for _ in range(streams):
        free.get()
        free.put(Request())
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(predictor.run, [images] * 8))) == 8
    assert most[0] == streams and free.qsize() == streams


def test_an_engine_that_raises_can_be_called_again(exported):
    predictor = Predictor(exported, engine="openvino", streams=2)
    images = np.zeros((1, 3, 32, 32), np.float32)
    expected = predictor.run(images)
    for _ in range(3):
        with pytest.raises(Exception, match=r"(?i)shape|size|dimension"):
            predictor._engine(np.zeros((1, 4, 5, 6), np.float32))
    np.testing.assert_allclose(predictor.run(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 13])
def test_the_command_s_answers_are_those_of_one_stream(exported, paths, batch_size):
    def answers(streams):
        predictor, unreadable = Predictor(exported, engine="openvino", streams=streams), []
        likeliest, later, first = predictor.likeliest, threading.Event(), [True]

        def the_first_batch_comes_late(images, topk):
            if streams > 1 and first and first.pop():
                later.wait(5)  # for the second
            found = likeliest(images, topk)
            later.set()
            return found

        predictor.likeliest = the_first_batch_comes_late
        found = [*predict.classify(predictor, paths, 3, batch_size, unreadable, thumbnails=True)]
        return found, unreadable

    (one, left_out), (several, too) = answers(1), answers(3)
    assert left_out == too == [paths[number] for number in UNREADABLE]
    assert [path for path, _, _ in several] == [path for path in paths if path not in left_out]
    for (path, small, row), (other, thumbnail, expected) in zip(several, one):
        assert path == other and small.tobytes() == thumbnail.tobytes()
        assert [each.index for each in row] == [each.index for each in expected]
        np.testing.assert_allclose(
            [each.probability for each in row], [each.probability for each in expected], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("pictures", "batch_size", "threads", "cores", "streams"),
    [
        (1, 8, None, 2, 1),
        (8, 8, None, 2, 1),
        (9, 8, None, 2, 1),
        (57, 8, None, 2, 2),
        (500, 8, None, 16, 4),
        (500, 8, 1, 16, 1),
        (0, 8, 3, 3, 1),
    ],
)
def test_few_batches_have_one_stream(monkeypatch, pictures, batch_size, threads, cores, streams):
    monkeypatch.setattr(predict, "available_cores", lambda: cores)
    assert predict.streams_for(pictures, batch_size, threads) == streams


@pytest.mark.parametrize("streams", [0, -1, 1.5, "2", None])
def test_what_is_no_positive_number_of_streams_is_refused(exported, streams):
    with pytest.raises(UserError, match="give a whole number from 1, which is one batch at a time"):
        Predictor(exported, streams=streams)
    with pytest.raises(UserError, match="give a whole number from 1"):
        OpenVinoEngine(exported / "model.onnx", streams=streams)


def test_streams_share_the_threads_evenly(monkeypatch):
    def of(threads):
        return predict.streams_for(10_000, 8, threads)

    assert [of(threads) for threads in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)] == [1, 2, 3, 4, 1, 3, 1, 4, 2, 4]


def test_what_the_source_raises_comes_after_all_that_was_before_it():
    def items():
        yield from range(4)
        raise KeyError("the fifth")

    for ahead in (1, 3, 9):
        found = []
        with pytest.raises(KeyError, match="the fifth"):
            for one in predict.in_order(lambda item: item * 10, items(), 2, ahead):
                found.append(one)
        assert found == [0, 10, 20, 30]


def test_an_answer_does_not_wait_for_the_next_picture_to_be_read():
    read = []

    def items():
        for item in range(9):
            read.append(item)
            yield item

    answers = predict.in_order(lambda item: item, items(), 2, ahead=3)
    assert next(answers) == 0 and read == [0, 1, 2]
    assert list(answers) == list(range(1, 9))
