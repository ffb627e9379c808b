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
LINES = 25  # of a table that a program prints in the end
FRAME = 7  # lines of a table beside its rows, with the title


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


def table(
    metrics: Mapping[str, float], title: str = "Evaluation", lines: int | None = None
) -> Group:
    """The measures for a terminal of 80 columns: a column for each group (say, split), a row for
    each task, which says how much was all right, and below it one for each other measure.

    In no more than so many `lines` where they hold a row for each task: measures are left out, and
    it is said where they are.
    """
    columns, rows = metric.rows(metrics)
    pairs = [columns[i : i + 2] for i in range(0, len(columns), 2)]  # as many as 80 columns hold
    shown = (
        rows if lines is None else metric.most_telling(rows, lines // max(len(pairs), 1) - FRAME)
    )
    rates = ["rates in per cent ± standard error (Wilson)", "n examples"]
    said = rates * metric.has_rates(metrics) + [f"more in {PAGE}"] * (len(shown) < len(rows))
    return Group(plain(title, "bold"), *(_measures(shown, p, "; ".join(said)) for p in pairs))


def plain(text: str, style: str = "") -> Text:
    """Text as it is: what stands in brackets is no markup, and nothing in it moves the cursor."""
    return Text("\n".join(map(one_line, text.split("\n"))), style)


def _measures(rows: Sequence[metric.Row], columns: Sequence[str], caption: str) -> Table:
    made = Table(
        caption=plain(caption), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    made.add_column("", overflow="fold")
    for column in columns:
        made.add_column(plain(column), justify="right", overflow="fold")
        made.add_column("(chance) n", justify="right", style="dim", overflow="fold")
    for task, measures in itertools.groupby(rows, key=lambda row: row.task):
        cells = {row.measure: row.cells for row in measures if row.cells.keys() & set(columns)}
        texts = lambda cells: itertools.chain(*(_texts(cells.get(column)) for column in columns))
        if task and cells:
            made.add_row(plain(task, "bold"), *texts(cells.pop("all", {})))
        for measure, found in cells.items():
            made.add_row(plain("  " * bool(task) + measure), *texts(found))
    return made


def _texts(cell: metric.Cell | None) -> tuple[str, str]:
    """Value; chance and examples."""
    if cell is None:
        return "", ""
    chance = "" if cell.chance is None else f"({cell.text(cell.chance)}) "
    return str(cell), chance + ("" if cell.examples is None else f"{cell.examples:.0f}")
