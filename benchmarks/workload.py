"""What is measured, on our side, and the inputs that both sides get.

`B` rows, `N` pictures of a row, `T` tokens, `P` numbers of a latent token.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from unified.config import layout, parse, tokenizer
from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.inference.context import Contexts, pack, picture_after, without
from unified.model import Unified
from unified.processes import rectified_flow
from unified.processes.autoregressive import GREEDY
from unified.recipes import packed
from unified.sequence import Batch, Segment

GUIDANCE = Guidance.of({"text": 4.0}, interval=(0.0, 1.0))
SHIFT = 3.0


@dataclasses.dataclass(frozen=True)
class Network:
    """The model without its autoencoder, whose part of the work is left out on both sides."""

    graph: nnx.GraphDef
    params: Any
    autoencoder: Any

    @classmethod
    def of(cls, config: ConfigDict) -> "Network":
        """Random weights; none is zero, so that an error anywhere is seen in every output."""
        abstract = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
        graph, shapes = nnx.split(abstract, nnx.Param)
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            mean = 1.0 if path[-1] == jax.tree_util.DictKey("scale") else 0.0
            return jnp.asarray(rng.normal(mean, 0.05, leaf.shape), leaf.dtype)

        params = jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(shapes))
        autoencoder = params["parts"]["vae"].pop("autoencoder")
        return cls(graph, params, autoencoder)

    def model(self, params: Any) -> Unified:
        parts = {**params["parts"]}
        parts["vae"] = {**parts["vae"], "autoencoder": self.autoencoder}
        return nnx.merge(self.graph, {**params, "parts": parts})


def objective(network: Network, config: ConfigDict, params, batch: Batch, latents, times, targets):
    """The weighted losses of a batch, from latents `[B N T P]` at flow times `[B N]`."""
    model = network.model(params)
    read = Batch({name: batch.lanes[name] for name in ("text", "vit")})
    noised = model.parts["vae"].noised(model.layout["vae"], latents, times)
    hidden, *_ = model.run(batch, {**model.inputs(read), "vae": noised})
    text = model.parts["text"].losses(None, hidden["text"], batch.lanes["text"], None)
    goal = (targets, times)
    flow = model.parts["vae"].losses(None, hidden["vae"], batch.lanes["vae"], goal)
    pairs = {"text/nll": text["nll"], "vae/flow": flow["flow"]}
    return sum(config.loss_weights[name] * s / n for name, (s, n) in pairs.items())


def make_train_step(network: Network, config: ConfigDict, optimizer):
    """`step((params, optimizer state), *data) -> (state, loss)`; the state is donated."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, *data):
        params, opt_state = state
        loss, grads = jax.value_and_grad(functools.partial(objective, network, config))(
            params, *data
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    c = config.optimizer
    adamw = optax.adamw(c.learning_rate, b2=c.b2, weight_decay=c.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def train_data(config: ConfigDict):
    """A packed batch, random latents at random flow times, and the velocities to predict."""
    pipeline = packed.inputs(config, "train")
    batch = next(pipeline)
    pipeline.close()
    lane = layout(config)["vae"]
    noised = batch.lanes["vae"].target
    keys = jax.random.split(jax.random.key(2), 3)
    clean = jax.random.normal(keys[0], (*noised.shape, lane.unit, latent_dim(config)))
    times = jnp.where(noised, rectified_flow.times(keys[1], noised.shape), 0.0)
    latents, targets = rectified_flow.corrupt(keys[2], clean, times)
    return jax.tree.map(np.asarray, (batch, latents, times, targets))


def questions(config: ConfigDict, rows: int) -> Contexts:
    """A picture and a question about it, a row each."""
    side = layout(config)["vit"].max_side
    pictures = np.random.default_rng(0).integers(0, 256, (rows, side, side, 3), np.uint8)
    requests = [[Segment(p), Segment("how many apples are left of the dog?")] for p in pictures]
    return pack(requests, layout(config), tokenizer(config).encode, "vqa", then="text")


def prompts(config: ConfigDict, rows: int) -> tuple[Contexts, Batch]:
    """Prompts, the same without their text, and the picture that comes after each."""
    lanes = layout(config)
    requests = [[Segment("two red apples left of a dog")]] * rows
    requests = [*requests, *(without(request, "text") for request in requests)]
    contexts = pack(requests, lanes, tokenizer(config).encode, "generate", then="picture")
    return contexts, picture_after(contexts, lanes["vae"], lanes, "generate")


def make_read(network: Network):
    return jax.jit(
        lambda params, batch, room: network.model(params).read(batch, {"und": room}),
        static_argnums=2,
    )


def make_write(network: Network, begin: int, num: int):
    """Greedy ids `[B num]` after contexts in a cache."""

    @jax.jit
    def write(params, cache, clock, position):
        rows, model = clock.shape[0], network.model(params)
        ids, _ = model.parts["text"].write(
            model.step,
            cache,
            model.layout["text"],
            jnp.full((rows,), begin),
            clock=clock,
            position=position,
            slot=cache.spans["und"].start.shape[1] - num,
            keys=jax.random.split(jax.random.key(0), rows),
            max_tokens=num,
            room=num,
            stop_ids=(),
            sampling=GREEDY,
        )
        return ids

    return write


def make_draw(network: Network, times: np.ndarray):
    """Latents `[B T P]` from noise, guided: the cache holds 2 B contexts."""

    @jax.jit
    def draw(params, cache, block, noise):
        model = network.model(params)

        def velocity(x, t):
            own = jax.tree.map(lambda leaf: leaf[: len(x)], block)
            part, at = model.parts["vae"], jnp.broadcast_to(t, (len(x), 1))
            given = {"vae": part.noised(model.layout["vae"], x[:, None], at)}
            hidden, _ = model.step(cache.first(len(x)), own, given)
            return part.velocity(hidden["vae"], 1)[:, 0]

        return generate_picture(velocity, noise, jnp.asarray(times), GUIDANCE)

    return draw


def sampling_noise(config: ConfigDict, rows: int) -> np.ndarray:
    shape = (layout(config)["vae"].unit, latent_dim(config))
    return np.asarray(draw_noise(jnp.arange(rows), shape))


def latent_dim(config: ConfigDict) -> int:
    """Numbers of a latent token."""
    flow, lane = parse(config).parts["vae"], layout(config)["vae"]
    return (lane.stride // flow.autoencoder.stride) ** 2 * flow.autoencoder.latent_channels
