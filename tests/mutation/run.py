"""Plant small faults in the product, one at a time, and see whether the tests notice.

    make test-mutations                                       every planted fault
    python tests/mutation/run.py --only training/optim.py     those of some files

A fault is planted in a temporary copy of the tree, and the tests that its list names (faults.py) run there up to the
first failure. What they do not notice is printed, and the exit code is 1 where less than 95 % are noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from faults import FOLDER, Fault, FaultError, planted, problems, read_faults

ROOT = Path(__file__).parents[2]
LEAST = 0.95  # of the faults are to be noticed
NOT_COPIED = (".git", ".venv*", "build", "output", "__pycache__", ".*_cache", "*.egg-info")
PYTEST = ("-x", "-q", "--tb=line", "--no-header", "-p", "no:cacheprovider")
PASSED, FAILED = 0, 1  # pytest's exit codes where all tests pass, and where one fails
SLOW = ("paddle", "torch", "sklearn.datasets", "pytest")  # what tests import, loaded once for all of them
_CLOCK = itertools.count(int(time.time()) + 1000)  # a time of change for every text: Python compiles it anew


class Tree:
    """A copy of a tree in which faults are planted.

    Tests run in a fork of this process, which has loaded the frameworks and nothing of the tree.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.output = folder / "tree", folder / "output.txt"
        shutil.copytree(root, self.folder, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)

    def notices(self, tests: Sequence[str], seconds: float) -> bool:
        """Run tests; return whether one fails, or they take longer than they may.

        Raises:
            FaultError: they could not be run.
        """
        child = os.fork()
        if child == 0:
            self._run(tests)
        try:
            code = self._code(child, seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # and what it has started
        if code not in (PASSED, FAILED, None):
            last = "\n".join(self.output.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise FaultError(f"pytest {' '.join(tests)} ends with code {code}:\n{last}")
        return code != PASSED

    @staticmethod
    def _code(child: int, seconds: float) -> int | None:
        """Wait for a child to end and return its exit code; None where it takes longer than it may."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status >> 8 if os.WIFEXITED(status) else -os.WTERMSIG(status)
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def _run(self, tests: Sequence[str]) -> None:
        """Run tests in this process, the first of a group of its own, and end it with pytest's exit code."""
        code = -1
        try:
            os.setsid()
            code = self._pytest(tests)
        finally:
            os._exit(code)

    def _pytest(self, tests: Sequence[str]) -> int:
        import pytest

        with open(self.output, "wb") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = sys.path[0] = str(self.folder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and they take their time
        sys.dont_write_bytecode = False  # what has not changed is compiled once
        code = pytest.main([*PYTEST, *tests])
        sys.stdout.flush()
        return int(code)

    @contextmanager
    def changed(self, fault: Fault) -> Iterator[None]:
        """Have a fault in the copy inside this context."""
        path = self.folder / fault.file
        source = path.read_text(encoding="utf-8")
        try:
            self._write(path, planted(source, fault))
            yield
        finally:
            self._write(path, source)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        now = next(_CLOCK)
        os.utime(path, (now, now))


def run(
    faults: Sequence[Fault], root: Path, log: Callable[[str], object] = print
) -> list[tuple[Fault, bool]]:
    """Plant every fault of a tree in turn and run its tests.

    Args:
        faults: of `read_faults`.
        root: of the tree, which is copied and stays as it is.
        log: called with a line about each.

    Returns:
        [(fault, whether it was noticed)].

    Raises:
        FaultError: a text is no longer there, or tests fail without a fault.
    """
    wrong = problems(faults, root)
    if wrong:
        raise FaultError("\n".join(wrong))
    results: list[tuple[Fault, bool]] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Tree(root, Path(folder))
        for tests, group in itertools.groupby(faults, lambda fault: fault.tests):
            started = time.monotonic()
            if tree.notices(tests, 1800):
                last = tree.output.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise FaultError(f"{' '.join(tests)} fail without a fault:\n{last}")
            seconds = 60 + 5 * (time.monotonic() - started)
            for fault in group:
                with tree.changed(fault):
                    results.append((fault, tree.notices(tests, seconds)))
                log(f"{'noticed ' if results[-1][1] else 'SURVIVED'} {fault}")
    return results


def figures(results: Sequence[tuple[Fault, bool]]) -> str:
    """Return how many were noticed, by the folder of the package that they are in and in all."""
    of, noticed = Counter[str](), Counter[str]()
    for fault, seen in results:
        for part in ("/".join(fault.file.split("/")[:-1][:2]) or fault.file, "all"):
            of[part] += 1
            noticed[part] += seen
    of["all"] = of.pop("all")  # the last one
    return "\n".join(
        f"{noticed[part]:4} of {of[part]:3} {noticed[part] / of[part]:5.0%}  {part}" for part in of
    )


def main(
    argv: Sequence[str] | None = None,
    root: Path = ROOT,
    lists: Path = FOLDER,
    load: Sequence[str] = SLOW,
) -> int:
    """Run the program; 0 where enough faults are noticed, 1 where not, 2 where they could not be planted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="faults whose file or list has this text"
    )
    wanted = parser.parse_args(argv).only or [""]
    for name in load:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    try:
        faults = [
            each for each in read_faults(lists) if any(text in f"{each.place} {each.file}" for text in wanted)
        ]
        results = run(faults, root, lambda line: print(line, flush=True))
    except FaultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not results:
        print(f"error: no fault is planted in {', '.join(wanted)}", file=sys.stderr)
        return 2
    print(f"\n{figures(results)}")
    return 0 if sum(seen for _, seen in results) >= LEAST * len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
