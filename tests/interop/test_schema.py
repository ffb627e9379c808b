"""Fields are of the types that code declares, and what is wrong is named."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from ml_collections import ConfigDict

from unified.interop import schema
from unified.interop.schema import check_call, check_trained, conform, fill
from unified.training import config as configs


@dataclasses.dataclass(frozen=True)
class Part:
    width: int
    scale: float | tuple[float, ...] = 1.0
    kind: Literal["a", "b"] = "a"


class Group(TypedDict):
    parts: Mapping[str, Part]
    note: NotRequired[str]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, bool),
        (3, int),
        (3, float),
        (0.5, float),
        ("x", str),
        (None, int | None),
        ([1, 2], Sequence[int]),
        ((1, "x"), tuple[int, str]),
        ({"a": 1}, Mapping[str, float]),
        (ConfigDict({"a": 1}), Mapping[str, int]),
        ("b", Literal["a", "b"]),
        (object(), object),  # a type that is none of JSON's says nothing
        (3, Any),
    ],
)
def test_what_is_of_the_type_passes(value, hint):
    want = tuple(value) if isinstance(value, list) else value
    assert conform(value, hint, "config.x") == want


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (1, bool, "true or false"),
        (True, int, "a whole number"),
        (True, float, "a finite number"),
        (1.0, int, "a whole number"),
        (2**63, int, "a whole number"),
        (10**400, float, "a finite number"),
        (math.inf, float, "a finite number"),
        (math.nan, int | float, "a whole number or a finite number"),
        (None, str, "a text"),
        ("ab", Sequence[str], "a list"),
        ([1], tuple[int, int], "a list of 2"),
        ([0] * 5000, Sequence[int], "a list"),
        ([], Mapping[str, int], "fields by name"),
        ("c", Literal["a", "b"], "one of 'a', 'b'"),
        ({}, Literal["a", "b"], "one of 'a', 'b'"),
        (0, None, "null"),
    ],
)
def test_what_is_of_another_is_named_with_what_to_write(value, hint, words):
    with pytest.raises(ValueError, match=rf"^config\.x=.* must be {words}"):
        conform(value, hint, "config.x")


def test_the_field_is_named_at_any_depth():
    good = {"parts": {"left": {"width": 2, "scale": [1, 2]}}}
    conform(good, Group, "config")
    for bad, message in (
        ({}, "config lacks parts"),
        ({"parts": {"left": {}}}, r"config.parts.left lacks \['width'\]"),
        (
            {"parts": {"left": {"wide": 1}}},
            r"config.parts.left: unknown \['wide'\]; there are \['w",
        ),
        ({"parts": {"left": {"width": "2"}}}, "config.parts.left.width='2' must be a whole number"),
        ({"parts": {}, "note": 3}, "config.note=3 must be a text"),
    ):
        with pytest.raises(ValueError, match=message):
            conform(bad, Group, "config")
    conform({}, Group, "config", needed=False)


def test_lists_of_json_become_tuples():
    assert fill(Part, {"width": 1, "scale": [1, 2]}, "x") == Part(1, (1, 2))


def test_options_of_a_class_are_those_of_its_bases_too():
    class Base:
        def __init__(self, *, task: str = ""): ...

    class Source(Base):
        def __init__(self, path, *, rows: int = 0, **options): ...

    check_call(Source, {"path": 3, "rows": 1, "task": "x", "other": 1}, "config.s")
    for name, value in (("rows", "1"), ("task", 1)):
        with pytest.raises(ValueError, match=rf"^config.s.{name}={value!r} must be"):
            check_call(Source, {name: value}, "config.s")


def test_the_fields_of_training_are_those_that_it_has_defaults_for():
    declared = schema.Trained.__annotations__.keys()
    assert declared == {*configs.REQUIRED, *configs.defaults(), "data"}
    check_trained(configs.defaults(), needed=False)
    with pytest.raises(ValueError, match=r"config.data.threads=100000 must be at most 1024"):
        check_trained({"data": {"threads": 100_000}}, needed=False)


def test_what_is_long_is_shortened():
    long = "x" * 5000
    for bad in ({long: 1}, {"width": 1, long: 1}, {"width": long}, {"width": 1, "kind": [long]}):
        with pytest.raises(ValueError) as caught:
            fill(Part, bad, "config.part")
        assert len(str(caught.value)) < 300
    many = {f"field {i}": i for i in range(1000)}
    with pytest.raises(ValueError, match=r"unknown \['field 0', .*\] and 995 more; there are"):
        fill(Part, many, "config.part")


@pytest.mark.parametrize("number", [1e39, 1e300, -1e39])
def test_numbers_beyond_32_bits_are_none(number):
    with pytest.raises(ValueError, match=r"^config\.part\.scale=.* must be a finite number"):
        fill(Part, {"width": 1, "scale": number}, "config.part")
    with pytest.raises(ValueError, match=r"^config\.optimizer\.eps_root=.* must be at most 3\.4"):
        check_trained({"optimizer": {"eps_root": abs(number)}}, needed=False)
