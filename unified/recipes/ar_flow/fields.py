"""The fields of a config that are the recipe's, and their types; `config.py` makes sense of them.

Those of training are declared by `unified.interop.schema`, what lies in `model`, `layout.lanes` and
`drawing` by the dataclasses it becomes, what lies in `benchmark` by the function it is passed to.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from unified.interop.schema import Source


class LayoutFields(TypedDict):
    image_position: str
    lanes: Mapping[str, Mapping[str, Any]]
    uses: NotRequired[Mapping[str, Sequence[str]]]


class BenchmarkFields(TypedDict, total=False):
    """The rest are arguments of `run` of the module."""

    module: str
    sources: Mapping[str, Source]


class Fields(TypedDict):
    """What a model needs, and what it may have."""

    tokenizer: str
    compute_dtype: str
    remat: str
    layout: LayoutFields
    model: Mapping[str, Any]
    marks: NotRequired[Mapping[str, str]]
    drawing: NotRequired[Mapping[str, Any]]
    benchmark: NotRequired[BenchmarkFields]
