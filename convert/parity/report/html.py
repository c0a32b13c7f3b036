"""The report as one HTML page: nothing else is loaded, so it can be mailed, archived and opened anywhere.

A strip per model shows the error of every sublayer, from the image (left) to the logits (right), by how far
it stays below its tolerance. Unfolded, the same numbers stand as a curve against the tolerance, as a map of
blocks and their sublayers, and in full as a table.
"""

from __future__ import annotations

import html
import itertools
import math
import re
from datetime import datetime, timezone

from .. import tolerance
from .json import write_whole

# Colours of log10(error / tolerance), in between interpolated; equal bits and what is beyond have their own.
SCALE = (
    (-7, "#e2f1ec"),
    (-5, "#a9d8d5"),
    (-3, "#4ba3b7"),
    (-2, "#2c78a0"),
    (-1, "#3d4f86"),
    (-0.5, "#a9742f"),
    (0, "#e0a11b"),
)
EXACT, BEYOND = "#f0f2f0", "#d02b35"
LEVELS = tuple(-7 + 0.25 * i for i in range(29))  # a cell's colour is that of the next level above it
# Colours of log2(Paddle's distance from the truth / PyTorch's), likewise.
BALANCE = ((-2, "#2c78a0"), (0, "#f0f2f0"), (2, "#b8651b"))
BALANCES = tuple(-2 + 0.25 * i for i in range(17))

KINDS = {
    "output": "Outputs, forward",
    "output gradient": "Gradients of outputs, backward",
    "parameter gradient": "Gradients of parameters",
    "step weight": "Weights after training steps",
}


def write_html(reports, path):
    """Write the page of one or more Reports."""
    write_whole(path, page(reports))


def page(reports):
    """The page as text."""
    failed = [report for report in reports if not report.passed]
    subjects = f"{len(reports)} comparison{'s' * (len(reports) != 1)}"
    verdict = f"{len(failed)} of {subjects} differ" if failed else f"{subjects}: every layer agrees"
    compared = sum(len(report.rows) for report in reports)
    models = len({report.model for report in reports})
    cards = (
        (str(models), "model" + "s" * (models != 1)),
        (f"{compared:,}", "tensors compared"),
        (", ".join(dict.fromkeys(report.dtype for report in reports)), "computed in"),
        (_duration(sum(report.seconds for report in reports)), "taken"),
    )
    return _PAGE.format(
        title=f"Parity: {verdict}",
        style=_STYLE + "".join(f".{name}{{fill:{c};background:{c}}}" for name, c in _colours().items()),
        verdict=_text(verdict),
        state="bad" if failed else "good",
        cards="".join(f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for value, name in cards),
        legend=_legend(),
        rows="".join(_report(report, open_=len(reports) <= 2 or not report.passed) for report in reports),
        tolerances=_tolerances(reports),
        footer=_footer(reports),
    )


def _report(report, open_):
    worst = report.worst()
    state = "good" if report.passed else "bad"
    where = (
        "" if report.divergence is None else f'<span class="where">{_text(report.first_divergence)}</span>'
    )
    error = f"{_number(worst.max_rel)} <i>of {_number(worst.tolerance)}</i>" if worst else "nothing compared"
    return (
        f'<details class="model" {"open" if open_ else ""}><summary>'
        f'<span class="dot {state}"></span>'
        f'<span class="name"><b>{_text(report.model)}</b><i>{_text(report.dtype)}</i></span>'
        f'<span class="strip">{_strip(report.of_kind("output"))}{where}</span>'
        f'<span class="error">{error}</span></summary>'
        f'<div class="inside">{_divergence(report)}{_facts(report)}{_curve(report)}{_maps(report)}'
        f"{_tables(report)}</div></details>"
    )


def _strip(rows):
    """One line of cells; neighbours of one colour are one rectangle."""
    if not rows:
        return ""
    cells, x = [], 0
    for name, run in itertools.groupby(rows, _colour):
        run = list(run)
        worst = max(run, key=_badness)
        span = run[0].name if len(run) == 1 else f"{run[0].name} to {run[-1].name}"
        tip = f"{span}: {_number(worst.max_rel)}"
        cells.append(_cell(x, 0, len(run), 1, name, tip))
        x += len(run)
    return f'<svg viewBox="0 0 {x} 1" preserveAspectRatio="none">{"".join(cells)}</svg>'


def _divergence(report):
    found = report.divergence
    if found is None:
        return ""
    index = ", ".join(map(str, found.index))
    values = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{value:.9g}</td>' for value in side)}</tr>"
        for name, side in (("PyTorch", found.reference), ("Paddle", found.candidate))
    )
    what = {
        "distance": "is further from the float64 truth than PyTorch's own distance allows",
        "output": "was given equal inputs and gave another output",
        "input gradient": "was told equal gradients and passed on another one",
    }.get(found.kind, f"differs in its {found.kind}")
    return (
        f'<div class="divergence"><h3>First divergence: <code>{_text(found.name)}</code></h3>'
        f"<p>{_text(found.layer)} {what}. Shape {list(found.shape)}, the largest difference at [{index}]:</p>"
        f"<table>{values}</table></div>"
    )


def _facts(report):
    facts = []
    for kind in dict.fromkeys(row.kind for row in report.rows):
        rows, worst = report.of_kind(kind), report.worst(kind)
        name = f" at <code>{_text(worst.name)}</code>" if worst.name else ""
        facts.append(
            f"<li><b>{len(rows)} &times; {_text(kind)}</b>: at most {_number(worst.max_rel)}{name}, "
            f"allowed {_number(worst.tolerance)}</li>"
        )
    further = report.further_from_truth()
    if further:
        judged = sum(row.torch_distance is not None for row in report.rows)
        disputed = report.most_disputed()
        facts.append(
            f"<li><b>Against the float64 truth</b>: of {judged} tensors PyTorch is further off on "
            f"{further[0]}, Paddle on {further[1]}, the others are level. Paddle comes closest to its limit "
            f"at <code>{_text(disputed.name or disputed.kind)}</code> ({_text(disputed.kind)}): distance "
            f"{_number(disputed.paddle_distance)}, PyTorch's {_number(disputed.torch_distance)}, allowed "
            f"{_number(disputed.allowed_distance)}</li>"
        )
    if report.noise:
        facts.append(f"<li><b>Noise</b>: {_text(noise_in_words(report))}</li>")
    subject = {k: v for k, v in report.subject.items() if k != "labels" and v not in (None, {}, [])}
    facts.append("<li>" + _text(", ".join(f"{k} {_plain(v)}" for k, v in subject.items())) + "</li>")
    if report.dtype == "bfloat16":
        facts.append(f"<li>{_text(BFLOAT16)}</li>")
    return f'<ul class="facts">{"".join(facts)}</ul>'


def noise_in_words(report):
    """A sentence on the rows of a Report that are noise."""
    return (
        f"on {len(report.noise)} of {len(report.rows)} tensors PyTorch itself is further from the float64 "
        "truth than the tolerance, so that agreement with it would show nothing; there, what is judged is "
        "that Paddle is no more than twice as far"
    )


BFLOAT16 = (
    "bfloat16 means here: weights, images and what passes between sublayers, both ways, rounded to bfloat16; "
    "inside a sublayer float32 (Paddle has no bfloat16 kernels on a CPU)."
)


def _curve(report):
    """Error against depth on a log scale, forward and backward, with the tolerances."""
    kinds = [kind for kind in ("output", "output gradient") if report.of_kind(kind)]
    if not kinds:
        return ""
    rows = {kind: report.of_kind(kind) for kind in kinds}
    places = {row.name: i for i, row in enumerate(rows.get("output") or rows[kinds[0]])}
    finite = [row.max_rel for kind in kinds for row in rows[kind] if 0 < row.max_rel < math.inf]
    limits = {kind: rows[kind][0].tolerance for kind in kinds}
    top = math.ceil(math.log10(max(finite + list(limits.values())))) + 0.4
    bottom = math.floor(math.log10(min(finite + list(limits.values())))) - 0.4
    width, height, left, right = 1000, 240, 46, 992

    def x(name):
        return left + (right - left) * (places.get(name, 0) + 0.5) / max(len(places), 1)

    def y(value):
        value = 10**bottom if value == 0 else value if math.isfinite(value) else 10**top
        return 8 + (height - 34) * (top - math.log10(value)) / (top - bottom)

    parts = []
    for power in range(math.ceil(bottom), math.floor(top) + 1, max(1, round((top - bottom) / 9))):
        line = y(10.0**power)
        parts.append(f'<path class="grid" d="M{left} {line:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{line + 4:.1f}">1e{power}</text>')
    for kind, names in zip(kinds, ("forward", "backward")):
        line = y(limits[kind])
        label = f"{kind}s: {_number(limits[kind])} allowed"
        parts.append(f'<path class="limit {names}" d="M{left} {line:.1f}H{right}"/>')
        at = line + (-5 if limits[kind] == max(limits.values()) else 14)
        parts.append(f'<text class="limit-label {names}" x="{right}" y="{at:.1f}">{label}</text>')
        for row in rows[kind]:
            bad = "" if row.passed else " bad"
            parts.append(
                f'<circle class="{names}{bad}" cx="{x(row.name):.1f}" cy="{y(row.max_rel):.1f}" '
                f'r="{2.4 if row.passed else 4}"><title>{_tip(row)}</title></circle>'
            )
    for name, place in _stage_starts(places):
        parts.append(
            f'<text class="depth" x="{left + (right - left) * place:.1f}" y="{height - 8}">{name}</text>'
        )
    key = "".join(
        f'<span class="key {n}">{_text(kind)}</span>' for kind, n in zip(kinds, ("forward", "backward"))
    )
    return (
        f"<h3>Error of each sublayer, from the image to the logits {key}</h3>"
        f'<svg class="curve" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )


def _stage_starts(places):
    """Where the parts of the network begin, as shares of its depth; not more names than fit."""
    starts = {}
    for name, i in places.items():
        starts.setdefault(_block(name)[0], i)
    total, chosen, last = max(len(places), 1), [], -1.0
    for name, i in starts.items():
        place = i / total
        if place - last > 0.011 * (len(name) + 2) and place < 0.97:
            chosen.append((_text(name), place))
            last = place + 0.004 * len(name)
    return chosen


def _maps(report):
    """Heat maps of the errors."""
    maps = [
        f"<div><h3>{title}</h3>{_map(report.of_kind(kind), _colour, _tip)}</div>"
        for kind, title in KINDS.items()
        if report.of_kind(kind)
    ]
    return f'<div class="maps">{"".join(maps)}{_balance(report)}</div>'


def _balance(report):
    """A heat map of which framework is further from the truth."""
    rows = [row for row in report.of_kind("output") if row.torch_distance]
    if not rows:
        return ""

    def tip(row):
        return _text(
            f"{row.name}: PyTorch {_number(row.torch_distance)}, Paddle {_number(row.paddle_distance)}, "
            f"allowed {_number(row.allowed_distance)}"
        )

    key = "".join(f'<span class="b{i}"></span>' for i in range(0, len(BALANCES), 2))
    return (
        "<div><h3>Distance from the float64 truth, outputs</h3>"
        f'<div class="legend"><em>PyTorch is four times as far</em>{key}<em>Paddle is</em></div>'
        f"{_map(rows, _balance_colour, tip)}</div>"
    )


def _map(rows, colour, tip):
    """Blocks from left to right, the sublayers of a block from top to bottom."""
    if rows[0].kind == "output gradient" or rows[0].kind == "parameter gradient":
        rows = rows[::-1]  # they come from the loss
    blocks, lines, cells = {}, {}, {}
    for row in rows:
        block, inside = _block(row.name)
        place = blocks.setdefault(block, len(blocks)), lines.setdefault(inside, len(lines))
        if place not in cells or _badness(cells[place]) < _badness(row):
            cells[place] = row
    order = _ordered(lines)
    whole = "output" if rows[0].kind.startswith("output") else "itself"
    width, height = max(7, min(22, 900 // len(blocks))), 13
    left = 16 + 6 * max(len(name) for name in (*lines, whole))
    drawn = [
        _cell(left + x * width, 4 + order[y] * height, width - 1, height - 1, colour(row), tip(row))
        for (x, y), row in cells.items()
    ]
    labels = [
        f'<text class="line" x="{left - 8}" y="{14 + order[y] * height}">{_text(name or whole)}</text>'
        for name, y in lines.items()
    ]
    bottom = 4 + len(lines) * height
    every = math.ceil(11 / width)  # so that names do not touch
    columns = [
        f'<text class="column" transform="translate({left + (x + 0.5) * width - 3},{bottom + 6}) rotate(90)">'
        f"{_text(name)}</text>"
        for name, x in blocks.items()
        if x % every == 0
    ]
    wide, high = left + len(blocks) * width + 4, bottom + 14 + 6 * max(len(name) for name in blocks)
    return (
        f'<div class="scroll"><svg class="map" width="{wide}" height="{high}">'
        f"{''.join(drawn)}{''.join(labels)}{''.join(columns)}</svg></div>"
    )


def _block(name):
    """("blocks.3", "attn.qkv") of "blocks.3.attn.qkv"; what is no block is one by its first part."""
    match = re.match(r"((?:layers\.\d+\.blocks|\w+?)\.\d+)(?:\.(.*))?$", name)
    if (match and not match[1].startswith("layers.")) or (match and ".blocks." in match[1]):
        return match[1], match[2] or ""
    first, _, rest = name.partition(".")
    if first == "layers":  # a stage's own part, such as its downsampling
        stage, _, rest = rest.partition(".")
        first = f"layers.{stage}"
    return first, rest


def _ordered(lines):
    """{line: its place from the top}: the parts of a block as they were met, its output last."""
    names = sorted(lines, key=lambda name: (name == "", lines[name]))
    return {lines[name]: place for place, name in enumerate(names)}


def _tables(report):
    tables = []
    for kind in dict.fromkeys(row.kind for row in report.rows):
        rows = report.of_kind(kind)
        arbiter = any(row.torch_distance is not None for row in rows)
        head = "<th>layer</th><th>shape</th><th>max abs</th><th>max error</th><th>tolerance</th>"
        head += "<th>PyTorch to truth</th><th>Paddle to truth</th>" * arbiter
        body = []
        for row in rows:
            cells = [
                f"<td><code>{_text(row.name or kind)}</code></td>",
                f"<td>{'&times;'.join(map(str, row.shape)) or 'scalar'}</td>",
                f"<td>{_number(row.max_abs)}</td>",
                f'<td><span class="chip {_colour(row)}"></span>{_number(row.max_rel)}</td>',
                f"<td>{_number(row.tolerance)}</td>",
            ]
            if arbiter:
                cells += [
                    f"<td>{_number(row.torch_distance)}</td>",
                    f"<td>{_number(row.paddle_distance)}</td>",
                ]
            body.append(f'<tr class="{"" if row.passed else "bad"}">{"".join(cells)}</tr>')
        tables.append(
            f"<details><summary>{_text(kind)}: all {len(rows)} rows</summary>"
            f'<table class="rows"><tr>{head}</tr>{"".join(body)}</table></details>'
        )
    return "".join(tables)


def _legend():
    steps = {-7: "1e-7", -5: "1e-5", -3: "1e-3", -2: "1e-2", -1: "1e-1", 0: "1"}
    cells = ['<span class="exact"></span><i>equal bits</i>']
    for i, level in enumerate(LEVELS):
        cells.append(f'<span class="step h{i}"></span>')
        cells += [f"<i>{steps[level]}</i>"] if level in steps else []
    return "".join([*cells, '<span class="beyond"></span><i>beyond</i>'])


def _tolerances(reports):
    rows = []
    for dtype in dict.fromkeys(report.dtype for report in reports):
        limits = f"<td>{_number(tolerance.OUTPUT[dtype])}</td><td>{_number(tolerance.GRADIENT[dtype])}</td>"
        rows.append(f"<tr><td>{dtype}</td>{limits}<td>{_text(tolerance.REASONS[dtype])}</td></tr>")
    head = "<tr><th>dtype</th><th>outputs</th><th>gradients</th><th>why</th></tr>"
    return f'<table class="rows">{head}{"".join(rows)}</table>'


def _footer(reports):
    versions = {name: version for report in reports for name, version in report.versions.items()}
    machine = "; ".join(dict.fromkeys(report.machine for report in reports))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return _text(f"{', '.join(f'{k} {v}' for k, v in versions.items())} · {machine} · {now}")


def _colours():
    """{class name: colour} of cells."""
    names = {f"h{i}": _between(SCALE, level) for i, level in enumerate(LEVELS)}
    names.update({f"b{i}": _between(BALANCE, level) for i, level in enumerate(BALANCES)})
    return {**names, "exact": EXACT, "beyond": BEYOND}


def _between(stops, value):
    """The colour at `value` between ((value, colour), ...)."""
    for (low, first), (high, second) in zip(stops, stops[1:]):
        if value <= high:
            share = (value - low) / (high - low)
            pairs = ((int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5))
            return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
    return stops[-1][1]


def _colour(row):
    """The class of a row's cell."""
    if not row.passed:
        return "beyond"
    if row.max_rel == 0:
        return "exact"
    power = math.log10(row.ratio or 1e-300)
    return f"h{next(i for i, level in enumerate(LEVELS) if power <= level)}"


def _balance_colour(row):
    power = math.log2(row.paddle_distance / row.torch_distance) if row.paddle_distance else BALANCES[0]
    return f"b{min(range(len(BALANCES)), key=lambda i: abs(BALANCES[i] - power))}"


def _badness(row):
    return (not row.passed, math.inf if math.isnan(row.ratio) else row.ratio)


def _cell(x, y, width, height, name, tip):
    return (
        f'<rect class="{name}" x="{x}" y="{y}" width="{width}" height="{height}">'
        f"<title>{_text(tip)}</title></rect>"
    )


def _tip(row):
    shape = "x".join(map(str, row.shape)) or "scalar"
    return _text(
        f"{row.name or row.kind} [{shape}]: {_number(row.max_rel)}, allowed {_number(row.tolerance)}"
    )


def _number(value):
    return "0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _duration(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _plain(value):
    return value if isinstance(value, (str, int, float)) else str(value)


def _text(value):
    return html.escape(str(value))


_STYLE = """
:root{--ink:#16242b;--soft:#5d6d74;--line:#dde4e3;--paper:#fbfcfb;--card:#fff;--good:#1f8a5f;--bad:#d02b35;
--forward:#2c6e98;--backward:#b8651b}
@media(prefers-color-scheme:dark){:root{--ink:#e6edec;--soft:#9aa9ae;--line:#2b383d;--paper:#11181b;--card:#182125;
--forward:#6fb3d8;--backward:#e29a55}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:36px 28px 60px}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,monospace}
header h1{margin:2px 0 4px;font-size:30px;letter-spacing:-.02em;font-weight:650}
header p{margin:0;color:var(--soft);max-width:760px}
.eyebrow{font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
h1.good{color:var(--good)}h1.bad{color:var(--bad)}
.cards{display:flex;gap:12px;margin:22px 0 26px;flex-wrap:wrap}
.cards div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 18px;
min-width:140px}
.cards b{display:block;font-size:21px;font-weight:620}.cards span{color:var(--soft);font-size:13px}
.legend{display:flex;align-items:center;gap:1px;margin:0 0 12px;font-size:12px;color:var(--soft);
flex-wrap:wrap}
.legend span{width:18px;height:12px}.legend span.step{width:9px}.legend i{font-style:normal;margin-right:5px}
.legend em{font-style:normal;margin-right:6px}.legend span+em{margin-left:6px}
details.model{background:var(--card);border:1px solid var(--line);border-radius:10px;margin-bottom:8px}
details.model>summary{display:flex;align-items:center;gap:14px;padding:11px 16px;cursor:pointer;
list-style:none}
summary{list-style:none}summary::-webkit-details-marker{display:none}
.maps{display:flex;flex-wrap:wrap;gap:0 36px}.maps>div{max-width:100%}
.dot{width:10px;height:10px;border-radius:50%;flex:none}
.dot.good{background:var(--good)}.dot.bad{background:var(--bad)}
.name{width:230px;flex:none;line-height:1.25}.name b{font-weight:600;display:block}
.name i{font-style:normal;color:var(--soft);font-size:13px}
.strip{flex:1;min-width:120px}.strip svg{display:block;width:100%;height:26px;border-radius:4px}
.where{display:block;color:var(--bad);font:12px ui-monospace,monospace;margin-top:3px}
.error{width:150px;flex:none;text-align:right;font-variant-numeric:tabular-nums}
.error i{font-style:normal;color:var(--soft);font-size:13px;display:block}
.inside{padding:4px 20px 18px;border-top:1px solid var(--line)}
.inside h3{font-size:14px;margin:22px 0 6px;font-weight:600}
.facts{margin:14px 0 0;padding-left:18px;font-size:14px}.facts li{margin:2px 0}
.divergence{border:1px solid var(--bad);border-radius:8px;padding:4px 16px 12px;margin-top:16px}
.divergence h3{color:var(--bad);margin-top:10px}.divergence p{margin:4px 0 8px;font-size:14px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
th{text-align:left;font-weight:600;color:var(--soft)}th,td{padding:3px 16px 3px 0;vertical-align:top}
.divergence td{font:12.5px ui-monospace,monospace}
.rows{width:100%;margin:8px 0 4px}.rows td{border-top:1px solid var(--line)}tr.bad td{color:var(--bad)}
.inside details{margin-top:10px;font-size:14px}.inside details>summary{cursor:pointer;color:var(--soft)}
.inside details>summary::before{content:"+ "}.inside details[open]>summary::before{content:"- "}
.chip{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:7px}
.curve{width:100%;height:auto;display:block}.scroll{overflow-x:auto}.map{display:block}
.grid{stroke:var(--line);stroke-width:1}
.tick,.depth,.line,.column{font-size:10px;fill:var(--soft)}.tick,.line{text-anchor:end}
.limit{stroke-width:1.3;stroke-dasharray:6 4;fill:none}.limit-label{font-size:11px;text-anchor:end}
path.forward{stroke:var(--forward)}path.backward{stroke:var(--backward)}
circle.forward,text.forward{fill:var(--forward)}circle.backward,text.backward{fill:var(--backward)}
circle.bad{fill:var(--bad)}
.key{font-weight:400;font-size:12px;margin-left:12px}.key.forward{color:var(--forward)}
.key.backward{color:var(--backward)}.key::before{content:"\\25CF\\00A0"}
footer{margin-top:30px;color:var(--soft);font-size:13px}footer p{max-width:820px}footer h2{font-size:15px}
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head><body><main>
<header><div class="eyebrow">paddle-inline, parity report</div><h1 class="{state}">{verdict}</h1>
<p>The same weights and the same images went through PaddlePaddle and PyTorch. What every named sublayer gave
was compared; a strip shows it from the image (left) to the logits (right).
A click on a row unfolds it.</p></header>
<div class="cards">{cards}</div>
<div class="legend"><em>error as a share of its tolerance</em>{legend}</div>
{rows}
<footer><h2>Tolerances</h2>{tolerances}<p>{footer}</p></footer>
</main></body></html>
"""
