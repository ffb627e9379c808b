"""The words of scenes: 48 objects that can be told apart at 18 pixels, and how to name them."""

import dataclasses

from unified.worlds.emoji import sprites


@dataclasses.dataclass(frozen=True)
class Noun:
    """An object of scenes.

    `id` is the concept; `kind` one of `KINDS`. `natural` is the colour word that fits its own
    drawing in every style of `STYLES`, or None; naming that colour and naming none mean the same
    drawing. `near` are further colours too close to the drawing, never used for this object.
    """

    singular: str
    plural: str
    id: str
    kind: str
    natural: str | None = None
    near: tuple[str, ...] = ()

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours the object can be tinted with: exact, and apart from its natural drawing."""
        return tuple(c for c in sprites.COLOURS if c != self.natural and c not in self.near)


_TABLE = """
animal  dog         dogs          1f436   -       brown
animal  cat         cats          1f431   -       orange,yellow
animal  rabbit      rabbits       1f430   -
animal  bear        bears         1f43b   brown
animal  panda       pandas        1f43c   -       black
animal  pig         pigs          1f437   pink
animal  horse       horses        1f40e   brown   orange,yellow
animal  elephant    elephants     1f418   -       black
animal  penguin     penguins      1f427   -       black
animal  owl         owls          1f989   brown   pink
animal  frog        frogs         1f438   green   yellow
animal  turtle      turtles       1f422   green
animal  whale       whales        1f433   blue
animal  crab        crabs         1f980   red     orange
animal  butterfly   butterflies   1f98b   -       orange,blue,brown
animal  snail       snails        1f40c   brown
plant   cactus      cacti         1f335   green   yellow
plant   mushroom    mushrooms     1f344   red     pink
plant   tree        trees         1f332   green
plant   sunflower   sunflowers    1f33b   -       yellow
food    apple       apples        1f34e   red
food    banana      bananas       1f34c   yellow
food    pear        pears         1f350   green   yellow
food    strawberry  strawberries  1f353   red
food    carrot      carrots       1f955   orange
food    burger      burgers       1f354   -       orange,brown,yellow
food    pizza       pizzas        1f355   -       orange,yellow
food    donut       donuts        1f369   brown   purple
food    cake        cakes         1f382   -
vehicle car         cars          1f697   red
vehicle bus         buses         1f68c   -       orange,yellow
vehicle plane       planes        2708    -       blue
vehicle rocket      rockets       1f680   -
vehicle boat        boats         26f5    -       orange
vehicle tractor     tractors      1f69c   green
object  house       houses        1f3e0   -       orange
object  umbrella    umbrellas     2602    -       blue,purple
object  balloon     balloons      1f388   red
object  guitar      guitars       1f3b8   -       red,orange,pink
object  key         keys          1f511   yellow  orange
object  crown       crowns        1f451   yellow  orange
object  hat         hats          1f3a9   black   brown
object  book        books         1f4d5   red
object  star        stars         2b50    yellow  orange
object  heart       hearts        2764    red
object  bell        bells         1f514   yellow  orange
object  teapot      teapots       1fad6   red     orange
object  chair       chairs        1fa91   brown   orange
"""


def _noun(line: str) -> Noun:
    kind, singular, plural, id, natural, near = (*line.split(), "")[:6]
    avoided = tuple(near.split(",")) if near else ()
    return Noun(singular, plural, id, kind, None if natural == "-" else natural, avoided)


NOUNS: dict[str, Noun] = {n.singular: n for n in map(_noun, _TABLE.split("\n")[1:-1])}
BY_ID: dict[str, Noun] = {n.id: n for n in NOUNS.values()}
BY_WORD: dict[str, Noun] = NOUNS | {n.plural: n for n in NOUNS.values()}
KINDS = ("animal", "plant", "food", "vehicle", "object")
STYLES: tuple[sprites.Style, ...] = ("flat", "3d", "noto")  # drawing styles of scenes
SIZES = (18, 24)  # long side of an object, pixels

BACKGROUNDS = {  # plain and light, so that every object stands out
    "white": (255, 255, 255),
    "light yellow": (255, 247, 200),
    "light blue": (212, 234, 255),
    "light green": (216, 246, 214),
    "light pink": (255, 224, 236),
}

NUMBERS = ("zero", "one", "two", "three", "four")


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words
