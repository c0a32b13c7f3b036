"""Classify pictures on all machines of a Ray cluster, or on all cores of this one, by an exported model.

    python examples/predict_ray.py PICTURES... --export DIR --output OUT
    python examples/predict_ray.py shards/*.parquet --column image --name key --export DIR --output OUT

The pictures are cut into partitions, in their order; a Predictor in each of `--actors` processes answers them, and
writes OUT/part-00000.jsonl and so on: a line a picture, {"image": ..., "classes": [...]} as in `python -m
paddle_inline predict --json`, or {"image": ..., "error": ...} where it cannot be read. A partition's file is whole or
not there, and always has the same bytes, however often Ray tries it: each picture is answered exactly once. The same
command goes on after a kill with the partitions that are missing.

On a cluster, PICTURES, DIR and OUT are on storage that all machines share, under the same path, and each machine has
paddle_inline, ray and pyarrow installed; start it on the head with `--address auto`.

Exit code 0: all answered; 1: some pictures could not be read; 2: a mistake in the call, with one message.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paddle_inline import Predictor
from paddle_inline.data.folders import find_images
from paddle_inline.data.pictures import UnreadableImage, read_image, read_rgb
from paddle_inline.inference.card import CARD, read_card
from paddle_inline.training.lock import locked
from paddle_inline.utils.cores import available_cores
from paddle_inline.utils.errors import UserError, counted
from paddle_inline.utils.streams import escaped, forgiving_streams, readable
from paddle_inline.weights.atomic import atomic_write, sha256

PLAN = "plan.json"  # what OUT is an answer to: the same for all its partitions
SECONDS_BETWEEN_LINES = 10
Partition = dict[str, Any]


class Classifier:
    """An actor: one Predictor, which answers the partitions that it is given and writes their files."""

    def __init__(self, export: str, output: str, threads: int, topk: int, batch_size: int) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        self.predictor = Predictor(export, threads=threads)
        self.output, self.topk, self.batch_size = Path(output), topk, batch_size

    def __call__(self, partitions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer partitions, JSON texts under "partition"; returns their numbers of pictures and of unreadable ones."""
        done = [self.answer(json.loads(text)) for text in partitions["partition"]]
        return {"pictures": np.array([n for n, _ in done]), "unreadable": np.array([bad for _, bad in done])}

    def answer(self, partition: Partition) -> tuple[int, int]:
        """Write the file of one partition, whole; returns its number of pictures and of unreadable ones."""
        count = unreadable = 0
        with (
            atomic_write(self.output / part_name(partition["number"])) as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            for answers in self.batches(partition):
                for answer in answers:
                    file.write(json.dumps(answer, ensure_ascii=False) + "\n")
                    count += 1
                    unreadable += "error" in answer
        return count, unreadable

    def batches(self, partition: Partition) -> Iterator[list[dict[str, Any]]]:
        """Yield the answers to a partition's pictures, a batch at a time."""
        rest = pictures_of(partition, self.predictor.mode)
        while batch := list(itertools.islice(rest, self.batch_size)):
            found = iter(self.predictor([one for _, one in batch if not isinstance(one, str)], self.topk))
            yield [
                {"image": name, "error": one}
                if isinstance(one, str)
                else {"image": name, "classes": [asdict(each) for each in next(found)]}
                for name, one in batch
            ]


def pictures_of(partition: Partition, mode: str) -> Iterator[tuple[str, Image.Image | str]]:
    """Yield (name, picture, or what is wrong with it) of each picture of a partition."""
    if "files" in partition:
        for path in partition["files"]:
            try:
                yield readable(path), read_image(Path(path), mode)
            except UserError as error:
                yield readable(path), str(error)
        return
    from pyarrow.parquet import ParquetFile

    with ParquetFile(partition["parquet"]) as file:
        columns = [name for name in (partition["column"], partition["key"]) if name]
        rows = file.read_row_group(partition["row_group"], columns=columns).to_pylist()
    for i, row in enumerate(rows):
        value = row[partition["column"]]
        name = str(row[partition["key"]]) if partition["key"] else f"{partition['first_row'] + i}"
        try:
            # the data sets of the Hugging Face hub hold {"bytes": ..., "path": ...}
            yield name, read_rgb(io.BytesIO(value["bytes"] if isinstance(value, dict) else value), mode)
        except (TypeError, UnreadableImage) as error:
            yield name, f"cannot be read as an image: {error}"


def part_name(number: int) -> str:
    """Return the name of a partition's file."""
    return f"part-{number:05d}.jsonl"


def partitions_of(arguments: argparse.Namespace) -> list[Partition]:
    """Return what each partition holds: so many files, or one row group of a parquet file.

    Raises:
        MissingFileError: a pattern names no picture.
        UserError: a parquet file cannot be read, or lacks a column.
    """
    if not arguments.column:
        notes: list[str] = []
        files = [os.path.abspath(path) for path in find_images(arguments.pictures, notes)]
        for note in notes:
            print(escaped(note), file=sys.stderr)
        size = arguments.partition_size
        return [
            {"number": start // size, "files": files[start : start + size]}
            for start in range(0, len(files), size)
        ]
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    partitions: list[Partition] = []
    for name in arguments.pictures:
        path = os.path.abspath(os.path.expanduser(name))
        try:
            with ParquetFile(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
        except (OSError, ArrowException) as error:
            raise UserError(f"{name} cannot be read as parquet: {str(error).splitlines()[0]}") from None
        for column in (arguments.column, arguments.key):
            if column and column not in schema.names:
                raise UserError(f"{name} has no column {column!r}; it has {', '.join(schema.names)}")
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            number = len(partitions)
            partitions.append(
                {"number": number, "parquet": path, "row_group": group, "first_row": first, "rows": rows}
                | {"column": arguments.column, "key": arguments.key}
            )
            first += rows
    return partitions


def check_plan(arguments: argparse.Namespace, partitions: list[Partition]) -> None:
    """Note what OUT answers: these pictures, this export, so many classes; or see that it is what was noted.

    Raises:
        UserError: OUT holds the answers to something else.
    """
    plan = {
        "pictures": hashlib.sha256(json.dumps(partitions).encode()).hexdigest(),
        "partitions": len(partitions),
        "export": sha256(Path(arguments.export) / CARD),
        "topk": arguments.topk,
    }
    place = arguments.output / PLAN
    if place.exists():
        try:
            before = json.loads(place.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        other = [name for name in plan if before.get(name) != plan[name]]
        if other:
            raise UserError(
                f"{arguments.output} holds answers to a call with other {' and '.join(other)}; "
                "repeat that call, or choose another --output"
            )
        return
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise UserError(
            f"{arguments.output} is not empty, and no answers of this program: choose another --output"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as temporary:
        temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def answer_all(arguments: argparse.Namespace, missing: list[Partition]) -> tuple[int, int]:
    """Answer the partitions that are missing on Ray; returns their numbers of pictures and of unreadable ones."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is raised here
    import ray
    import ray.data

    cores = arguments.actors * arguments.threads
    here = {} if arguments.address else {"num_cpus": cores, "include_dashboard": False}
    ray.init(address=arguments.address, log_to_driver=False, logging_level="error", **here)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [{"partition": json.dumps(one)} for one in missing]
        answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Classifier,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(arguments.actors, len(rows))),
            num_cpus=arguments.threads,
            fn_constructor_args=(
                os.path.abspath(arguments.export),
                os.path.abspath(arguments.output),
                arguments.threads,
                arguments.topk,
                arguments.batch_size,
            ),
        )
        pictures = unreadable = 0
        said = time.monotonic()
        for done, row in enumerate(answered.iter_rows(), 1):
            pictures += int(row["pictures"])
            unreadable += int(row["unreadable"])
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                print(f"{done} of {len(rows)} partitions, {counted(pictures, 'picture')}", flush=True)
                said = time.monotonic()
        return pictures, unreadable
    finally:
        ray.shutdown()


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "pictures",
        nargs="+",
        metavar="PICTURES",
        help="files, folders or patterns in quotes; with --column parquet files",
    )
    add("--export", required=True, metavar="DIR", help="the output of `python -m paddle_inline export`")
    add("--output", required=True, type=Path, metavar="OUT", help="the folder of the answers")
    add("--column", metavar="NAME", help="of parquet files: the column with the pictures' bytes")
    add(
        "--key",
        metavar="NAME",
        help="of parquet files: the column that names a picture; default: its row's number",
    )
    add("--partition-size", type=int, default=256, metavar="N", help="files in a partition; default: 256")
    add("--batch-size", type=int, default=8, metavar="N", help="pictures at once; default: 8")
    add("--topk", type=int, default=5, metavar="K", help="classes for each picture; default: 5")
    add(
        "--actors",
        type=int,
        metavar="N",
        help="Predictors at once; default: one for each core of this machine",
    )
    add("--threads", type=int, default=1, metavar="N", help="cores of each; default: 1")
    add(
        "--address",
        metavar="HOST:PORT",
        help="of a cluster that runs; auto: the one of this machine; default: none",
    )
    arguments = parser.parse_args(argv)
    arguments.actors = arguments.actors or max(1, available_cores() // max(1, arguments.threads))
    for name in ("partition_size", "batch_size", "topk", "actors", "threads"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} starts at 1")
    if arguments.key and not arguments.column:
        raise UserError("--key belongs to --column: parquet files")
    return arguments


def run(argv: Sequence[str] | None) -> int:
    """Answer what is missing; returns the exit code."""
    arguments = parse_arguments(argv)
    for package in ("ray", "pyarrow"):
        if find_spec(package) is None:
            raise UserError(f"this needs {package}: pip install 'paddle-inline[ray]'")
    read_card(arguments.export)
    partitions = partitions_of(arguments)
    with locked(arguments.output):
        check_plan(arguments, partitions)
        return answer_missing(arguments, partitions)


def answer_missing(arguments: argparse.Namespace, partitions: list[Partition]) -> int:
    """Answer the partitions that have no file yet, and say so; returns the exit code."""
    for left in arguments.output.glob(".part-*.jsonl"):  # of a call that was killed
        left.unlink()
    missing = [one for one in partitions if not (arguments.output / part_name(one["number"])).exists()]
    if len(missing) < len(partitions):
        print(f"{len(partitions) - len(missing)} of {len(partitions)} partitions are there")
    if not missing:
        return 0
    start = time.monotonic()
    pictures, unreadable = answer_all(arguments, missing)
    seconds = time.monotonic() - start
    bad = f', {unreadable} of them could not be read: see their "error"' if unreadable else ""
    print(
        f"{counted(pictures, 'picture')} in {counted(len(missing), 'partition')}{bad}; {seconds:.1f} s with the start "
        f"of Ray: {arguments.output}"
    )
    return 1 if unreadable else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run, with a user's mistake as one message; returns the exit code."""
    with forgiving_streams():
        try:
            return run(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
