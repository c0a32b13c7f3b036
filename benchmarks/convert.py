"""How long a conversion takes and how much memory: beyond imports, unverified, in a process of its own.

    python benchmarks/convert.py
    python benchmarks/convert.py --models inline_swin_base --shards 4

The files are made for it in a temporary folder: every format of a model, and several GiB of safetensors
shards of a very wide InLine-DeiT, which no machine needs to hold at once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import could_not_run, print_table, report

FORMATS = {
    "torch": "torch.pth",
    "torch before zip": "legacy.pth",
    "safetensors": "torch.safetensors",
    "Paddle": "paddle.pdparams",
}
WIDE = {"embed_dim": 4096, "num_heads": 64, "num_classes": 1000}  # 0.8 GiB a block


def measure(source: Path, output: Path, side: str) -> dict[str, Any]:
    """Seconds, of the clock and of the processor, and peak memory of one conversion in a fresh process."""
    from paddle_inline.utils.environment import import_paddle

    import_paddle()
    import convert.identify  # noqa: F401
    from convert.conversion import ConversionOptions
    from convert.conversion import convert as convert_file
    from paddle_inline.utils.timing import peak_memory

    if side == "torch":
        import torch  # noqa: F401
    imported = peak_memory()
    started, worked = time.perf_counter(), time.process_time()
    convert_file(source, output, side, ConversionOptions(verify=False))
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds": {"median": seconds},
        "cpu_seconds": worked,
        "imports_mib": imported,
        "peak_mib": peak_memory(),
    }


def alone(function: Callable, *arguments: Any) -> Any:
    """Return the result of a function in a fresh process."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        return pool.apply(function, arguments)
    finally:
        pool.close()
        pool.join()


def make_files(name: str, folder: Path) -> float:
    """Every format of a model's weights; returns their size in MiB."""
    import torch
    from safetensors.torch import save_file

    import torch_ref
    from convert.conversion import ConversionOptions
    from convert.conversion import convert as convert_file

    state = torch_ref.create_model(name).state_dict()
    torch.save(state, folder / FORMATS["torch"])
    torch.save(state, folder / FORMATS["torch before zip"], _use_new_zipfile_serialization=False)
    save_file(state, folder / FORMATS["safetensors"])
    convert_file(
        folder / FORMATS["torch"],
        folder / FORMATS["Paddle"],
        "paddle",
        ConversionOptions(model=name, verify=False),
    )
    return sum(value.nbytes for value in state.values()) / 2**20


def make_shards(folder: Path, gib: float) -> tuple[Path, float]:
    """Write an InLine-DeiT of about `gib` GiB in float32, one block a shard; return the index and its MiB."""
    from safetensors.numpy import save_file

    from paddle_inline.utils.environment import import_paddle

    import_paddle()
    from convert.mapping import shapes_of, skeleton

    depth = max(1, round(gib / 0.8))
    index, total = {}, 0
    for name, shape in shapes_of(skeleton("inline_deit_tiny", {**WIDE, "depth": depth}), "torch").items():
        index.setdefault(name.split(".")[1] if name.startswith("blocks.") else "rest", {})[name] = shape
        total += int(np.prod(shape)) * 4
    places = {}
    for part, shapes in index.items():
        file = f"model-{part}.safetensors"
        save_file({name: np.ones(shape, "float32") for name, shape in shapes.items()}, folder / file)
        places.update(dict.fromkeys(shapes, file))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return path, total / 2**20


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["inline_deit_tiny", "inline_swin_base"])
    parser.add_argument("--shards", type=float, default=4.0, metavar="GIB", help="0: none; default: 4")
    arguments = parser.parse_args(argv)
    rows, missing = [], []

    def run(model, form, source, side, output, mib):
        found = alone(measure, source, output, side)
        rows.append({"model": model, "form": f"{form} to {side}", "weights_mib": mib, **found})
        output.unlink()

    folder = Path(tempfile.mkdtemp(prefix="convert-benchmark-"))
    try:
        for name in arguments.models:
            mib = alone(make_files, name, folder)
            for form, file in FORMATS.items():
                side = "torch" if form == "Paddle" else "paddle"
                out = folder / ("out.pth" if side == "torch" else "out.pdparams")
                run(name, form, folder / file, side, out, mib)
        if arguments.shards:
            free = shutil.disk_usage(folder).free / 2**30
            if free < 2.5 * arguments.shards:
                missing.append(could_not_run("shards", OSError(f"{free:.0f} GiB of disk are too few")))
            else:
                path, mib = alone(make_shards, folder, arguments.shards)
                run("a wide inline_deit", "shards", path, "paddle", folder / "out.pdparams", mib)
                run("a wide inline_deit", "shards", path, "paddle", folder / "out.safetensors", mib)
    finally:
        shutil.rmtree(folder)
    print_table(
        ["model", "form", "weights, MiB", "seconds", "of CPU", "peak, MiB", "of weights", "imports, MiB"],
        [
            [
                row["model"],
                row["form"],
                row["weights_mib"],
                row["seconds"]["median"],
                row["cpu_seconds"],
                row["peak_mib"],
                row["peak_mib"] / row["weights_mib"],
                row["imports_mib"],
            ]
            for row in rows
        ],
    )
    report("convert", argv, rows, missing)


if __name__ == "__main__":
    main(sys.argv[1:])
