"""What an evaluation leaves behind: numbers, a sheet of pictures, and one page with everything."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence

from etils import epath
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from unified.evaluation import metric, page, sheet
from unified.evaluation.card import Section
from unified.message import one_line

METRICS, SHEET, PAGE = "metrics.json", "samples.png", "report.html"


def write(
    folder: str | os.PathLike[str],
    metrics: Mapping[str, float],
    sections: Sequence[Section] = (),
    title: str = "Evaluation",
) -> None:
    """Writes `metrics.json`, `samples.png` (if there are sections) and `report.html`."""
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / METRICS).write_text(json.dumps(dict(metrics), indent=1) + "\n")
    (place / PAGE).write_text(page.build(title, metrics, sections))
    if any(section.cards for section in sections):
        with (place / SHEET).open("wb") as file:
            sheet.draw(title, sections).save(file, "PNG")


def table(metrics: Mapping[str, float], title: str = "Evaluation") -> Group:
    """The measures for a terminal of 80 columns, the losses below in a table of their own.

    A row each, under the name of its task; a column for each group (say, split).
    """
    rates = "rates in per cent ± standard error (Wilson); n examples"
    caption = rates if metric.has_rates(metrics) else ""
    columns, rows = metric.rows({k: v for k, v in metrics.items() if not metric.is_loss(k)})
    pairs = [columns[i : i + 2] for i in range(0, len(columns), 2)]  # as many as 80 columns hold
    made = [_measures(rows, pair, caption) for pair in pairs]
    made += [_losses(*losses) for losses in metric.losses(metrics).items()]
    return Group(plain(title, "bold"), *made)


def plain(text: str, style: str = "") -> Text:
    """Text as it is: what stands in brackets is no markup, and nothing in it moves the cursor."""
    return Text("\n".join(map(one_line, text.split("\n"))), style)


def _measures(rows: Sequence[metric.Row], columns: Sequence[str], caption: str) -> Table:
    made = _frame(caption)
    for column in columns:
        made.add_column(plain(column), justify="right", overflow="fold")
        made.add_column("(chance) n", justify="right", style="dim", overflow="fold")
    task = ""
    for row in (row for row in rows if row.cells.keys() & set(columns)):
        if row.task != task:
            task = row.task
            made.add_row(plain(task, "bold"))
        texts = itertools.chain(*(_texts(row.cells.get(column)) for column in columns))
        made.add_row(plain("  " * bool(task) + row.measure), *texts)
    return made


def _losses(group: str, tasks: Mapping[str, Mapping[str, float]]) -> Table:
    """A row for each task, a column for each loss; `all` is their weighted sum."""
    made = _frame(f"losses of {group}; t: flow time, from data (0) to noise (1)")
    names = dict.fromkeys(name for losses in tasks.values() for name in losses if name != "all")
    for name in (*names, "all"):
        head = name.replace("/", "\n").replace("-", "-\n")  # `flow/t0.25-0.50` takes 6 columns
        made.add_column(plain(head), justify="right", overflow="fold")
    for task, losses in tasks.items():
        shown = (str(metric.Cell(losses[n])) if n in losses else "" for n in (*names, "all"))
        made.add_row(plain(task), *shown)
    return made


def _frame(caption: str) -> Table:
    made = Table(
        caption=plain(caption), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    made.add_column("", overflow="fold")
    return made


def _texts(cell: metric.Cell | None) -> tuple[str, str]:
    """Value; chance and examples."""
    if cell is None:
        return "", ""
    chance = "" if cell.chance is None else f"({cell.text(cell.chance)}) "
    return str(cell), chance + ("" if cell.examples is None else f"{cell.examples:.0f}")
