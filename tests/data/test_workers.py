"""Several processes make what one does, and none is missed without a word."""

import collections
import functools
import json
import os
import signal
import time

import numpy as np
import pytest

from tests.data.test_pipeline import Numbers, assert_equal, make, take
from unified.data.rows import BadRecordsError, Packed
from unified.data.workers import Workers


@pytest.fixture
def started():
    """Makes pipelines, and closes them in the end."""
    made = []

    def start(*args, **kwargs):
        made.append(make(*args, **kwargs))
        return made[-1]

    yield start
    for pipeline in made:
        pipeline.close()


@pytest.mark.slow
def test_workers_make_the_batches_of_one_process_and_resume_with_another_number(started):
    one, two = started(), started(workers=2)
    want = take(one, 6)
    assert_equal(take(two, 3), want[:3])
    state = json.loads(json.dumps(two.get_state()))
    three = started(workers=3)
    three.set_state(state)
    assert_equal(take(three, 3), want[3:])
    assert three.get_state() == one.get_state()
    assert two.metrics()["examples"] > 0


def test_bad_records_of_all_workers_count_together(started):
    bad = started(Numbers(30, bad=range(0, 30, 2)), workers=2, max_bad_records=12)
    with pytest.raises(BadRecordsError, match=r"max_bad_records is 12; one is numbers\.jsonl:"):
        take(bad, 100)


class Large:
    """Rows larger than a pipe, so that a worker which is ahead waits in the middle of one; `fault`
    is called with the number of the batch."""

    def __init__(self, rows, fault):
        self.fault, self.number = fault, 0

    def __next__(self):
        self.fault(self.number)
        self.number += 1
        return Packed(np.zeros((2, 1 << 20), np.uint8), np.zeros(1), collections.Counter())

    def get_state(self):
        return {"batch_size": 2, "rows": {}}

    def set_state(self, state):
        pass


@pytest.fixture
def failing():
    """Makes workers that fail, and ends them."""
    made = []

    def start(fault):
        make = functools.partial(Large, fault=fault)
        made.append(Workers(make, [0, 1], 1, prefetch=0, max_bad_records=0))
        return made[-1]

    yield start
    for workers in made:
        workers.close()


def killed_at_first(number):
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(number):
    pass


def unplugged(number):
    if number:
        raise ConnectionResetError("the store is gone")


class Odd(Exception):
    """Does not unpickle."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def odd(number):
    raise Odd(1, 2)


def test_a_killed_worker_is_named(failing):
    named = r"rows \[0, 1\] of the input has ended with exit code -9 \(killed"
    with pytest.raises(RuntimeError, match=named):
        next(failing(killed_at_first))
    waiting = failing(nothing)
    next(waiting)
    ((_, process),) = waiting._running
    time.sleep(0.5)  # until it waits in the middle of the next batch
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=named):
        next(waiting)


def test_errors_come_from_the_worker_as_they_are_with_their_place(failing):
    broken = failing(unplugged)
    next(broken)
    with pytest.raises(ConnectionResetError, match="the store is gone") as caught:
        next(broken)
    assert "in unplugged" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        next(failing(odd))


def test_what_cannot_be_sent_to_workers_is_refused(failing):
    with pytest.raises(ValueError, match=r"data\.workers=1: sources and tokenizer must pickle"):
        next(failing(lambda number: None))
    with pytest.raises(ValueError, match="workers make endless input"):
        make(workers=1, num_examples=3)
