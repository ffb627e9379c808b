"""Text without pictures: what names mean, and questions about scenes that are only told."""

import random

from unified.worlds.emoji import icons, language, questions
from unified.worlds.emoji.questions import Question
from unified.worlds.emoji.scene import OPPOSITE, RELATIONS, Scene
from unified.worlds.emoji.sprites import Concept
from unified.worlds.emoji.world import World

LANGUAGES = {
    "zh": "chinese",
    "ja": "japanese",
    "ko": "korean",
    "es": "spanish",
    "fr": "french",
    "de": "german",
    "ru": "russian",
    "pt": "portuguese",
    "hi": "hindi",
    "it": "italian",
}


def define(rng: random.Random, held_out: bool) -> Question:
    """What is known of a name: tags, group, translations. An empty prompt asks nothing."""
    concept = rng.choice(icons.pool(held_out)[0])
    kind = rng.choice(("tags", "group", "translation", "guess", "definition"))
    if kind == "group":
        prompt = rng.choice(("which group is {} in?", "{}: which group?"))
        return Question("group", prompt.format(concept.caption), concept.group, icons.GROUPS)
    if kind == "translation" and concept.i18n:
        return _translate(concept, rng)
    if kind == "tags":
        return Question("tags", f"words about {concept.caption}", _tags(concept, rng), ())
    if kind == "guess":
        return Question("guess", f"what is it: {_tags(concept, rng)}?", concept.caption, ())
    text = f"{concept.caption} ({concept.group}): {_tags(concept, rng)}"
    return Question("definition", "", text, ())


def _translate(concept: Concept, rng: random.Random) -> Question:
    language_code = rng.choice(tuple(concept.i18n))
    foreign, language_name = concept.i18n[language_code], LANGUAGES[language_code]
    if rng.random() < 0.5:
        return Question("translation", f"{concept.caption} in {language_name}?", foreign, ())
    return Question("translation", f"{foreign} in english?", concept.caption, ())


def _tags(concept: Concept, rng: random.Random) -> str:
    tags = [tag for tag in concept.tags if tag != concept.caption] or [concept.subgroup]
    return ", ".join(sorted(rng.sample(tags, min(4, len(tags)))))


def tell(scene: Scene, rng: random.Random, world: World) -> Question:
    """A scene in words, and a question that the words answer."""
    told = language.facts(scene, rng)
    sentence = language.say(told, rng)
    if told.relations and rng.random() < 0.5:
        (_, related), (a, b) = told.relations[0], told.groups[:2]
        if rng.random() < 0.5:
            a, b, related = b, a, OPPOSITE[related]
        groups = list(told.groups)
        verb = "are" if a.count > 1 else "is"
        pair = (questions.refer(a, groups, rng), questions.refer(b, groups, rng))
        prompt = f"where {verb} {pair[0]} from {pair[1]}?"
        return Question("told where", f"{sentence}. {prompt}", related, RELATIONS)
    asked = questions.ask(scene, rng, world, kinds=("count", "colour"))
    return Question(
        f"told {asked.kind}", f"{sentence}. {asked.prompt}", asked.answer, asked.choices
    )
