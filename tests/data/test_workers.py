"""Several processes make what one does, and none is missed without a word."""

import json
import os
import signal

import pytest

from tests.data.test_pipeline import Numbers, assert_equal, make, take
from unified.data.rows import BadRecordsError
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


@pytest.mark.slow
def test_bad_records_of_all_workers_count_together(started):
    bad = started(Numbers(30, bad=range(0, 30, 2)), workers=2, max_bad_records=12)
    with pytest.raises(BadRecordsError, match="max_bad_records is 12"):
        take(bad, 100)


def rows_that_are_killed(rows):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_named():
    workers = Workers(rows_that_are_killed, [0, 1], 1, prefetch=1, max_bad_records=0)
    workers.set_state({"rows": {}})
    with pytest.raises(RuntimeError, match=r"rows \[0, 1\] of the input has ended .* code -9"):
        next(workers)
    workers.close()
