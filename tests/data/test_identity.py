"""The split of a data set stays as it is when records are added, and a change is told."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_pipeline import make, take
from unified.data import identity
from unified.data.sources import open_source

NAMES = st.sampled_from([f"{i}.jsonl" for i in range(6)])
FILES = st.dictionaries(NAMES, st.integers(0, 60), max_size=6)


def split(files, share=0.05, folder="data"):
    """The records that are held out, and those that are trained on, as (file, number)."""
    parts = [(Path(folder) / name, num) for name, num in sorted(files.items())]
    records = [(file.name, i) for file, num in parts for i in range(num)]
    pick = lambda *ends: {records[i] for i in identity.kept(parts, *ends)}
    return pick(0, share), pick(share, None)


@settings(deadline=None, max_examples=200)
@given(before=FILES, more=FILES)
def test_a_record_stays_on_its_side_when_files_grow_or_are_added(before, more):
    after = {name: before.get(name, 0) + more.get(name, 0) for name in before | more}
    (held, trained), (held_now, trained_now) = split(before), split(after)
    assert not held & trained and not held_now & trained_now
    assert len(held) + len(trained) == sum(before.values())
    assert held <= held_now and trained <= trained_now


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_file_of_two_records_or_more_has_some_on_both_sides(share):
    for name in (f"{i}.jsonl" for i in range(200)):
        sides = [split({name: num}, share) for num in range(1, 53)]
        for num, (held, trained) in enumerate(sides, start=1):
            if num > 1:
                assert held and trained
            assert len(held) <= 2 + num * share
        for (held, trained), (held_next, trained_next) in itertools.pairwise(sides):
            assert held <= held_next and trained <= trained_next


def test_of_files_of_one_record_about_a_share_is_held_out():
    held, trained = split({f"{i}.jsonl": 1 for i in range(1000)})
    assert len(held) == pytest.approx(50, abs=20) and len(held) + len(trained) == 1000


def test_shares_that_follow_on_one_another_part_the_records():
    parts = [(Path(f"{i}.jsonl"), i) for i in range(60)]
    sides = [identity.kept(parts, *ends) for ends in ((None, 0.05), (0.05, 0.3), (0.3, None))]
    np.testing.assert_array_equal(np.sort(np.concatenate(sides)), np.arange(sum(range(60))))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.5])
def test_a_share_is_spread_evenly_over_every_file(share):
    held, _ = split({"a": 1000, "b": 1000}, share)
    for name in "ab":
        numbers = sorted(i for file, i in held if file == name)
        assert len(numbers) == pytest.approx(1000 * share, abs=2)
        assert max(np.diff(numbers)) < 3 / share


def test_a_split_is_that_of_names_wherever_the_folder_lies():
    files = {"a": 50, "b": 70}
    assert split(files, folder="here") == split(files, folder="/else/where")


def lines(folder, name, *numbers):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a") as file:
        file.writelines(json.dumps({"text": f"{i}"}) + "\n" for i in numbers)
    return open_source({"format": "jsonl", "path": str(folder)})


def test_a_source_that_has_changed_since_is_told_in_one_line(tmp_path, caplog):
    options = {"names": ["folder"], "dropout": None}
    pipeline = make(lines(tmp_path / "a", "a.jsonl", *range(10)), **options)
    take(pipeline, 1)
    state = json.loads(json.dumps(pipeline.get_state()))

    with caplog.at_level(logging.WARNING):
        same = make(lines(tmp_path / "b", "a.jsonl", *range(10)), **options)  # moved
        same.set_state(state)
        assert not caplog.records
        grown = make(lines(tmp_path / "b", "a.jsonl", 10, 11), **options)
        grown.set_state(state)
    (said,) = caplog.messages
    assert said == (
        "source folder has changed since the run was saved (records from 10 to 12, bytes from 140 "
        "to 170): the order of its examples is another from here on"
    )
    caplog.clear()
    again = make(lines(tmp_path / "b", "a.jsonl"), **options)
    again.set_state(grown.get_state())  # told once
    again.set_state({k: v for k, v in state.items() if k != "sources"})  # a state of before
    assert not caplog.records


def test_lines_in_another_order_are_other_data_of_the_same_size(tmp_path):
    digests = {
        lines(tmp_path / str(i), "a.jsonl", *numbers).fingerprint()["digest"]
        for i, numbers in enumerate([range(10, 99), range(98, 9, -1), range(10, 99)])
    }
    assert len(digests) == 2
    large = [range(100_000, 110_000), [*range(100_000, 109_998), 109_999, 109_998]]  # only its end
    first, second = (lines(tmp_path / f"l{i}", "a.jsonl", *x) for i, x in enumerate(large))
    assert first.fingerprint()["digest"] != second.fingerprint()["digest"]


def test_sources_that_come_and_go_are_told_too():
    one, other = {"records": 3}, {"records": 4}
    said = list(identity.changes({"a": one, "b": one}, {"b": one, "c": other}))
    assert said == ["source a: is no longer there", "source c: is new"]
    (said,) = identity.changes({"a": one | {"digest": "x"}}, {"a": one | {"digest": "y"}})
    assert "has changed since the run was saved (names, sizes or content of files)" in said


def test_the_processes_of_a_run_keep_what_the_sources_held():
    halves = [make(rows=range(0, 2)), make(rows=range(2, 4))]
    joined = halves[0].merge_states([half.get_state() for half in halves])
    assert joined["sources"] == {"0": {"records": 30}} and len(joined["rows"]) == 4


def test_a_folder_of_small_files_says_how_much_it_holds_out(tmp_path, caplog):
    for i in range(10):
        lines(tmp_path, f"{i}.jsonl", 1, 2, 3)
    spec = {"format": "jsonl", "path": str(tmp_path)}
    with caplog.at_level(logging.WARNING):
        open_source(spec | {"rows": (0, 0.05)}, quiet=True)
        open_source(spec)
        assert not caplog.messages
        open_source(spec | {"rows": (0.05, None)})
    assert caplog.messages == [
        f"{tmp_path}/0.jsonl: rows=(0.05, None) keep 20 of 30 records, since a share from 0 has "
        "one of every file of two or more: join small files"
    ]
