"""Icons of a few concepts, by name: what a model can be taught that knows other things."""

import random
from collections.abc import Sequence

from unified.worlds.emoji import icons
from unified.worlds.emoji.sprites import STYLES, Style, concepts
from unified.worlds.emoji.tasks import EmojiSource
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.vocabulary import BACKGROUNDS


class ConceptSource(EmojiSource):
    """Endless icons to draw: of the concepts that `names` lists, in the `styles` of them that
    exist, on `backgrounds`. `seed` and `length` as of `EmojiSource`.

    Raises ValueError for a concept, a style or a background that there is not.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        styles: Sequence[Style] = STYLES,
        backgrounds: Sequence[str] = tuple(BACKGROUNDS),
        seed: int = 0,
        length: int = 1 << 24,
    ):
        super().__init__("train", {"generate": 1.0}, seed=seed, icons=1.0, length=length)
        known = {concept.caption: concept for concept in concepts().values()}
        given = {"names": (names, known), "styles": (styles, STYLES)}
        for field, (chosen, there) in (given | {"backgrounds": (backgrounds, BACKGROUNDS)}).items():
            if unknown := [name for name in chosen if name not in there]:
                raise ValueError(f"{field}: there is no {', '.join(map(repr, unknown))}")
        self._drawings = [
            (known[name], style)
            for name in names
            for style in styles
            if style in known[name].styles
        ]
        self._backgrounds = tuple(backgrounds)
        if not self._drawings or not self._backgrounds:
            raise ValueError(f"no drawing of {tuple(names)} in {tuple(styles)}")

    def truth(self, i: int) -> Truth:
        """What is true of example `i`."""
        rng = random.Random(f"{self.seed}/concepts/{i}")
        concept, style = rng.choice(self._drawings)
        scene = icons.draw(concept, style, rng.choice(self._backgrounds))
        return Truth("generate", "icon", icons.describe(scene, rng), after=scene, icon=True)
