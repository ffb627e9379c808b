"""The files an evaluation leaves, and the table a program prints."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from unified.evaluation import metric, page, report, sheet
from unified.evaluation.card import Card, Section

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
CARD = Card((("drawn", PICTURE), ("prompt", "a <b>red</b> apple & a dog")), False, "wrong: colour")
SECTIONS = [Section("Draw", (CARD, Card((("answer", "yes"),), True))), Section("Nothing", ())]
METRICS = metric.rate("heldout/vqa/colour", [True, False], 0.1) | {"validation/loss/text": 1.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    report.write(folder, METRICS, SECTIONS, "A title")
    return folder


def test_metrics_are_written_as_they_are(folder):
    assert json.loads((folder / report.METRICS).read_text()) == METRICS


def test_the_page_needs_nothing_else(folder):
    text = (folder / report.PAGE).read_text()
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,|#)', text)
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)


def test_the_page_shows_what_was_measured_and_drawn(folder):
    text = (folder / report.PAGE).read_text()
    assert text.count("<img") == 1 and "A title" in text and "wrong: colour" in text
    assert "a &lt;b&gt;red&lt;/b&gt; apple &amp; a dog" in text
    assert "50.0 ±28.9" in text and "chance 10.0" in text and "1.25" in text
    assert "Nothing" not in text


def test_pictures_on_the_page_are_exact():
    text = page.build("", {}, SECTIONS)
    (data,) = re.findall(r'src="(data:image/png;base64,[^"]+)"', text)
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(image), PICTURE)


def test_the_sheet_enlarges_pictures_by_a_whole_factor(folder):
    with Image.open(folder / report.SHEET) as image:
        pixels = np.asarray(image)
    large = PICTURE.repeat(2, 0).repeat(2, 1)
    rows, columns = np.where((pixels == large[0, 0]).all(-1))
    places = [pixels[y : y + 128, x : x + 128] for y, x in zip(rows, columns, strict=True)]
    assert any(place.shape == large.shape and (place == large).all() for place in places)


def test_nothing_to_show_makes_no_sheet(tmp_path):
    report.write(tmp_path, METRICS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [report.METRICS, report.PAGE]


def test_text_is_wrapped_at_spaces_and_inside_words_that_are_too_wide():
    font = sheet._font(15)
    width = font.getlength("two red apples ")
    assert sheet.wrap("two red apples left of a dog", font, width)[0] == "two red apples"
    assert sheet.wrap("one\ntwo", font, width) == ["one", "two"]
    lines = sheet.wrap("a " + "x" * 40, font, width)
    assert lines[0] == "a" and "".join(lines[1:]) == "x" * 40
    assert all(font.getlength(line) <= width for line in lines)


def test_the_table_prints_values_errors_chance_and_numbers():
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table(METRICS, "A title"))
    text = console.file.getvalue()
    for part in ("A title", "heldout", "colour", "50.0 ±28.9", "10.0", "2", "1.25"):
        assert part in text


@pytest.mark.parametrize(("metrics", "told"), [(METRICS, True), ({"mine/examples": 3.0}, False)])
def test_rates_are_spoken_of_where_there_are_some(metrics, told):
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table(metrics))
    assert ("rates in per cent" in console.file.getvalue()) == told
    assert ("Rates in per cent" in page.build("", metrics, ())) == told


def test_the_table_splits_no_word_at_80_columns():
    tasks = ("generate icons", "reconstruction", "edit")
    metrics: dict = {}
    for split in ("validation", "heldout", "concepts"):
        for name in (f"{split}/{task}/background" for task in tasks):
            metrics |= metric.rate(name, [True] * 1000, 1.0)
    times = ("", "/t0.00-0.25", "/t0.25-0.50", "/t0.50-0.75", "/t0.75-1.00")
    losses = ("/text", *(f"/flow{time}" for time in times), "")
    metrics |= {f"validation/loss/{task}{loss}": 1.25 for task in tasks for loss in losses}
    console = Console(file=io.StringIO(), width=80)
    console.print(report.table(metrics))
    text = console.file.getvalue()
    whole = {"validation", "heldout", "concepts", *tasks, "background", "100.0 ±0.0"}
    assert {
        word for word in whole if not re.search(rf"(^|\s){re.escape(word)}(\s|$)", text)
    } == set()
    assert text.count("(100.0) 1000") == 9 and text.count("1.250") == 21
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_of_25_lines_has_all_of_every_task_and_says_where_the_rest_is():
    tasks = [f"task {i}" for i in range(12)]
    metrics: dict = {}
    for split in ("validation", "heldout"):
        for name in (f"{split}/{task}/{kind}" for task in tasks for kind in ("colour", "all")):
            metrics |= metric.rate(name, [True] * 10)
    metrics |= {f"validation/loss/{task}/flow": 1.25 for task in tasks} | {"validation/loss": 1.5}
    console = Console(file=io.StringIO(), width=80)
    console.print(report.table(metrics, "A title", report.LINES))
    text = console.file.getvalue()
    assert all(re.search(rf"{task}\s+100.0 .* 100.0", text) for task in tasks)
    assert re.search(r"loss\s+1.500", text) and "more in report.html" in text
    assert len(text.splitlines()) <= report.LINES


@pytest.mark.parametrize("text", ["[/b]", "[bold]", ":smile:", "[link=x]", "a\\", "\x1b[31m"])
def test_text_in_the_table_is_no_markup(text):
    metrics = {f"{text}/{text}/{text}": 0.5, f"{text}/loss/{text}": 1.0}
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table(metrics, text))
    shown = console.file.getvalue()
    assert shown.count(text.replace("\x1b", "\\x1b")) >= 4
    assert "\x1b" not in shown


def test_halves_of_characters_are_shown_as_such(tmp_path):
    card = Card((("answer", "\ud800 <b>"),), False, "\udfff")
    report.write(tmp_path, {"a/b/c": 1.0}, [Section("\ud800", (card,))], "\ud800")
    assert "&lt;b&gt;" in (tmp_path / report.PAGE).read_text()
