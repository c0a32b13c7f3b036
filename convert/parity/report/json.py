"""The outcome as files for machines: JSON, JUnit XML for CI, and the arrays that reprod_log reads."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..comparison import Row


def write_whole(path, data):
    """Write bytes or text: the whole file or none. Folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(reports, path):
    """Every row of every report; numbers that are not finite are written as strings."""
    data = {"passed": all(report.passed for report in reports), "reports": [_plain(r) for r in reports]}
    write_whole(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _plain(item):
    if dataclasses.is_dataclass(item):
        names = [f.name for f in dataclasses.fields(item) if f.name != "results"]
        names += [name for name in ("passed", "first_divergence") if hasattr(item, name)]
        names += ["noise"] * isinstance(item, Row)
        return {name: _plain(getattr(item, name)) for name in names}
    if isinstance(item, dict):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    return item


def write_junit(reports, path):
    """One test suite per report, one test case per row."""
    root = ElementTree.Element("testsuites")
    for report in reports:
        failed = sum(not row.passed for row in report.rows)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{report.model} {report.dtype}",
            tests=str(len(report.rows)),
            failures=str(failed),
            errors="0",
            time=f"{report.seconds:.3f}",
        )
        for row in report.rows:
            name = f"{row.kind} {row.name}".strip()
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{report.model}.{report.dtype}", name=name, time="0"
            )
            if not row.passed:
                message = f"error {row.max_rel:.3g}, allowed {row.tolerance:.3g}, shape {list(row.shape)}"
                if row.allowed_distance is not None:
                    message += f"; distance from the truth {row.paddle_distance:.3g}"
                    message += f", allowed {row.allowed_distance:.3g}"
                if row.name == report.first_divergence:
                    message += "; the first sublayer to part ways"
                ElementTree.SubElement(case, "failure", message=message)
    ElementTree.indent(root)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def write_reprod_log(reports, folder):
    """The files of Paddle's reproduction guide: {forward,loss,metric,losses}_{paddle,ref}.npy, each a pickled
    {name: array} as reprod_log reads it. Several reports go to folders of their own, <model>_<dtype>."""
    for report in reports:
        target = Path(folder) if len(reports) == 1 else Path(folder) / f"{report.model}_{report.dtype}"
        target.mkdir(parents=True, exist_ok=True)
        for framework, results in report.results.items():
            side = "paddle" if framework == "paddle" else "ref"
            for stage, arrays in results.items():
                with open(target / f"{stage}_{side}.npy", "wb") as file:
                    np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
