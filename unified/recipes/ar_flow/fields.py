"""The fields of a config that the recipe reads, and their types; `config.py` makes sense of them.

What lies in `model`, `layout.lanes` and `drawing` is declared by the dataclasses it becomes, what
lies in `benchmark` by the function it is passed to.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from unified.interop.schema import Sources


class LayoutFields(TypedDict):
    image_position: str
    lanes: Mapping[str, Mapping[str, Any]]
    read_as: NotRequired[Mapping[str, str]]


class Fields(TypedDict):
    """What a model needs."""

    tokenizer: str
    compute_dtype: str
    remat: str
    layout: LayoutFields
    model: Mapping[str, Any]
    marks: NotRequired[Mapping[str, str]]
    drawing: NotRequired[Mapping[str, Any]]
    data: NotRequired[Sources]
    loss_weights: NotRequired[Mapping[str, float]]
    benchmark: NotRequired[Mapping[str, Any]]
