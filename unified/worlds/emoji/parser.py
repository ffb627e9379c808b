"""Reads a picture back into a scene, by synthesis: no learned weights.

Every drawing that a scene can hold (object, style, size, colour) is a template D, the change it
makes to a bare background. At a place, D explains `2 <X, D> - |D|^2` of the energy of the
picture X (minus its background). All templates are tried everywhere at an eighth of their
size, the best at full size around there; what explains most is taken out of the picture, until
nothing explains enough of itself.

`N` templates, `W` side of their window, `P` places; the window has 8 x 8 coarse cells.
"""

import dataclasses
import functools

import numpy as np

from unified.worlds.emoji.scene import Scene, Thing, unit
from unified.worlds.emoji.vocabulary import BACKGROUNDS, NOUNS, SIZES, STYLES

CELLS = 8
BLAME = 0.5  # weight of energy left under the ink, which keeps templates from straddling things
CANDIDATES = 128  # templates tried at full size around a place
LEAST = (0.8, 0.55, 0.35)  # share of its own energy a template must explain, pass by pass
MOST = 12  # things in a picture


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A scene as read. `quality` is the share of its energy that each thing explains (1: exact),
    `residue` the share of the picture's energy that nothing explains (0: exact)."""

    scene: Scene
    quality: tuple[float, ...]
    residue: float


@dataclasses.dataclass(frozen=True)
class _Level:
    """Templates at one resolution of `K` cells."""

    changes: np.ndarray  # float32 [N K*3]
    masks: np.ndarray  # float32 [N K], the share of a cell that is under ink
    energy: np.ndarray  # float32 [N]

    def fit(self, windows: np.ndarray, chosen=slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """`[P K 3]` -> how well templates fit, and the quality of the fit, both `[P N]`.

        The fit is the energy explained less the energy left under the ink; the quality is the
        energy explained as a share of the template's own, or of what lies under its ink where
        that is more.
        """
        energy = self.energy[chosen]
        gain = 2 * windows.reshape(-1, self.changes.shape[1]) @ self.changes[chosen].T - energy
        under = np.square(windows).sum(-1) @ self.masks[chosen].T
        return gain - BLAME * (under - gain), gain / np.maximum(energy, under)


@dataclasses.dataclass(frozen=True)
class _Bank:
    things: tuple[Thing, ...]  # at x = y = 0
    fine: _Level
    coarse: _Level
    window: int


@functools.lru_cache(maxsize=8)
def _bank(background: str, side: int) -> _Bank:
    window = SIZES[-1] * unit(side)
    things = [
        Thing(noun.id, style, colour, 0, 0, size * unit(side))
        for noun in NOUNS.values()
        for style in STYLES
        for size in SIZES
        for colour in (None, *noun.colours)
    ]
    changes = np.zeros((len(things), window, window, 3), np.float32)
    masks = np.zeros((len(things), window, window, 1), np.float32)
    for change, mask, thing in zip(changes, masks, things, strict=True):
        left, top, right, bottom = (edge + window // 2 for edge in thing.box)
        alpha = thing.pixels[..., 3:] / np.float32(255)
        ink = thing.pixels[..., :3] - np.array(BACKGROUNDS[background], np.float32)
        change[top:bottom, left:right] = alpha * ink
        mask[top:bottom, left:right] = alpha > 0
    fine, coarse = _level(changes, masks), _level(_cells(changes), _cells(masks))
    return _Bank(tuple(things), fine, coarse, window)


def _level(changes: np.ndarray, masks: np.ndarray) -> _Level:
    changes = changes.reshape(len(changes), -1)
    return _Level(changes, masks.reshape(len(masks), -1), np.square(changes).sum(1))


def _cells(windows: np.ndarray) -> np.ndarray:
    """`[P W W C]` -> means over cells `[P 8 8 C]`."""
    count, window, _, channels = windows.shape
    cell = window // CELLS
    return windows.reshape(count, CELLS, cell, CELLS, cell, channels).mean((2, 4))


def background_of(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    """The name of the background that most pixels are near to, and its colour as it was drawn."""
    flat = pixels.reshape(-1, 3).astype(np.float32)
    near = {name: np.abs(flat - rgb).max(1) < 20 for name, rgb in BACKGROUNDS.items()}
    distance = {name: np.abs(flat - rgb).sum(1) for name, rgb in BACKGROUNDS.items()}
    closest = np.argmin(np.stack(list(distance.values())), 0)
    votes = [np.sum(near[name] & (closest == i)) for i, name in enumerate(BACKGROUNDS)]
    name = tuple(BACKGROUNDS)[int(np.argmax(votes))]
    seen = flat[near[name]]
    return name, np.asarray(np.median(seen, 0) if len(seen) else BACKGROUNDS[name], np.float32)


def parse(pixels: np.ndarray) -> Parsed:
    """uint8 `[H W 3]`, square, side 32 or a multiple of 64 -> the scene that explains it best."""
    side = pixels.shape[0]
    if pixels.shape != (side, side, 3):
        raise ValueError(f"picture of shape {pixels.shape}: a square, [H H 3]")
    background, colour = background_of(pixels)
    bank = _bank(background, side)
    pad = bank.window // 2
    left = np.zeros((side + 2 * pad, side + 2 * pad, 3), np.float32)
    left[pad:-pad, pad:-pad] = pixels - colour
    total = float(np.square(left).sum())
    found: list[tuple[Thing, float]] = []
    for least in LEAST:  # what is certain first, so that doubtful parts are seen alone
        before = -1
        while before < len(found) < MOST:
            before = len(found)
            tried = [_explain(left, bank, *peak, least) for peak in _peaks(left, bank)]
            found.extend(explained for explained in tried if explained)
    things, quality = (tuple(column) for column in zip(*found, strict=True)) if found else ((), ())
    residue = float(np.square(left).sum()) / max(total, 1.0)
    return Parsed(Scene(things, background, side), quality, residue)


def _peaks(left: np.ndarray, bank: _Bank) -> list[tuple[int, int]]:
    """Corners of windows of the padded picture where templates explain most, best first."""
    step = bank.window // CELLS
    size = left.shape[0] // step * step
    cells = left[:size, :size].reshape(size // step, step, size // step, step, 3).mean((1, 3))
    windows = np.lib.stride_tricks.sliding_window_view(cells, (CELLS, CELLS), axis=(0, 1))
    places = windows.shape[:2]
    flat = windows.transpose(0, 1, 3, 4, 2).reshape(-1, CELLS * CELLS, 3)
    floor = LEAST[-1] / 2 * bank.coarse.energy.min()
    inked = np.square(flat).sum((1, 2)) > floor
    fit = np.zeros(places, np.float32)
    fit.ravel()[inked] = bank.coarse.fit(flat[inked])[0].max(1, initial=0)
    peaks: list[tuple[int, int]] = []
    apart = SIZES[0] * bank.window // SIZES[-1] * 2 // 3 // step
    while len(peaks) < MOST and fit.max() > floor:
        row, column = np.unravel_index(fit.argmax(), places)
        peaks.append((int(row) * step, int(column) * step))
        fit[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1] = 0
    return peaks


def _explain(
    left: np.ndarray, bank: _Bank, y: int, x: int, least: float
) -> tuple[Thing, float] | None:
    """The template that explains most near a window's corner, taken out of `left`.

    None, and `left` is unchanged, if that is less than the share `least` of its energy.
    """
    reach, window = bank.window // CELLS + 1, bank.window
    rows = np.arange(max(0, y - reach), min(left.shape[0] - window, y + reach) + 1)
    columns = np.arange(max(0, x - reach), min(left.shape[1] - window, x + reach) + 1)
    view = np.lib.stride_tricks.sliding_window_view(left, (window, window), axis=(0, 1))
    near = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].transpose(0, 1, 3, 4, 2)
    near = near.reshape(-1, window, window, 3)
    rough, _ = bank.coarse.fit(_cells(near).reshape(len(near), -1, 3))
    chosen = np.argpartition(-rough.max(0), CANDIDATES)[:CANDIDATES]
    fit, share = bank.fine.fit(near.reshape(len(near), -1, 3), chosen)
    place, best = np.unravel_index(fit.argmax(), fit.shape)
    template, quality = chosen[best], float(share[place, best])
    if quality < least:
        return None
    top, start = rows[place // len(columns)], columns[place % len(columns)]
    change = bank.fine.changes[template].reshape(window, window, 3)
    left[top : top + window, start : start + window] -= change
    # Padding by half a window makes the corner of a window the centre of its thing.
    thing = dataclasses.replace(bank.things[template], x=int(start), y=int(top))
    return thing, quality
