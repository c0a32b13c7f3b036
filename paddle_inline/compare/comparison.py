"""A comparison from its plan to its page: what is there already is kept, what is missing is made.

OUTPUT/
  comparison.json     the settings, which a later call must have too
  trials/FORM/MODEL/seedN/   result.json, model.pdparams, inside.json, metrics.jsonl, train.log
  costs.json          parameters, multiply-adds, ranks: what needs no clock
  speed.json          times and memory
  results.json, results.csv, results.png, index.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..models.factory import create_model
from ..training import build
from ..training.lock import locked
from ..training.log import duration, make_folder
from ..utils.errors import UserError, counted, short
from ..utils.flops import profile
from . import inside, summary, timing
from .inside import INSIDE
from .page import write_page
from .plan import Form, Plan
from .trial import RESULT, check_same_inputs, generators_put_back, read_json, train, trial_folder, write_json
from .workers import run_jobs

PLAN, COSTS, SPEED, RESULTS = "comparison.json", "costs.json", "speed.json", "results.json"
STAGES = ("train", "inspect", "time", "page")
FORMAT = 1

Jobs = list[tuple[Form, int]]


def compare(
    plan: Plan,
    output: Path,
    *,
    workers: int = 1,
    rounds: int = 10,
    stages: Iterable[str] = STAGES,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Do what is missing of a comparison, and write its page.

    Args:
        plan: what is compared.
        output: its folder; another comparison's is refused.
        workers: processes that train at once, each with its share of the cores.
        rounds: how often each thing is timed.
        stages: of STAGES, what to do; "time" is one after the other, when nothing else of this runs.
        report: called with every line on the way.

    Returns:
        What results.json holds.

    Raises:
        UserError: the folder holds another comparison; the data cannot be read, or is not what it was.
    """
    stages = set(stages)
    if "train" in stages and not (output / PLAN).exists():
        with generators_put_back():
            check_data(plan, output)
    make_folder(output)
    with locked(output):
        begin(plan, output)
        if "train" in stages:
            train_missing(plan, output, workers, report)
        if "inspect" in stages:
            inspect_missing(plan, output, workers, report)
            count_missing(plan, output)
        if "time" in stages:
            measure_missing(plan, output, rounds, report)
        if "page" not in stages:
            return {}
        return conclude(plan, output)


def check_data(plan: Plan, output: Path) -> build.Run:
    """Return the first form's training, not begun, so that data which it cannot take leaves no folder behind.

    Raises:
        UserError: the data cannot be read, or is less than one batch, whose size is the recipe's.
    """
    config = plan.config(plan.forms[0], 0, output / "trials")
    source, load = build.build_train(config, 0, 1, build.build_split(config))
    if len(source) < config.data.batch_size:
        raise UserError(
            f"{plan.data} has {counted(len(source), 'picture')} to learn from, fewer than the {config.data.batch_size} "
            "that a comparison takes in one step; give a folder with more"
        )
    return build.build_run(config, 0, 1, (source, load))


def conclude(plan: Plan, output: Path) -> dict[str, Any]:
    """Write the results and the page of what has been done so far, and return the results."""
    results = summary.summarise(
        plan,
        {
            (f.name, seed): read_json(trial_folder(plan, f, seed, output) / RESULT)
            for f, seed in all_trials(plan)
        },
        {
            (f.name, seed): read_json(trial_folder(plan, f, seed, output) / INSIDE)
            for f, seed in all_trials(plan)
        },
        read_json(output / COSTS) or {},
        read_json(output / SPEED),
    )
    write_json(output / RESULTS, results)
    write_page(results, output, inside.picture(plan, output))
    return results


def begin(plan: Plan, output: Path) -> None:
    """Write the settings, or compare them with those that the folder's comparison has.

    Raises:
        UserError: they differ, each with its old and new value; or the folder holds something else.
    """
    found, settings = read_json(output / PLAN), plan.settings()
    if found is None:
        others = sorted(path.name for path in output.iterdir())
        if others:
            raise UserError(
                f"{output} holds no comparison but {short(', '.join(others[:3]))}: choose another folder with --output"
            )
        write_json(output / PLAN, {"format": FORMAT, "settings": settings})
        return
    if found.get("format") != FORMAT or "settings" not in found:
        raise UserError(
            f"{output / PLAN} is not a comparison of this version: choose another folder with --output"
        )
    before = found["settings"]
    before, now = dict(before), json.loads(json.dumps(settings))
    changed = [
        f"{key}: {short(before.get(key))} there, {short(now[key])} here"
        for key in now
        if before.get(key) != now[key]
    ]
    if changed == [f"seeds: {short(before.get('seeds'))} there, {short(now['seeds'])} here"]:
        write_json(
            output / PLAN, {"format": FORMAT, "settings": settings}
        )  # more or fewer seeds are no other trainings
        return
    if changed:
        raise UserError(
            f"{output} holds another comparison ({'; '.join(changed)}): give its settings to continue it, or another "
            "folder with --output"
        )


def all_trials(plan: Plan) -> Jobs:
    """Return every (form, seed), the first seed of all forms first: a comparison that is cut off is already one."""
    return [(form, seed) for seed in range(plan.seeds) for form in plan.forms]


def missing(plan: Plan, output: Path, name: str) -> Jobs:
    """Return the (form, seed) without a file of this name."""
    return [job for job in all_trials(plan) if not (trial_folder(plan, *job, output) / name).exists()]


def train_missing(plan: Plan, output: Path, workers: int, report: Callable[[str], None]) -> None:
    """Train what has not been trained to its end.

    Raises:
        UserError: the data is not what the trainings before had, byte for byte.
    """
    jobs, total = missing(plan, output, RESULT), len(all_trials(plan))
    done = total - len(jobs)
    if done and jobs:
        report(f"{done} of {counted(total, 'training')} done before: {len(jobs)} to go")
    began = time.perf_counter()
    arguments = [(plan, form, seed, output) for form, seed in jobs]
    for number, ((_, form, seed, _), result) in enumerate(run_jobs(train, arguments, workers), 1):
        left = (time.perf_counter() - began) / number * (len(jobs) - number)
        reached = "diverged" if result["diverged"] else f"{result['top1']:.2f} %"
        report(
            f"{form.name}, seed {seed}: {reached}, {result['seconds']:.0f} s; {done + number} of {total}"
            f", about {duration(left)} left"
        )
    check_inputs(plan, output)


def check_inputs(plan: Plan, output: Path) -> None:
    """Refuse results of one seed that come from other data, as where files changed while trainings ran."""
    for form, seed in all_trials(plan):
        result = read_json(trial_folder(plan, form, seed, output) / RESULT)
        if result is not None:
            check_same_inputs(plan, form, seed, output, result["inputs"])


def inspect_missing(plan: Plan, output: Path, workers: int, report: Callable[[str], None]) -> None:
    """Look into the trained networks that nobody has looked into."""
    jobs = []
    for job in missing(plan, output, INSIDE):
        result = read_json(trial_folder(plan, *job, output) / RESULT)
        if result is not None and not result.get("diverged"):
            jobs.append(job)
    if jobs:
        report(f"looking into {len(jobs)} trained networks: injectivity, locality, masking")
    for _ in run_jobs(inside.inspect, [(plan, form, seed, output) for form, seed in jobs], workers):
        pass


def count_missing(plan: Plan, output: Path) -> None:
    """Count what the forms cost that nobody has counted."""
    found = read_json(output / COSTS) or {}
    new = {form.name: timing.costs(plan, form) for form in plan.forms if form.name not in found}
    if new:
        write_json(output / COSTS, {**found, **new})


def measure_missing(plan: Plan, output: Path, rounds: int, report: Callable[[str], None]) -> None:
    """Time all forms in turn, unless all of these have been."""
    found = read_json(output / SPEED)
    names = {form.name for form in plan.forms}
    if found is None or not names <= set(found["forms"]) or found["rounds"] < rounds:
        write_json(output / SPEED, timing.measure(plan, rounds, report))


def estimate(plan: Plan, output: Path, workers: int) -> dict[str, Any]:
    """Take two steps of every form on the data's first batch and return what the whole comparison would cost.

    Returns:
        {"trainings": that are missing, "steps": of each, "minutes": of training on `workers` processes,
        "cost": [{"form", "params", "macs", "seconds": of a step}]}.

    Raises:
        UserError: the data cannot be read.
    """
    run = check_data(plan, output)
    batch = next(iter(run.components.load(0, 0)))
    costs: list[dict[str, Any]] = []
    for form in plan.forms:
        model = create_model(plan.backbone, num_classes=len(run.train_source.classes), **form.overrides())
        counted = profile(model)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            run.components.loss_fn(model(batch[0]), batch[1]).backward()
            seconds.append(time.perf_counter() - began)
        costs.append(
            {"form": form.name, "params": counted.params, "macs": counted.total, "seconds": min(seconds)}
        )
    steps = run.options.steps_per_epoch * plan.epochs
    held_out = plan.epochs * len(run.eval_source) / len(batch[1]) / 3  # a forward pass is a third of a step
    step = {cost["form"]: cost["seconds"] for cost in costs}
    jobs = missing(plan, output, RESULT)
    minutes = sum(step[form.name] for form, _ in jobs) * (steps + held_out) / max(1, workers) / 60
    return {"trainings": len(jobs), "steps": steps, "minutes": minutes, "cost": costs}
