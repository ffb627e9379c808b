"""What an evaluation leaves behind: numbers, a sheet of pictures, and one page with everything."""

import json
import os
from collections.abc import Mapping, Sequence

from etils import epath
from rich.table import Table

from unified.evaluation import metric, page, sheet
from unified.evaluation.card import Section

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


def table(metrics: Mapping[str, float], title: str = "Evaluation") -> Table:
    """The measures for a terminal: a row each, a column for each group (say, split)."""
    columns, rows = metric.rows(metrics)
    caption = "rates in per cent ± standard error; beside them (chance) and number of examples"
    made = Table(title=title, caption=caption)
    made.add_column("task", overflow="fold")
    made.add_column("measure", overflow="fold")
    for column in columns:
        made.add_column(column, justify="right", overflow="fold")
        made.add_column("(chance) n", justify="right", style="dim", overflow="fold")
    task = None
    for row in rows:
        if task not in (None, row.task):
            made.add_section()
        cells = [_texts(row.cells.get(column)) for column in columns]
        name = "" if row.task == task else row.task
        made.add_row(name, row.measure, *(text for cell in cells for text in cell))
        task = row.task
    return made


def _texts(cell: metric.Cell | None) -> tuple[str, str]:
    """Value; chance and examples."""
    if cell is None:
        return "", ""
    chance = "" if cell.chance is None else f"({cell.text(cell.chance)}) "
    return str(cell), chance + ("" if cell.examples is None else f"{cell.examples:.0f}")
