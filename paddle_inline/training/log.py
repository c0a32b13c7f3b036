"""The log of a run: a progress bar or plain lines, train.log, metrics.jsonl and VisualDL."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..utils.errors import FileAccessError
from ..utils.paths import expand, home_for_libraries
from ..utils.streams import ESCAPE, in_notebook
from ..weights.atomic import atomic_write

if TYPE_CHECKING:
    import paddle

# numbers of metrics.jsonl on the machine and the files
SYSTEM = ("images_per_s", "reader_s", "reader_share", "memory_mb", "bad_images", "bad_held_out_images")


class RunLog:
    """The log of a run; on ranks other than 0 it prints nothing and writes nothing.

    Args:
        folder: of the run; gets `train.log`, `metrics.jsonl` and `visualdl/`.
        rank: of this process.
        visualdl: also write VisualDL scalars, if it is installed; a run never fails for lack of it.
        console: a rich Console; by default standard output.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        rank: int = 0,
        visualdl: bool = True,
        console: Console | None = None,
    ) -> None:
        self.folder, self.active = Path(expand(folder)), rank == 0
        self.console = console or _console()
        self.board: Any = None
        self.unwritable: set[str] = set()
        self.shown: set[str] = set()  # tags of VisualDL
        if self.active:
            self.folder.mkdir(parents=True, exist_ok=True)
            if visualdl:
                self._open_board()

    @property
    def live(self) -> bool:
        """Whether lines can be overwritten: on a terminal, which a notebook's cell says it is and is not."""
        return self.console.is_terminal and not in_notebook()

    def _open_board(self):
        try:
            with home_for_libraries():
                from visualdl import LogWriter

            self.board = LogWriter(logdir=str(self.folder / "visualdl"))
        except Exception as error:  # optional: whatever is wrong with it, training continues
            self.info(f"VisualDL is not used ({error}); the same numbers go to metrics.jsonl")
        else:
            self.info(f"curves: visualdl --language en --logdir {self.folder / 'visualdl'}")

    def info(self, text: str) -> None:
        """Write one line to the terminal and train.log, whatever is in it."""
        if self.active:
            text = text.encode("utf-8", ESCAPE).decode()
            self._print(text)
            self._append("train.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _append(self, name, line):
        """Append to a file; a log that cannot be written does not end a run and is reported once."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # it may have vanished
            with open(self.folder / name, "a", encoding="utf-8", errors=ESCAPE) as file:
                file.write(line)
        except OSError as error:
            if name not in self.unwritable:
                self.unwritable.add(name)
                why = error.strerror or error
                self._print(f"warning: {self.folder / name} is not written: {why}")

    def _print(self, text):
        """Print as the console's encoding can."""
        encoding = self.console.encoding
        self.console.print(text.encode(encoding, ESCAPE).decode(encoding), markup=False)

    def scalars(self, step: int, **values: Any) -> None:
        """Write numbers after `step` steps to metrics.jsonl and VisualDL; None and text pass as they are."""
        if not self.active:
            return
        self._append("metrics.jsonl", json.dumps({"step": step, **_plain(values)}) + "\n")
        for name, value in values.items():
            tag = tag_of(name)
            if tag is None or not (isinstance(value, (int, float)) and math.isfinite(value)):
                continue
            if value or tag in self.shown or not tag.startswith("system/"):  # no curve of zeros alone
                self.shown.add(tag)
                self._show("add_scalar", tag=tag, step=step, value=value)

    def image(self, tag: str, array: np.ndarray, step: int) -> None:
        """Show an image [H, W, 3] uint8 in VisualDL."""
        self._show("add_image", tag=tag, img=array, step=step)

    def histograms(self, step: int, model: paddle.nn.Layer) -> None:
        """Show the distribution of every weight in VisualDL."""
        for name, parameter in model.named_parameters() if self.board is not None else ():
            values = parameter.astype("float32").numpy().ravel()
            if np.isfinite(values).all():
                self._show("add_histogram", tag=f"weights/{name}", values=values, step=step)

    def _show(self, method, **what):
        """Call a VisualDL method; a failure of VisualDL never ends a run."""
        if self.board is not None:
            try:
                getattr(self.board, method)(**what)
            except Exception as error:
                self.board = None
                self.info(f"VisualDL failed and is not used from here on: {error}")

    def rewind(self, step: int, epoch: int) -> None:
        """Drop from metrics.jsonl the rows after a checkpoint, when a run is resumed from it."""
        path = self.folder / "metrics.jsonl"
        if not self.active or not path.exists():
            return
        rows = [row for row in read_metrics(self.folder) if row["step"] <= step]
        rows = [row for row in rows if row.get("top1") is None or row["epoch"] <= epoch]
        with atomic_write(path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable]:
        """Show a progress bar; yields advance(n, **numbers to show). Files, pipes and notebooks get no bar."""
        if not (self.active and self.live):
            yield lambda n=1, **numbers: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, numbers="")

            def advance(n=1, **numbers):
                text = "  ".join(f"{name} {value}" for name, value in numbers.items())
                progress.update(task, advance=n, numbers=text)

            yield advance

    def close(self) -> None:
        """Flush what is open."""
        self._show("close")
        self.board = None


def _console() -> Console:
    """Return standard output; FORCE_COLOR, which CI services and notebooks set, makes no terminal of a pipe."""
    terminal = None if getattr(sys.stdout, "isatty", bool)() else False
    return Console(file=sys.stdout, highlight=False, soft_wrap=True, force_terminal=terminal)


def tag_of(name: str) -> str | None:
    """Return VisualDL's tag of a number of metrics.jsonl, whose first part groups it; None: it is not shown."""
    if name == "epoch":
        return None
    if name in SYSTEM:
        return f"system/{name}"
    return f"train/{name}" if name in ("loss", "lr", "grad_norm") else f"eval/{name}"


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a run's folder, where it is not there yet.

    Raises:
        FileAccessError: if it cannot be written, with the way out.
    """
    folder = Path(expand(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileAccessError(
            f"the output folder {folder} cannot be written ({error.strerror}); choose another with --output"
        ) from None
    return folder


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics.jsonl; lines cut short by a kill or by a lost disk are left out.

    Version 0.1 wrote `update` for `step`; its rows get the new name.
    """
    rows = []
    path = Path(folder) / "metrics.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or not {"step", "update"} & set(row):
            continue
        step = row.pop("update", None)
        rows.append(row if step is None else {"step": step, **row})
    return rows


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: 4000 -> 1:06:40."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _plain(values):
    """Turn NaN and infinity, which JSON does not know, into text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
