"""Utilisation is said where the peak of the devices is known, and only there."""

import types

import jax
import pytest

from unified.training import utilization

RECIPE = types.SimpleNamespace(flops=lambda model, batch: model * batch)


def devices(*kinds):
    return [types.SimpleNamespace(device_kind=kind) for kind in kinds]


def test_the_longest_name_that_fits_says_the_peak():
    assert utilization.peak(devices("TPU v5 lite", "TPU v5 lite")) == 2 * 197e12
    assert utilization.peak(devices("TPU v5p")) == 459e12
    assert utilization.peak(devices("NVIDIA H100 80GB HBM3")) == 989e12
    assert utilization.peak(devices("NVIDIA H100 PCIe")) == 756e12


@pytest.mark.parametrize("found", [jax.devices("cpu"), devices("NVIDIA H200", "NVIDIA New")])
def test_an_unknown_device_has_no_peak(found):
    assert utilization.peak(found) is None
    assert utilization.ideal_seconds(RECIPE, 2.0, found) is None


def test_a_step_of_so_many_operations_takes_so_long_at_the_peak():
    ideal = utilization.ideal_seconds(RECIPE, 2.0, devices("NVIDIA A100-SXM4-80GB"))
    assert ideal(312e12) == pytest.approx(2.0)
    unknown = types.SimpleNamespace(flops=lambda model, batch: None)
    assert utilization.ideal_seconds(unknown, 2.0, devices("TPU v4"))(1) == 0.0
    assert utilization.ideal_seconds(types.SimpleNamespace(), 2.0, devices("TPU v4")) is None
