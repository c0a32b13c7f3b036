"""What `python -m paddle_inline predict` gains by reading pictures while the engine runs: pictures a second.

    python benchmarks/predict.py --images 500 --rounds 7

JPEG files of about 500 x 375 pixels, as benchmarks/loader.py makes them, to the five likeliest classes of an exported
model with random weights; in turn, round after round:

    in turn                 one batch is read, the engine runs it, the next one is read: `Predictor(...)(paths)`
    in turn, threads        the same, with a thread a core to read a batch
    overlapped, one stream  a thread a core reads two batches ahead while the engine runs
    overlapped              as `predict` does: the same, and OpenVINO runs several batches at once, if there are many

All have to give the same answers before they are timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import could_not_run, positive, print_table, report
from loader import write_jpegs

from paddle_inline.cli.output import stdout_to_null
from paddle_inline.cli.predict import classify, streams_for
from paddle_inline.data.pictures import read_image
from paddle_inline.inference.predictor import ENGINES, Prediction, Predictor
from paddle_inline.utils.cores import available_cores
from paddle_inline.utils.timing import benchmark_interleaved

TOPK = 5
Answers = list[Sequence[Prediction]]


def export(name: str, engine: str, folder: Path) -> None:
    """Export a model with random weights for an engine."""
    import paddle

    import paddle_inline
    from paddle_inline.inference.export import export_model

    paddle.seed(0)
    model = paddle_inline.create_model(name)
    export_model(model, folder, onnx=engine != "paddle", log=lambda line: None)


def ways(
    folder: Path, paths: list[Path], engine: str, threads: int | None, batch: int
) -> dict[str, Callable[[], Answers]]:
    """Return {form: function that classifies all pictures}, of an export; their number is a multiple of `batch`."""
    predictor = Predictor(folder, engine=engine, threads=threads)
    readers = threads or available_cores()
    parts = [paths[start : start + batch] for start in range(0, len(paths), batch)]

    def read(path: Path) -> np.ndarray:
        return predictor.transform(read_image(path, predictor.mode))

    def in_turn() -> Answers:
        return [*predictor(paths, TOPK, batch)]

    def by_threads() -> Answers:
        with ThreadPoolExecutor(readers) as pool:
            batches = (np.stack(list(pool.map(read, part))) for part in parts)
            return [row for images in batches for row in predictor.likeliest(images, TOPK)]

    def overlapped(predictor: Predictor) -> Answers:
        found = classify(predictor, paths, TOPK, batch, [], thumbnails=False)
        return [row for _, _, row in found]

    runs = {"in turn": in_turn, "in turn, threads": by_threads}
    if predictor.engine != "openvino":
        return {**runs, "overlapped": lambda: overlapped(predictor)}
    streams = streams_for(len(paths), batch, threads)
    several = Predictor(folder, engine=engine, threads=threads, streams=streams)
    return {
        **runs,
        "overlapped, one stream": lambda: overlapped(predictor),
        "overlapped": lambda: overlapped(several),
    }


def check(found: Answers, right: Answers) -> None:
    """Raise ValueError where answers differ from those that are right, in number, class or probability."""
    if len(found) != len(right):
        raise ValueError(f"{len(found)} answers to {len(right)} pictures")
    for number, (one, other) in enumerate(zip(found, right)):
        near = np.allclose([each.probability for each in one], [each.probability for each in other], 1e-3)
        if one[0].index != other[0].index or not near:
            raise ValueError(f"picture {number} is {one[0]}, where {other[0]} is right")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="inline_deit_tiny")
    parser.add_argument("--engine", default="openvino", choices=ENGINES[1:])
    parser.add_argument(
        "--images", type=positive(int), default=500, help="as many as are a multiple of the batch"
    )
    parser.add_argument("--batch-size", type=positive(int), default=8)
    parser.add_argument(
        "--threads", type=positive(int), help="of the engine, and that read; default: the cores"
    )
    parser.add_argument("--rounds", type=positive(int), default=7)
    arguments = parser.parse_args(argv)
    rows: list[dict] = []
    missing: list[str] = []
    batch = arguments.batch_size
    count = max(1, arguments.images // batch) * batch
    with tempfile.TemporaryDirectory() as name:
        exported, pictures = Path(name, "export"), Path(name, "pictures")
        runs: dict[str, Callable[[], Answers]] = {}
        try:
            write_jpegs(pictures, count)
            paths = sorted(pictures.rglob("*.JPEG"))
            with stdout_to_null():  # Paddle's kernels print at their first run
                export(arguments.model, arguments.engine, exported)
                given = ways(exported, paths, arguments.engine, arguments.threads, batch)
                right = given["in turn"]()
        except Exception as error:  # a package is missing, say
            missing.append(could_not_run(f"{arguments.model} by {arguments.engine}", error))
            given = {}
        for form, run in given.items():
            try:
                check(run(), right)
                runs[form] = run
            except Exception as error:  # the others can still be measured
                missing.append(could_not_run(form, error))
        case = {"model": arguments.model, "engine": arguments.engine, "images": count, "batch": batch}
        for form, seconds in benchmark_interleaved(runs, arguments.rounds, warmup=0).items():
            speed = count / seconds["median"]
            rows.append({"form": form, **case, "seconds": seconds, "images_per_second": speed})
    print_table(
        ["form", "images/s", "half of the rounds", "over in turn"],
        [
            [
                row["form"],
                row["images_per_second"],
                f"{count / row['seconds']['high']:.1f} to {count / row['seconds']['low']:.1f}",
                rows[0]["seconds"]["median"] / row["seconds"]["median"],
            ]
            for row in rows
        ],
    )
    report("predict", argv, rows, missing, threads=arguments.threads or available_cores(), topk=TOPK)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
