"""What training and evaluation need of a config beside a model, checked before either begins."""

import inspect
from collections.abc import Mapping
from typing import Any

from unified import names
from unified.config import Fields
from unified.data.sources import FORMATS
from unified.interop.options import check_each
from unified.interop.schema import check_call, check_trained, conform

MOST = 2**20  # examples


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run: `benchmark`,
    whose options are those of `run` of its module and whose `check`, if it has one, takes the
    config, the sources, and the fields of the input."""
    if "benchmark" not in config:
        raise ValueError("config lacks benchmark: name a module, as of unified.evaluation")
    options = dict(conform(config["benchmark"], Mapping[str, Any], "config.benchmark"))
    name = options.pop("module", None)
    try:
        module = names.find("module", name)
        run = module.run
    except ValueError as error:
        raise ValueError(f"config.benchmark.{error}") from error
    try:
        inspect.signature(run).bind(None, None, extra=None, **options)
    except TypeError as error:
        raise ValueError(f"config.benchmark: {error} of {name}.run") from None
    check_call(run, options, "config.benchmark")
    for option, value in options.items():
        if option.startswith("examples") and not (isinstance(value, int) and 1 <= value <= MOST):
            bound = f"at most {MOST}" if isinstance(value, int) and value > 1 else "at least 1"
            raise ValueError(f"config.benchmark.{option}={value!r} must be {bound}")
    conform(config, Fields, "config")
    check_trained(config)
    sources = {f"data.{split}": config["data"].get(split, {}) for split in ("train", "validation")}
    sources["benchmark.sources"] = options.get("sources", {})
    for where, specs in sources.items():
        check_each(specs, FORMATS, f"config.{where}")
    if hasattr(module, "check"):
        module.check(config)
