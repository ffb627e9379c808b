"""One HTML page that needs nothing else: tables of the measures and cards with their pictures."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from unified.evaluation import metric
from unified.evaluation.card import Card, Section

STYLE = """
:root { --paper: #f5f5f2; --card: #fff; --ink: #1c1c1c; --faint: #77776f; --line: #e2e2dc;
        --bar: #cfe3d6; --right: #2e9e5b; --wrong: #d64545; color-scheme: light dark }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --card: #222; --ink: #eee; --faint: #999; --line: #383838;
          --bar: #27503a } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: var(--paper);
       color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin: 2.4rem 0 .2rem }
p, nav, label.only { color: var(--faint); margin: .2rem 0 .8rem }
a { color: inherit; margin-right: 1rem }
.tables { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
table { border-collapse: collapse; background: var(--card); border-radius: 8px; overflow: hidden }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: left }
thead th { font-weight: 600 } th { font-weight: 400 } caption { text-align: left; font-weight: 600;
  padding: .4rem 0 }
td { min-width: 6.5rem; font-variant-numeric: tabular-nums } td small { color: var(--faint) }
td.rate { background: linear-gradient(90deg, var(--bar) var(--value), transparent 0) }
.cards { display: grid; gap: .8rem; align-items: start;
         grid-template-columns: repeat(auto-fill, minmax(calc(2rem + 9rem * var(--most)), 1fr)) }
.card { background: var(--card); border-radius: 8px; padding: .8rem;
        border-left: 4px solid var(--line) }
.card.right { border-color: var(--right) } .card.wrong { border-color: var(--wrong) }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0 } figcaption, dt, .reason { font-size: .8rem; color: var(--faint) }
img { width: 128px; image-rendering: pixelated; border: 1px solid var(--line); display: block }
dl { margin: .4rem 0 0 } dd { margin: 0 0 .3rem; overflow-wrap: anywhere }
.wrong .reason { color: var(--wrong) } .right .reason { color: var(--right) }
body:has(#only:checked) .card:not(.wrong) { display: none }
"""


RATES = """Rates in per cent with their standard error (Wilson); beside them what a guess without
looking scores, and the number of examples."""


def build(title: str, metrics: Mapping[str, float], sections: Sequence[Section]) -> str:
    """The page; pictures are embedded as PNG."""
    shown = [section for section in sections if section.cards]
    links = "".join(f'<a href="#s{i}">{_safe(s.title)}</a>' for i, s in enumerate(shown))
    body = "".join(_section(f"s{i}", section) for i, section in enumerate(shown))
    rates = f"<p>{RATES}</p>" if metric.has_rates(metrics) else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{_safe(title)}</h1>
{rates}
<div class="tables">{_tables(metrics)}</div>
<h2>Examples</h2><nav>{links}</nav>
<label class="only"><input type="checkbox" id="only"> only what is wrong</label>
{body}</body></html>
"""


def _tables(metrics: Mapping[str, float]) -> str:
    """One table per task."""
    columns, rows = metric.rows(metrics)
    tasks = dict.fromkeys(row.task for row in rows)
    return "".join(_table(t, columns, [row for row in rows if row.task == t]) for t in tasks)


def _table(task: str, columns: Sequence[str], rows: Sequence[metric.Row]) -> str:
    columns = [column for column in columns if any(column in row.cells for row in rows)]
    head = "".join(f"<th>{_safe(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{_safe(row.measure)}</th>{''.join(_cell(row.cells.get(c)) for c in columns)}</tr>"
        for row in rows
    )
    caption = f"<caption>{_safe(task)}</caption>"
    return f"<table>{caption}<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: metric.Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    beside = []
    if cell.chance is not None:
        beside.append(f"chance {cell.text(cell.chance)}")
    if cell.examples is not None:
        beside.append(f"n {cell.examples:.0f}")
    small = f" <small>{', '.join(beside)}</small>" if beside else ""
    rate = f' class="rate" style="--value: {100 * cell.value:.1f}%"' if cell.is_rate else ""
    return f"<td{rate}>{cell}{small}</td>"


def _section(anchor: str, section: Section) -> str:
    note = f"<p>{_safe(section.note)}</p>" if section.note else ""
    cards = "".join(map(_card, section.cards))
    title = f'<h2 id="{anchor}">{_safe(section.title)}</h2>'
    most = max(1.5, *(card.across for card in section.cards))
    grid = f'<div class="cards" style="--most: {most}">{cards}</div>'
    return f"<section>{title}{note}{grid}</section>\n"


def _card(card: Card) -> str:
    verdict = {True: " right", False: " wrong", None: ""}[card.correct]
    reason = f'<div class="reason">{_safe(card.reason)}</div>' if card.reason else ""
    return f'<div class="card{verdict}">{"".join(map(_run, card.runs))}{reason}</div>'


def _run(parts: Sequence[tuple[str, Any]]) -> str:
    """Neighbours of one kind: texts as a list, pictures as a row."""
    if isinstance(parts[0][1], str):
        texts = (f"<dt>{_safe(label)}</dt><dd>{_safe(text)}</dd>" for label, text in parts)
        return f"<dl>{''.join(texts)}</dl>"
    figures = (
        f'<figure><img alt="{_safe(label)}" src="{_embedded(pixels)}">'
        f"<figcaption>{_safe(label)}</figcaption></figure>"
        for label, pixels in parts
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def _embedded(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _safe(text: str) -> str:
    return html.escape(text).encode(errors="replace").decode()  # half a character cannot be written
