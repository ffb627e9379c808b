"""What tells a process which of several it is, and what it lacks."""

import pytest

from unified.training import processes


@pytest.mark.parametrize("address", ["nohost", "", "host:", ":1", "host:port", "a host:1"])
def test_an_address_that_is_none_is_named_with_its_form(monkeypatch, address):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    with pytest.raises(ValueError, match=r"JAX_COORDINATOR_ADDRESS='.*' must be host:port of the"):
        processes.join()


def test_a_number_of_processes_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES='two' is no whole number"):
        processes.join()
