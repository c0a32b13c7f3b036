"""The outcome of comparisons as JUnit XML, which continuous integration shows test by test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..result import Report
from . import write_file


def write_junit(reports: Sequence[Report], path: str | Path) -> None:
    """Write one test suite per report, one test case per row.

    Raises:
        FileAccessError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites")
    for report in reports:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{report.model} {report.dtype}",
            tests=str(len(report.rows)),
            failures=str(sum(not row.passed for row in report.rows)),
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
                    message += "; the first divergence"
                ElementTree.SubElement(case, "failure", message=message)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    write_file(path, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
