"""Tasks: examples of reading, answering, drawing and editing, made from scenes and icons.

`EmojiSource[i]` depends on (seed, split, i) alone. Its pictures and sentences are true by
construction, and `EmojiSource.truth(i)` says what is true of example i.
"""

import itertools
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from unified.evaluation.verdict import Verdict
from unified.sequence import Example, Segment
from unified.worlds.emoji import arrange, edits, icons, language, questions, reading
from unified.worlds.emoji.holdout import SPLITS, Split, is_held_out_pair
from unified.worlds.emoji.language import Group
from unified.worlds.emoji.scene import Scene, render
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.verdicts import JUDGES
from unified.worlds.emoji.vocabulary import NOUNS
from unified.worlds.emoji.world import MOST, World
from unified.worlds.emoji.world import world as make_world

TASKS = {
    "caption": 2.0,
    "vqa": 3.0,
    "locate": 1.0,
    "generate": 4.0,
    "edit": 4.0,
    "layout": 1.5,
    "text": 1.0,
}
CAPTION_PROMPTS = ("describe the picture", "describe what you see", "caption")
LOCATE_PROMPTS = ("locate everything", "list the boxes", "where is everything?")
ICON_TASKS = ("caption", "vqa", "generate", "edit")


def held_out_pairs(made: World) -> tuple[Group, ...]:
    """The pairs of this world's objects with a colour that training never shows."""
    pairs = ((name, colour) for name in made.nouns for colour in NOUNS[name].colours)
    return tuple(Group(1, name, c) for name, c in pairs if is_held_out_pair(c, name))


class EmojiSource:
    """Random access to endless examples of `tasks` (name -> weight) in one split.

    split: `train` and `validation` differ in their scenes; each example of `heldout` has a pair of
    colour and object that training never shows, and each example of `concepts` a concept that it
    never shows. `world` are fields of `World`, what scenes are made of; `icons` the share of icons
    among pictures; `questions` the most that are asked about one picture in training; `length`
    what `len` says. Raises ValueError for a task or split unknown, a number out of its range, or a
    world without what the split shows.
    """

    def __init__(
        self,
        split: Split = "train",
        tasks: Mapping[str, float] = TASKS,
        *,
        seed: int = 0,
        world: Mapping[str, Any] = MappingProxyType({}),
        icons: float = 0.2,
        questions: int = 5,
        length: int = 1 << 24,
    ):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        if unknown := set(tasks) - set(TASKS):
            raise ValueError(f"unknown tasks {sorted(unknown)}: choose from {', '.join(TASKS)}")
        if questions < 1:
            raise ValueError(f"questions={questions}: at least 1 is asked about a picture")
        if not 0 <= icons <= 1:
            raise ValueError(f"icons={icons}: a share is from 0 to 1")
        if split == "concepts":
            tasks = {task: weight for task, weight in tasks.items() if task in ICON_TASKS}
        if sum(tasks.values()) <= 0:
            raise ValueError(f"no task with a positive weight in {dict(tasks)} for split {split}")
        self.world = make_world(world)
        self._pairs = held_out_pairs(self.world)
        if split == "heldout" and not self._pairs:
            raise ValueError(f"no pair of {self.world.nouns} and a colour is held out")
        self.split, self.seed, self.length = split, seed, length
        self.questions = questions
        self.icons = {"heldout": 0.0, "concepts": 1.0}.get(split, icons)
        self._tasks = tuple(tasks)
        self._weights = tuple(itertools.accumulate(tasks.values()))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Example:
        if not 0 <= i < self.length:
            raise IndexError(f"example {i} of {self.length}")
        return to_example(self.truth(i), origin=f"emoji/{self.split}/{self.seed}/{i}")

    def judge(self, i: int, output: Any) -> Verdict:
        """Of text or pixels made of example `i`."""
        truth = self.truth(i)
        return JUDGES[truth.task, truth.icon](truth, output)

    def truth(self, i: int) -> Truth:
        """What is true of example `i`."""
        rng = random.Random(f"{self.seed}/{self.split}/{i}")
        task = rng.choices(self._tasks, cum_weights=self._weights)[0]
        if task in ICON_TASKS and rng.random() < self.icons:
            return self._icon(task, rng)
        if task == "text":
            return self._text(rng)
        if task == "edit":
            return self._edit(rng)
        scene = self._scene(rng)
        if task == "caption":
            prompt = rng.choice(CAPTION_PROMPTS)
            return Truth(task, "scene", prompt, language.describe(scene, rng), before=scene)
        if task == "vqa":
            return self._ask(scene, rng)
        if task == "locate":
            boxes = language.say_layout(scene, rng, in_order=True)
            return Truth(task, "scene", rng.choice(LOCATE_PROMPTS), boxes, before=scene)
        if task == "layout":
            return Truth(task, "scene", language.say_layout(scene, rng), after=scene)
        prompt = ("draw " if rng.random() < 0.2 else "") + language.describe(scene, rng)
        return Truth(task, "scene", prompt, after=scene)

    def _scene(self, rng: random.Random) -> Scene:
        first = rng.choice(self._pairs) if self.split == "heldout" else None
        return arrange.sample(rng, self.world, first)

    def _ask(self, scene: Scene, rng: random.Random) -> Truth:
        """A question about the scene; in training the last of several, no two the same."""
        number = rng.randint(1, self.questions) if self.split == "train" else 1
        first = self.split == "heldout"
        asked = [questions.ask(scene, rng, self.world, first) for _ in range(number)]
        *earlier, last = {question.prompt: question for question in asked}.values()
        turns = tuple((question.prompt, question.answer) for question in earlier)
        words = (last.kind, last.prompt, last.answer, last.choices)
        return Truth("vqa", *words, earlier=turns, before=scene)

    def _edit(self, rng: random.Random) -> Truth:
        new, first = None, self.split == "heldout"
        if first and rng.random() < 0.6:  # the edit brings the pair in
            new = rng.choice(self._pairs)
            colours = [c for c in NOUNS[new.noun].colours if self.world.allows(c, new.noun)]
            old = Group(1, new.noun, rng.choice(colours))
            recolours = rng.random() < 0.6 or not {"add", "replace"} & {*self.world.edits}
            old = old if recolours else arrange.group(rng, 1, self.world, (new,))
            scene = arrange.sample(rng, self.world, old, most=MOST - 1)
        else:
            scene = self._scene(rng)
        done = edits.edit(scene, rng, self.world, first, new)
        words = (done.kind, done.instruction)
        return Truth("edit", *words, before=scene, after=done.after, place=done.place)

    def _text(self, rng: random.Random) -> Truth:
        if self.split == "heldout" or rng.random() < 0.5:
            asked = reading.tell(self._scene(rng), rng, self.world)
        else:
            asked = reading.define(rng, held_out=False)
        return Truth("text", asked.kind, asked.prompt, asked.answer, asked.choices)

    def _icon(self, task: str, rng: random.Random) -> Truth:
        scene = icons.sample(rng, self.split == "concepts", self.world.side)
        if task == "caption":
            text = icons.describe(scene, rng)
            return Truth(task, "icon", rng.choice(CAPTION_PROMPTS), text, before=scene, icon=True)
        if task == "generate":
            return Truth(task, "icon", icons.describe(scene, rng), after=scene, icon=True)
        if task == "vqa":
            asked = icons.ask(scene, rng)
            choice = (asked.prompt, asked.answer, asked.choices)
            return Truth(task, asked.kind, *choice, before=scene, icon=True)
        done = icons.edit(scene, rng)
        words = (done.kind, done.instruction)
        return Truth(task, *words, before=scene, after=done.after, icon=True)


def to_example(truth: Truth, origin: str = "") -> Example:
    """The segments of an example: what is read, then what is written or drawn."""
    segments = []
    if truth.before is not None:
        use = "see" if truth.after is None else "edit"
        segments.append(Segment(render(truth.before), use=use))
    for question, answer in truth.earlier:
        segments += [Segment(question), Segment(answer, role="target")]
    if truth.prompt:
        segments.append(Segment(truth.prompt))
    if truth.answer:
        segments.append(Segment(truth.answer, role="target"))
    if truth.after is not None:
        segments.append(Segment(render(truth.after), role="target"))
    return Example(tuple(segments), task=truth.task, origin=origin)
