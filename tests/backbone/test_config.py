"""A plan becomes runs of layers, and an impossible one says what to change."""

import pytest

from unified.backbone import BackboneConfig, StreamConfig
from unified.backbone.config import Run

BASE = {
    "streams": {"und": StreamConfig(16, 24), "gen": StreamConfig(16, 24)},
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize(
    ("plan", "runs"),
    [
        ({}, [(0, 4, False, True)]),
        ({"shared": "all"}, [(0, 4, True, True)]),
        ({"shared": [[0, 3]]}, [(0, 3, True, True), (3, 4, False, True)]),
        (
            {"joint": [[1, 3]]},
            [(0, 1, False, False), (1, 3, False, True), (3, 4, False, False)],
        ),
        (
            {"shared": [[2, 4], [0, 1]], "joint": [[0, 2]]},
            [(0, 1, True, True), (1, 2, False, True), (2, 4, True, False)],
        ),
    ],
    ids=["mixture of transformers", "dense", "Y", "H", "all of it"],
)
def test_layers_with_one_plan_are_one_run(plan, runs):
    assert BackboneConfig(**BASE, **plan).runs == tuple(Run(*run) for run in runs)


def test_a_config_is_data_and_can_be_compared_and_hashed():
    cfg = BackboneConfig(**BASE, active=[None, (0, 0.5), (0.5, 1), None])
    plain = {name: {"embed_dim": 16, "mlp_dim": 24} for name in ("und", "gen")}
    same = BackboneConfig(**(BASE | {"streams": plain}), active=cfg.active)
    assert cfg == same and hash(cfg) == hash(same)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "num_heads=3 must be a multiple of num_kv_heads=2"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"num_layers": 0}, "num_layers=0: must be at least 1"),
        ({"streams": {"und": StreamConfig(0, 8)}}, "und.embed_dim=0: must be at least 1"),
        ({"streams": {}}, "name one or more"),
        ({"streams": {"shared": StreamConfig(8, 8)}}, "none of them 'shared'"),
        ({"shared": "some"}, "shared='some': write 'all', 'none' or a list"),
        ({"joint": [[2, 5]]}, r"joint range \[2, 5\) must be non-empty and within \[0, 4\)"),
        ({"joint": [[2, 2]]}, r"joint range \[2, 2\) must be non-empty"),
        ({"shared": [[0, 3], [2, 4]]}, r"shared ranges \[\(0, 3\), \(2, 4\)\] overlap"),
        ({"active": [None]}, "active has 1 windows for 4 layers"),
        ({"active": [(0.5, 0.5), None, None, None]}, "needs 0 <= lo < hi <= 1"),
        (
            {"streams": {"a": StreamConfig(8, 8), "b": StreamConfig(4, 8)}, "shared": [[0, 1]]},
            "are shared, but .* differ: .*; give all streams the same widths or",
        ),
    ],
)
def test_an_impossible_plan_says_what_to_change(change, message):
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**(BASE | change))
