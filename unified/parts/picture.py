"""What parts of whole pictures share, whatever their tokens are: latents, codes.

`B` rows, `N` pictures of a row, `H W` pixels.
"""

from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, UInt8

from unified.lanes import PictureLane, PictureTokens
from unified.parts.part import Part, positions
from unified.tokenizers.pixels import to_bytes


class PicturePart(Part):
    """Its main loss counts every token of the targets."""

    lane: ClassVar[type] = PictureLane

    def encode(self, pixels: UInt8[Array, "B N H W 3"]) -> Any:
        """Tokens `[B N ...]`."""
        raise NotImplementedError(type(self).__name__)

    def decode(self, tokens: Any, lane: PictureLane) -> Float[Array, "B H W 3"]:
        """Pictures of tokens `[B ...]`, in [-1, 1] or beyond."""
        raise NotImplementedError(type(self).__name__)

    def reconstruct(
        self, pixels: UInt8[Array, "B N H W 3"], lane: PictureLane
    ) -> tuple[UInt8[Array, "B H W 3"], dict[str, jax.Array]]:
        """The first picture of a row through its tokens and back, and what must be finite."""
        shown = self.decode(self.encode(pixels)[:, 0], lane)
        return to_bytes(shown), {"pixels": shown}

    @classmethod
    def counts(cls, content: PictureTokens) -> dict[str, jax.Array]:
        each = positions(content.tokens) // content.target.shape[-1]
        return {cls.main: (content.target & content.valid).sum() * each}
