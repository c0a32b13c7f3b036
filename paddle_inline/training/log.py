"""What a run says: a progress bar or plain lines, train.log, metrics.jsonl and VisualDL."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..utils.errors import FileAccessError


class RunLog:
    """The log of a run; on ranks other than 0 it says nothing and writes nothing.

    Args:
        folder: of the run; gets `train.log`, `metrics.jsonl` and `visualdl/`.
        rank: of this process.
        visualdl: also write VisualDL scalars, if it is installed; a run never fails for want of it.
        console: a rich Console; by default standard output.
    """

    def __init__(self, folder, *, rank=0, visualdl=True, console=None):
        self.folder, self.active = Path(folder), rank == 0
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.board, self.lost = None, set()
        if self.active:
            self.folder.mkdir(parents=True, exist_ok=True)
            if visualdl:
                self._open_board()

    def _open_board(self):
        try:
            from visualdl import LogWriter

            self.board = LogWriter(logdir=str(self.folder / "visualdl"))
        except Exception as error:  # optional: whatever is wrong with it, training goes on
            self.say(f"VisualDL is not used ({error}); the same numbers go to metrics.jsonl")
        else:
            self.say(f"curves: visualdl --language en --logdir {self.folder / 'visualdl'}")

    def say(self, text: str) -> None:
        """One line on the terminal and in train.log."""
        if self.active:
            self.console.print(text, markup=False)
            self._append("train.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _append(self, name, line):
        """A log that cannot be written is no reason to end a run: that is said once."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # it may have vanished
            with open(self.folder / name, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if name not in self.lost:
                self.lost.add(name)
                why = error.strerror or error
                self.console.print(f"warning: {self.folder / name} is not written: {why}", markup=False)

    def scalars(self, update: int, **values) -> None:
        """Numbers after `update` updates, to metrics.jsonl and VisualDL; None and text pass as they are."""
        if not self.active:
            return
        self._append("metrics.jsonl", json.dumps({"update": update, **_plain(values)}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._show("add_scalar", tag=name, step=update, value=value)

    def picture(self, tag: str, array, update: int) -> None:
        """An image [H, W, 3] uint8 for VisualDL."""
        self._show("add_image", tag=tag, img=array, step=update)

    def histograms(self, update: int, model) -> None:
        """The values of every weight, for VisualDL."""
        for name, parameter in model.named_parameters() if self.board is not None else ():
            values = parameter.astype("float32").numpy().ravel()
            if np.isfinite(values).all():
                self._show("add_histogram", tag=name, values=values, step=update)

    def _show(self, method, **what):
        """Gives VisualDL something to show: nothing that is wrong with it ends a run."""
        if self.board is not None:
            try:
                getattr(self.board, method)(**what)
            except Exception as error:
                self.board = None
                self.say(f"VisualDL failed and is left out from here on: {error}")

    def rewind(self, update: int, epoch: int) -> None:
        """Drops from metrics.jsonl what comes after a checkpoint, when a run goes on from it."""
        path = self.folder / "metrics.jsonl"
        if not self.active or not path.exists():
            return
        rows = [row for row in read_metrics(self.folder) if row["update"] <= update]
        rows = [row for row in rows if row.get("top1") is None or row["epoch"] <= epoch]
        partial = path.with_name(".metrics.jsonl")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        partial.replace(path)

    @contextmanager
    def bar(self, title: str, total: int):
        """A progress bar: yields advance(n, **numbers to show). Plain terminals get no bar."""
        if not (self.active and self.console.is_terminal):
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
        """Flushes what is open."""
        self._show("close")
        self.board = None


def make_folder(folder) -> Path:
    """Makes a run's folder, where it is not there yet.

    Raises:
        OSError: if it cannot be written, with the way out.
    """
    folder = Path(folder)
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


def read_metrics(folder) -> list[dict]:
    """The rows of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    rows = []
    path = Path(folder) / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def duration(seconds: float) -> str:
    """4000 -> 1:06:40."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _plain(values):
    """JSON knows no NaN and no infinity: they become text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
