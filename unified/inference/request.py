"""What users give, read and checked before anything is computed: pictures, texts, requests, seeds.

Mistakes raise ValueError, which says what to give instead.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from unified.data.decode import MAX_PIXELS, decode, max_bytes, to_rgb
from unified.data.files import read_file
from unified.inference.context import Request
from unified.message import one_line
from unified.sequence import Segment

Picture = str | os.PathLike | Image.Image | np.ndarray  # a file, or uint8 [H W 3]
Seeds = int | Sequence[int]  # of each request; a number n means n, n + 1, ...
DEFAULT_TASKS = ("vqa", "generate", "edit")  # of `answer`, `generate` and `edit`
LAST_SEED = 2**31 - 1  # JAX numbers have 32 bits


def read_picture(picture: Picture, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """uint8 `[H W 3]`; a file may have `max_pixels` pixels and is a regular one, or in a bucket
    (`gs://`, `s3://`). Raises OSError, or ValueError for what is no picture."""
    if isinstance(picture, str | os.PathLike):
        name = os.fspath(picture)
        if name.startswith(("gs://", "s3://")):
            data = epath.Path(name).read_bytes()
        else:
            data = read_file(name, max_bytes(max_pixels))
        try:
            return decode(data, max_pixels)
        except ValueError as error:
            raise ValueError(one_line(f"{name!r} is not a readable picture: {error}")) from error
    if not isinstance(picture, Image.Image | np.ndarray):
        given = one_line(repr(picture), 80)
        raise ValueError(f"a picture is a file, a Pillow picture or uint8 [H W 3], not {given}")
    try:
        return to_rgb(picture)
    except ValueError:
        raise
    except Exception as error:  # of a Pillow picture that is read from its file only now
        raise ValueError(one_line(f"a picture that cannot be read: {error}")) from error


def read_text(text: str) -> Segment:
    """A prompt, a question or an instruction, which must say something."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a prompt, question or instruction is a text with words, not {text!r}")
    return Segment(text)


def read_list(values: Iterable[Any], what: str) -> list[Any]:
    """Several of what a single one, a text or a picture, could be mistaken for."""
    single = isinstance(values, str | os.PathLike | Image.Image)
    if single or (isinstance(values, np.ndarray) and values.ndim in (2, 3)):
        raise ValueError(f"give a list of {what}, not one alone")
    return list(values)


def read_requests(requests: Iterable[Request]) -> list[Request]:
    """Requests with their pictures read."""
    found = list(requests)
    for request in found:
        if not is_request(request):
            raise ValueError(f"a request is a list of segments, not {type(request).__name__}")
    return [[_with_pixels(segment) for segment in request] for request in found]


def read_question(request: Any) -> Request:
    """A (picture, question) pair, or segments, which are left as they are."""
    if is_request(request):
        return request
    if not isinstance(request, list | tuple) or len(request) != 2:
        raise ValueError(
            "answer takes a list of (picture, question) pairs, or of lists of segments, "
            f"not of {type(request).__name__}"
        )
    picture, question = request
    return [Segment(read_picture(picture)), read_text(question)]


def last_picture(request: Request) -> Any:
    """Of a request, None if it has none."""
    pictures = [segment.content for segment in request if segment.modality == "image"]
    return pictures[-1] if pictures else None


def is_request(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(part, Segment) for part in given)


def read_seeds(seeds: Seeds | np.ndarray, n: int) -> np.ndarray:
    """One for each request, int32 `[n]`."""
    if isinstance(seeds, int | np.integer):
        seeds = range(int(seeds), int(seeds) + n)
    each = [int(seed) for seed in seeds]
    if len(each) != n:
        raise ValueError(f"{len(each)} seeds for {n} requests: give one each")
    for seed in each:
        if not 0 <= seed <= LAST_SEED:
            raise ValueError(f"seed={seed} must be from 0 to {LAST_SEED}")
    return np.array(each, np.int32)


def check_task(task: str, trained: set[str]) -> None:
    """Raises ValueError for a task that the model was not trained on, as far as known."""
    if trained and task not in (*trained, *DEFAULT_TASKS, ""):
        known = ", ".join(sorted(trained))
        raise ValueError(f"task={task!r}: the model was trained on {known}")


def trained_tasks(config: Mapping[str, Any]) -> set[str]:
    """The tasks that the sources of the training name; none unless all of them do."""
    sources = config.get("data", {}).get("train", {}).values()
    named = [source.get("tasks") or [source.get("task")] for source in sources]
    tasks = {task for names in named for task in names}
    return tasks if all(tasks) else set()


def _with_pixels(segment: Segment) -> Segment:
    if segment.modality == "text":
        return segment
    return dataclasses.replace(segment, content=read_picture(segment.content))
