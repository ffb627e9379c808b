"""What is true of an example of the world of emoji."""

import dataclasses

from unified.worlds.emoji.scene import Scene, Thing


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of an example.

    `before` is the picture that is read and `after` the picture to draw, where there is one;
    `icon` says whether they are icons (one concept of 3,006) or scenes. `earlier` are questions
    about `before` that were asked and answered first. `answer` is the text to write, out of
    `choices` where the question has them. `kind` refines `task`. `place` is where an added thing
    must be: a relation, and the thing it is seen from.
    """

    task: str
    kind: str
    prompt: str
    answer: str = ""
    choices: tuple[str, ...] = ()
    earlier: tuple[tuple[str, str], ...] = ()
    before: Scene | None = None
    after: Scene | None = None
    place: tuple[str, Thing] | None = None
    icon: bool = False

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the choices; 0 where there are none."""
        return 1 / len(self.choices) if self.choices else 0.0
