"""Reading Markdown: its headings, code blocks, tables and links."""

import re
import shlex

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(text, language):
    """The code blocks of one language."""
    return [body for name, body in FENCE.findall(text) if name == language]


def commands(text):
    """The command lines of all bash blocks, continued lines joined, comments left out."""
    lines = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                lines.append(words)
    return lines


def prose(text):
    """The text without code blocks."""
    return FENCE.sub("", text)


def headings(text):
    """(level, title) of each heading."""
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose(text), re.M)]


def table_numbers(text):
    """The numbers in each table row, row by row."""
    rows = [line for line in prose(text).splitlines() if line.startswith("|")]
    return [re.findall(r"\d+(?:\.\d+)?", row) for row in rows]


def links(text):
    """The targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text)) + re.findall(r'(?:src|href)="([^"]+)"', prose(text))
