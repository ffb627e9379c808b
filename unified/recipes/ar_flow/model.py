"""The network: lanes are embedded, joined to streams, and read back after the backbone.

A text token is its embedding; a patch token comes from a vision encoder and a connector; a latent
token is a patch of noised or clean autoencoder latents, its place and its flow time.

`B` rows, `T` tokens, `N` pictures of a row, `P` numbers of a latent token, `D` embed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from unified.backbone import Backbone
from unified.backbone.cache import UNTIMED
from unified.heads.flow import FlowHead
from unified.heads.language import LanguageHead
from unified.heads.timestep import TimestepEmbedder
from unified.lanes import PatchLane, PatchTokens, PictureLane, PictureTokens, TextLane, TextTokens
from unified.nn.position import grid, sincos_2d
from unified.nn.stack import normal, param, scaled
from unified.recipes.ar_flow.config import ARFlowConfig
from unified.sequence import Batch, Tokens
from unified.sharding import constrain
from unified.tokenizers.autoencoder import Autoencoder
from unified.tokenizers.vision import Connector, VisionEncoder

ByName = Mapping[str, Any]


class ARFlow(nnx.Module):
    def __init__(self, cfg: ARFlowConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        D, D_latent, P = cfg.width(TextLane), cfg.width(PictureLane), cfg.latent_dim
        self.embedding = param(normal(0.02), rngs, (cfg.vocab_size, D), ("vocab", "embed"))
        if cfg.vision:
            self.vision = VisionEncoder(cfg.vision, rngs=rngs)
            widths = cfg.vision.embed_dim, cfg.width(PatchLane)
            self.connector = Connector(*widths, cfg.position_theta, rngs=rngs)
        self.autoencoder = Autoencoder(cfg.autoencoder, rngs=rngs)
        self.latent_in = param(scaled(P), rngs, (P, D_latent), (None, "embed"))
        self.timestep = TimestepEmbedder(D_latent, rngs=rngs)
        self.backbone = Backbone(cfg.backbone, rngs=rngs)
        self.language = LanguageHead(D, cfg.vocab_size, rngs=rngs)
        self.flow = FlowHead(D_latent, P, rngs=rngs)

    def embed_text(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return self.embedding[ids].astype(self.cfg.dtype)

    def embed_patches(self, patches: PatchTokens) -> Float[Array, "B T D"]:
        features = self.vision(patches, self.cfg.dtype, remat=self.cfg.remat)
        return self.connector(features, patches.grid)

    def embed_latents(
        self, lane: PictureLane, latents: Float[Array, "B N T P"], time: Float[Array, "B N"]
    ) -> Float[Array, "B N*T D"]:
        """Embeds latents that are noised to the flow `time` of their picture (0: clean)."""
        x = latents.astype(self.cfg.dtype) @ self.latent_in.astype(self.cfg.dtype)
        place = grid(lane.rows, lane.columns)
        x = x + sincos_2d(place, x.shape[-1], self.cfg.position_theta).astype(x.dtype)
        x = x + self.timestep(time).astype(x.dtype)[:, :, None]
        return rearrange(x, "B N T D -> B (N T) D")

    def predicting(
        self, hidden: Float[Array, "B T D"], lane: TextTokens
    ) -> tuple[Float[Array, "B*m D"], Int[Array, "B*m"]]:
        """Hidden states of the tokens that predict text, and the ids that follow them."""
        at_loss = jnp.take_along_axis(hidden, lane.loss_index[..., None], axis=1)
        return rearrange(at_loss, "B m D -> (B m) D"), lane.loss_target.ravel()

    def velocity(self, hidden: Float[Array, "B N*T D"], num: int) -> Float[Array, "B N T P"]:
        """Velocities of `num` pictures a row, float32."""
        v = self.flow(hidden).astype(jnp.float32)
        return rearrange(v, "B (N T) P -> B N T P", N=num)

    def encode(
        self, pixels: UInt8[Array, "B N H W 3"], key: jax.Array | None = None
    ) -> Float[Array, "B N T P"]:
        """Normalised latents as tokens: a sample of the posterior, or its mean without a key."""
        x = rearrange(pixels, "B N H W C -> (B N) H W C").astype(jnp.float32) / 127.5 - 1
        z = self.autoencoder.latents(x, key)
        p = self.cfg.latent_patch
        spell = "(B N) (h p) (w q) C -> B N (h w) (p q C)"
        return rearrange(z, spell, N=pixels.shape[1], p=p, q=p)

    def decode(self, latents: Float[Array, "B T P"], lane: PictureLane) -> Float[Array, "B H W 3"]:
        """Pictures of clean latent tokens, whole numbers from 0 to 255."""
        p, h = self.cfg.latent_patch, lane.height // lane.stride
        z = rearrange(latents, "B (h w) (p q C) -> B (h p) (w q) C", h=h, p=p, q=p)
        x = self.autoencoder.pixels(z)
        return jnp.round(jnp.clip(x + 1, 0, 2) * 127.5)

    def streams(
        self, batch: Batch, latents: ByName, times: ByName
    ) -> tuple[ByName, ByName, ByName]:
        """Embeddings `[B T D]`, tokens and flow times `[B T]` of each stream.

        By lane: `latents` [B N T P], noised to the flow `times` [B N] (0: clean).
        """
        x, tokens, time = {}, {}, {}
        for stream in self.cfg.layout.streams:
            names = [lane.name for lane in self.cfg.layout.of_stream(stream)]
            parts = [
                self._lane(name, batch.lanes[name], latents.get(name), times.get(name))
                for name in names
                if name in batch.lanes
            ]
            if parts:
                join = lambda *arrays: jnp.concatenate(arrays, axis=1)
                x[stream], tokens[stream], time[stream] = jax.tree.map(join, *parts)
                x[stream] = constrain(x[stream], "batch", "length", None)
        return x, tokens, time

    def _lane(self, name: str, lane, latents, times) -> tuple[jax.Array, Tokens, jax.Array]:
        if isinstance(lane, PictureTokens):
            time = jnp.repeat(times, lane.tokens.clock.shape[1] // times.shape[1], axis=1)
            place: Any = self.cfg.layout[name]
            return self.embed_latents(place, latents, times), lane.tokens, time
        untimed = jnp.full(lane.tokens.clock.shape, UNTIMED, jnp.float32)
        text = isinstance(lane, TextTokens)
        embedded = self.embed_text(lane.ids) if text else self.embed_patches(lane)
        return embedded, lane.tokens, untimed

    def lanes(self, hidden: ByName, batch: Batch) -> dict[str, jax.Array]:
        """Hidden states of streams -> of lanes: the inverse of the joining in `streams`."""
        out = {}
        for stream, h in hidden.items():
            at = 0
            for lane in self.cfg.layout.of_stream(stream):
                if lane.name in batch.lanes:
                    n = batch.lanes[lane.name].tokens.clock.shape[1]
                    out[lane.name] = h[:, at : at + n]
                    at += n
        return out
