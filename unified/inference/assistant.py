"""A trained model as a few functions: text and pictures in, text or pictures out.

    assistant = unified.load()
    [picture] = assistant.generate(["two red apples left of a dog"])
    [answer] = assistant.answer([(picture, "how many apples are there?")])
    [edited] = assistant.edit([picture], ["make the apples green"])

Requests are batched; row i of a batch equals the same request alone with the same seed, up to the
rounding of the compute dtype: float32 on a CPU, which does bfloat16 more slowly; in bfloat16, that
of the model that ships elsewhere, up to 2/255 a pixel, and a text (above all at a temperature) or
the choice of a candidate may then come out differently.

What is not finite is never returned: FloatingPointError names the logits, latents or pixels.

Anything else is a list of segments: `write` continues it with text, `draw` with a picture, and
appending the result as a segment goes on from there (interleaved documents).
"""

import contextlib
import copy
import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from unified import sharding
from unified.config import drawing, tokenizer
from unified.generation.drawing import Drawing
from unified.generation.text import cut
from unified.inference import engine
from unified.inference.batches import in_batches
from unified.inference.context import (
    Request,
    most_slots,
    pack,
    picture_after,
    without,
)
from unified.inference.request import (
    Picture,
    Seeds,
    check_task,
    last_picture,
    read_list,
    read_picture,
    read_question,
    read_requests,
    read_seeds,
    read_text,
    trained_tasks,
)
from unified.interop import model as models
from unified.interop import release
from unified.lanes import PictureLane
from unified.lanes.layout import DRAW, TEXT
from unified.model import Unified
from unified.processes.autoregressive import Sampling
from unified.programmes.best_of import best_of, texts_of
from unified.sequence import Segment


class Assistant:
    """Wraps a model of a recipe. `max_rows`: requests that are computed at once. `mesh`: devices
    that hold the model and share the work (`sharding.make_mesh`); default: one.

    `tasks` are those that its training names, of which `answer`, `generate` and `edit` take one in
    place of their own; where it does not name all, they take any.

    Raises ValueError for a recipe whose models neither answer nor draw.
    """

    def __init__(
        self,
        model: Any,
        config: Mapping[str, Any],
        *,
        max_rows: int = 32,
        mesh: Mesh | None = None,
    ):
        if not isinstance(model, Unified):
            raise ValueError(f"a model of {config.get('recipe')} neither answers nor draws")
        self.graph, params = nnx.split(model, nnx.Param)
        self.mesh, self.places = mesh, sharding.param_shardings(model, mesh) if mesh else None
        self.params = jax.device_put(nnx.to_pure_dict(params), self.places)
        self.config, self.cfg = config, model.cfg
        self.layout = model.layout
        self.tokenizer = tokenizer(config)
        self.drawing = drawing(config)
        self.tasks = trained_tasks(config)
        self.max_rows = max_rows

    def answer(
        self, requests: Iterable[Request | tuple[Picture, str]], *, task: str = "vqa", **options
    ) -> list[str]:
        """Answers to (picture, question) pairs, or to any segments; options as of `write`."""
        check_task(task, self.tasks)
        asked = map(read_question, read_list(requests, "(picture, question) pairs"))
        return self.write(asked, task=task, **options)

    def generate(
        self, prompts: Iterable[str], *, task: str = "generate", **options
    ) -> list[np.ndarray]:
        """Pictures of prompts; options as of `draw`."""
        check_task(task, self.tasks)
        requests = [[read_text(prompt)] for prompt in read_list(prompts, "prompts")]
        return self.draw(requests, task=task, **options)

    def edit(
        self,
        pictures: Iterable[Picture],
        instructions: Iterable[str],
        *,
        task: str = "edit",
        **options,
    ) -> list[np.ndarray]:
        """Pictures changed as the instructions say; options as of `draw`."""
        check_task(task, self.tasks)
        before = read_list(pictures, "pictures")
        changes = read_list(instructions, "instructions")
        if len(before) != len(changes):
            raise ValueError(
                f"{len(before)} pictures and {len(changes)} instructions: give one for each"
            )
        requests = [
            [Segment(read_picture(picture), use="edit"), read_text(text)]
            for picture, text in zip(before, changes, strict=True)
        ]
        return self.draw(requests, task=task, **options)

    def write(
        self,
        requests: Iterable[Request],
        *,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: str | Sequence[str] = (),
        seeds: Seeds = 0,
        task: str = "",
    ) -> list[str]:
        """Text that follows each request. Temperature 0 is greedy; top-k 0 and top-p 1 are off.

        It ends where the model ends it, at `max_tokens`, or before the first of the strings `stop`.
        """
        lane: Any = self.layout.lane_for(TEXT, task)
        most = most_slots(lane)
        if not 1 <= max_tokens <= most:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1 and at most {most}")
        stops = [stop] if isinstance(stop, str) else list(stop)
        if "" in stops:
            raise ValueError("stop='' is at the start of every text: name what should end it")
        how: dict[str, Any] = {"lane": lane, "max_tokens": max_tokens}
        how["sampling"] = Sampling(temperature, top_k, top_p)

        def texts(rows: list[Request], seeds: np.ndarray) -> list[str]:
            contexts = pack(rows, self.layout, self.tokenizer.encode, task, then="text")
            ids, lengths = engine.write(self.graph, self.params, contexts, seeds, **how)
            said = (self.tokenizer.decode(row[:n]) for row, n in zip(ids, lengths, strict=True))
            return [cut(text, stops) for text in said]

        return self._in_batches(texts, read_requests(requests), seeds)

    def draw(
        self,
        requests: Iterable[Request],
        *,
        seeds: Seeds = 0,
        task: str = "",
        **drawing,
    ) -> list[np.ndarray]:
        """The picture that follows each request, uint8 `[H W 3]`.

        Its size is that of the latent lane nearest in aspect to the last picture of the request,
        or of the first lane. `drawing` are fields of `Drawing`, in place of the model's own.
        """
        requests = read_requests(requests)
        how = dataclasses.replace(self.drawing, **drawing)
        each = read_seeds(seeds, len(requests))
        if how.candidates > 1 and task in how.read_back and any(map(texts_of, requests)):
            once = {**vars(how), "candidates": 1}
            draw = lambda requests, seeds: self.draw(requests, seeds=seeds, task=task, **once)
            asked = (how.candidates, how.read_back[task])
            return best_of(requests, each.tolist(), *asked, draw=draw, score=self.score)
        lanes = [self._canvas(last_picture(request), task) for request in requests]
        run = lambda lane, rows, seeds: self._draw(rows, seeds, lane, task, how)
        return self._by_lane(run, lanes, requests, each)

    def score(self, requests: Iterable[Request], *, task: str = "vqa") -> list[float]:
        """Log-probabilities of the texts of each request that are targets, in nats."""

        def scores(rows: list[Request], seeds: np.ndarray) -> list[float]:
            batch = pack(rows, self.layout, self.tokenizer.encode, task).batch
            return engine.score(self.graph, self.params, batch).tolist()

        return self._in_batches(scores, read_requests(requests), 0)

    def reconstruct(self, pictures: Sequence[Picture], *, task: str = "") -> list[np.ndarray]:
        """Pictures through the autoencoder and back, at the size of their lane, uint8 `[H W 3]`."""
        pixels = [read_picture(picture) for picture in read_list(pictures, "pictures")]

        def again(lane: PictureLane, chosen: list[Any], seeds: np.ndarray) -> list[np.ndarray]:
            fitted = [lane.write(picture, target=False)["pixels"] for picture in chosen]
            return list(engine.reconstruct(self.graph, self.params, np.concatenate(fitted), lane))

        lanes = [self._canvas(picture, task) for picture in pixels]
        return self._by_lane(again, lanes, pixels, np.zeros(len(pixels), np.int32))

    def before_training(self) -> "Assistant":
        """The same with the weights that training began with, as `config.load` names them; compiled
        programs serve both. Raises ValueError where they are not all that the model has."""
        before = copy.copy(self)
        before.params = jax.device_put(models.started(self.config, self.params), self.places)
        return before

    def save(self, path: str | os.PathLike, *, storage: str | None = "bfloat16") -> None:
        """Writes a release that `load` reads; `storage` as of `release.save`."""
        file = epath.Path(path) / models.TOKENIZER
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.tokenizer.tokenizer.to_str(pretty=True))
        config = {**self.config, "tokenizer": models.TOKENIZER}  # beside the weights
        release.save(path, self.params, config, storage=storage)

    def _draw(self, rows, seeds, lane: PictureLane, task: str, how: Drawing) -> list[np.ndarray]:
        guidance = how.guidance(rows)
        stacked = [without(row, drop) for drop in guidance.contexts for row in rows]
        contexts = pack(stacked, self.layout, self.tokenizer.encode, task, then="picture")
        block = picture_after(contexts, lane, self.layout, task)
        plan = self.cfg.kind(lane.view).plan(how)
        args = (contexts, block, seeds, plan, guidance)
        return list(engine.draw(self.graph, self.params, *args, lane=lane))

    def _by_lane(self, run, lanes: list[Any], requests: list, seeds: np.ndarray) -> list:
        """Results of `run(lane, rows, seeds)` on the requests of each lane, in their order."""
        done: dict[int, Any] = {}
        for lane in dict.fromkeys(lanes):
            chosen = [i for i, other in enumerate(lanes) if other == lane]
            rows = [requests[i] for i in chosen]
            results = self._in_batches(functools.partial(run, lane), rows, seeds[chosen])
            done.update(zip(chosen, results, strict=True))
        return [done[i] for i in range(len(requests))]

    def _in_batches(self, run, requests: list, seeds: Seeds | np.ndarray) -> list:
        with jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext():
            return in_batches(run, requests, read_seeds(seeds, len(requests)), self.max_rows)

    def _canvas(self, picture: np.ndarray | None, task: str) -> Any:
        """The lane that draws: the nearest in aspect to a picture, if there is one."""
        [view, *_] = self.layout.views_of(DRAW)
        return self.layout.lane_for(view, task, picture)
