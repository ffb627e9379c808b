"""A model on data without scores: what is asked at once, and how it is shown."""

import logging
import re
from types import SimpleNamespace

import numpy as np

from unified.data.sources import BadRecord
from unified.evaluation import report, samples
from unified.lanes import TextLane
from unified.lanes.layout import Layout, Template
from unified.sequence import Example, Segment

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
SEEN, TRUTH, DRAWN = PICTURES
EXAMPLES = [
    Example((Segment(SEEN), Segment("how many?"), Segment("two", role="target")), "vqa"),
    Example((Segment("a dog"), Segment(TRUTH, role="target")), "draw"),
    Example((Segment(SEEN), Segment("is it?"), Segment("yes", role="target")), "vqa"),
    Example((Segment(TRUTH), Segment("is it?"), Segment("no", role="target")), "text"),
    Example((Segment(SEEN), Segment("redder"), Segment(TRUTH, role="target")), "draw"),
]


class Model:
    """Has nothing to say, and counts what it is asked."""

    def __init__(self):
        self.asked = []

    def answer(self, requests, *, task):
        self.asked.append((task, len(requests)))
        return [""] * len(requests)

    def draw(self, requests, *, seeds, task):
        self.asked.append((task, seeds))
        return [DRAWN] * len(requests)


def test_examples_of_a_kind_are_asked_at_once_and_come_in_order():
    model = Model()
    made = samples.ask(model, EXAMPLES, 7)
    assert model.asked == [("vqa", 2), ("draw", [8, 11]), ("text", 1)]
    assert [output is DRAWN for output in made] == [e.task == "draw" for e in EXAMPLES]


def test_a_card_reads_from_what_was_given_to_the_truth():
    outputs = samples.ask(Model(), EXAMPLES, 0)
    cards = [samples.card(e, {"model": x}) for e, x in zip(EXAMPLES, outputs, strict=True)]
    answer = [("picture", SEEN), ("prompt", "how many?"), ("model", "(nothing)"), ("truth", "two")]
    assert cards[0].parts == tuple(answer)
    assert [label for label, _ in cards[4].parts] == ["picture", "prompt", "model", "truth"]
    assert [[label for label, _ in run] for run in cards[4].runs] == [
        ["picture"], ["prompt"], ["model", "truth"],
    ]  # fmt: skip


class Source:
    __len__ = EXAMPLES.__len__
    __getitem__ = EXAMPLES.__getitem__


def test_the_page_of_a_source_keeps_the_order_and_speaks_of_no_rates(tmp_path):
    source = {"format": "tests.evaluation.test_samples:Source"}
    metrics = samples.run(Model(), tmp_path, sources={"mine": source}, examples=2)
    assert metrics == {"mine/examples": 2.0}
    page = (tmp_path / report.PAGE).read_text()
    labels = re.findall(r"(?:figcaption|dt)>([a-z]+)</", page)
    assert labels == ["picture", "prompt", "model", "truth", "prompt", "model", "truth"]
    assert "Rates in per cent" not in page and (tmp_path / report.SHEET).exists()


def test_what_training_leaves_out_is_not_asked_and_is_told(caplog):
    lane = TextLane("text", "und", "text", budget=12, losses=12)
    model = Model()
    model.layout = Layout((lane,), Template(begin_text=0, end_text=1))
    model.tokenizer = SimpleNamespace(encode=lambda text: [ord(letter) for letter in text])
    texts = ["short", "longer than a row", "fine"]
    records = [
        Example((Segment(text, "target"),), "text", f"a:{i}") for i, text in enumerate(texts)
    ]
    records.insert(0, BadRecord("a:bad", "cut"))
    with caplog.at_level(logging.WARNING):
        assert samples.readable(records, 9, model) == [records[1], records[3]]
    assert caplog.messages == [
        "bad record a:bad: cut",
        "bad record a:1: larger than a row: needs text 19 (limit 12), text_losses 18 (limit 12); "
        "raise the budget of its lanes",
    ]
