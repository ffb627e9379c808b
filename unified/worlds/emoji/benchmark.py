"""Everything asked of a model of emoji scenes: to describe, answer, draw, edit and reconstruct.

Each task is measured on examples of its own of every split, scenes and icons apart. Beside each
rate stands what is reached without looking: by always giving the commonest answer, another
example's sentence or picture, or, to an edit, the picture as it was.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from unified.evaluation import report
from unified.evaluation.card import Card, Section
from unified.evaluation.metric import Metrics
from unified.evaluation.model import Model
from unified.evaluation.reconstruction import psnr, ssim
from unified.evaluation.verdict import Verdict, collect
from unified.worlds.emoji import judge
from unified.worlds.emoji.holdout import Split
from unified.worlds.emoji.scene import Scene, render
from unified.worlds.emoji.score import score_scene
from unified.worlds.emoji.tasks import TASKS, EmojiSource, to_example
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.verdicts import JUDGES

OPEN_KINDS = ("tags", "definition")  # text of which many versions are right
BLIND_EXAMPLES = 1000  # for the scores of those who do not look, where they cost little
EXACT = 100.0  # dB that stand for a picture without any error
TITLES = {
    "caption": "Describe",
    "vqa": "Answer",
    "locate": "Locate",
    "text": "Answer from words alone",
    "generate": "Draw from words",
    "layout": "Draw from boxes",
    "edit": "Edit",
}


Output = Any  # text, pixels, or the scene that they show


@dataclasses.dataclass(frozen=True)
class Suite:
    """One task on scenes or on icons."""

    task: str
    icons: bool

    def judge(self, truth: Truth, output: Output) -> Verdict:
        """Of text or pixels."""
        return JUDGES[self.task, self.icons](truth, output)

    @property
    def name(self) -> str:
        return f"{self.task} icons" if self.icons else self.task

    @property
    def draws(self) -> bool:
        return self.task in ("generate", "layout", "edit")


SUITES = tuple(Suite(*key) for key in JUDGES)


def run(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    examples_per_task: int = 64,
    seed: int = 0,
    splits: Sequence[Split] = ("validation", "heldout"),
    tasks: Sequence[str] = (*TASKS, "reconstruction"),
    icons: bool = True,
    world: Mapping[str, Any] = MappingProxyType({}),
    shown: int = 24,
    title: str = "Emoji scenes",
    extra: Mapping[str, float] | None = None,
) -> Metrics:
    """Measures `model` and writes `metrics.json`, `samples.png` and `report.html` into `folder`.

    `icons`: single pictures of any concept too, in the splits that have them. `world`: what
    scenes are made of, fields of `World`. `shown`: examples of each task on the
    page. `extra`: metrics measured elsewhere (losses), reported with the others. Metrics are named
    `split/task/measure`.
    """
    metrics: Metrics = {}
    sections: list[Section] = []
    for split in splits:
        for suite in SUITES:
            if suite.task not in tasks or not has(split, suite, icons):
                continue
            found, cards = measure(model, suite, split, examples_per_task, seed, world)
            metrics |= found
            name = f"{TITLES[suite.task]}: {'icons, ' * suite.icons}{split}"
            sections.append(Section(name, tuple(cards[:shown])))
        if "reconstruction" in tasks:
            found, cards = reconstruct(model, split, examples_per_task, seed, world)
            metrics |= found
            sections.append(Section(f"Reconstruct: {split}", tuple(cards[:shown])))
    metrics |= extra or {}
    report.write(folder, metrics, sections, title)
    return metrics


def has(split: Split, suite: Suite, icons: bool) -> bool:
    """Whether a split has examples of a suite: held-out pairs are of scenes, concepts of icons."""
    if suite.icons:
        return icons and split != "heldout"
    return split != "concepts"


def measure(
    model: Model, suite: Suite, split: Split, n: int, seed: int, world: Mapping[str, Any]
) -> tuple[Metrics, list[Card]]:
    """Asks for `n` examples of a task, and judges what comes back."""
    many = n if suite.icons and suite.draws else max(n, BLIND_EXAMPLES)  # an icon costs a rendering
    known = truths(suite, split, many, seed, world)
    asked = known[:n]
    requests = [[s for s in to_example(t).segments if s.role == "context"] for t in asked]
    outputs: list[Output] = (
        list(model.draw(requests, seeds=range(seed, seed + n), task=suite.task))
        if suite.draws
        else list(model.answer(requests, task=suite.task))
    )
    verdicts = [suite.judge(t, o) for t, o in zip(asked, outputs, strict=True)]
    blind = look_away(suite, known)
    cards = [_card(t, o, v) for t, o, v in zip(asked, outputs, verdicts, strict=True)]
    return collect(f"{split}/{suite.name}", verdicts, blind), cards


def truths(suite: Suite, split: Split, n: int, seed: int, world: Mapping[str, Any]) -> list[Truth]:
    """The first `n` examples that have one right answer."""
    share = 1.0 if suite.icons else 0.0
    source = EmojiSource(split, {suite.task: 1.0}, seed=seed, world=world, icons=share)
    found: list[Truth] = []
    i = 0
    while len(found) < n:
        truth = source.truth(i)
        if truth.task != "text" or truth.kind not in OPEN_KINDS:
            found.append(truth)
        i += 1
    return found


def look_away(suite: Suite, known: Sequence[Truth]) -> list[Verdict]:
    """Verdicts on one who knows the task, and the kind of question, but does not look."""
    if suite.task == "edit":  # the picture as it was
        return [Verdict({"changed": False, t.kind: False, "all": False}) for t in known]
    others = [*known[1:], *known[:1]]
    outputs: list[Output]
    if suite.draws:
        scenes = [judge.known(truth.after) for truth in others]
        outputs = [render(scene) for scene in scenes] if suite.icons else list(scenes)
    elif suite.task in ("caption", "locate"):
        outputs = [truth.answer for truth in others]
    else:
        answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for truth in known:
            answers[truth.kind][truth.answer] += 1
        outputs = [answers[truth.kind].most_common(1)[0][0] for truth in known]
    return [suite.judge(truth, output) for truth, output in zip(known, outputs, strict=True)]


def reconstruct(
    model: Model, split: Split, n: int, seed: int, world: Mapping[str, Any]
) -> tuple[Metrics, list[Card]]:
    """How near `n` pictures come back: PSNR (dB), SSIM, and what the parser still reads."""
    icons = split == "concepts"
    suite = Suite("generate", icons)
    scenes = [judge.known(truth.after) for truth in truths(suite, split, n, seed, world)]
    pictures = np.stack([render(scene) for scene in scenes])
    again = model.reconstruct(pictures)
    verdicts, cards = [], []
    for scene, picture, other in zip(scenes, pictures, again, strict=True):
        verdict = _compare(scene, picture, other, read=not icons)
        verdicts.append(verdict)
        parts = (("picture", picture), ("reconstructed", other))
        cards.append(Card(parts, verdict.is_correct, verdict.reason))
    return collect(f"{split}/reconstruction", verdicts), cards


def _compare(scene: Scene, picture: np.ndarray, other: np.ndarray, read: bool) -> Verdict:
    """A reconstruction; `all`: the parser reads the same objects at the same places from it."""
    pair = picture[None], other[None]
    decibels = min(float(psnr(*pair)[0]), EXACT)
    measures: dict[str, bool | float] = {"psnr": decibels, "ssim": float(ssim(*pair)[0])}
    if not read:
        return Verdict(measures)
    seen = judge.read(other)
    return Verdict(measures | {"all": score_scene(scene, seen)["all"]}, judge.summary(seen))


def _card(truth: Truth, output: str | np.ndarray, verdict: Verdict) -> Card:
    parts: list[tuple[str, str | np.ndarray]] = []
    if truth.before is not None:
        parts.append(("before" if truth.after else "picture", render(truth.before)))
    if truth.after is not None:
        parts += [("drawn", output), ("truth", render(truth.after))]
    parts.append((truth.kind if truth.task == "edit" else "prompt", truth.prompt))
    if truth.after is None:
        parts += [("answer", output), ("truth", truth.answer)]
    return Card(tuple(parts), verdict.is_correct, verdict.reason)
