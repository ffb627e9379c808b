"""Evaluates a trained model: `python eval.py --config configs/emoji.py --checkpoint runs/emoji`.

`--checkpoint` is a run of `train.py` (its newest checkpoint, averaged) or a release. `--config`
says how to evaluate; without it, the config beside the weights does. Every field can be
overridden: `--config.benchmark.examples_per_task=200`. A config given is a program, and may name
any code; the one beside the weights may name code of this package alone, unless `--trust` is said.

Prints a table; writes `metrics.json`, `report.html` and pictures to `--output` (default:
`evaluation/` inside the run, or `evaluation/<name of the release>`).
"""

import sys

from unified import interrupt

if __name__ == "__main__":  # before the imports, which take seconds
    interrupt.end_at_once("eval.py")

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from flax import nnx
from ml_collections import ConfigDict

from unified import devices
from unified.data.rows import BadRecordsError
from unified.evaluation import report
from unified.interop import model as models
from unified.interop import release, run
from unified.message import told
from unified.status import Warnings
from unified.terminal import Terminal
from unified.training.check import check_ranges
from unified.training.config import load as load_config
from unified.training.override import override


def main(argv: Sequence[str] | None = None) -> int:
    args, overrides = parse(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells more than a user asks
    try:
        devices.find()
        folder = args.output or default_output(args.checkpoint)
        model, config = load(args.checkpoint, args.config, overrides, trust=args.trust)
        with Warnings(), models.config_of("" if args.config else args.checkpoint):
            values = models.recipe_of(config).evaluate(model, config, folder)
    except Exception as error:  # a config may ask the impossible in ways that nobody foresaw
        return told("eval.py", error, (OSError, ValueError, BadRecordsError))
    terminal = Terminal()
    terminal.print(report.table(values, f"evaluation of {args.checkpoint}", report.LINES))
    terminal.print(f"wrote {folder}")
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The program's own arguments, and the overrides of config fields."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, help="a run of train.py, or a release")
    parser.add_argument("--config", help="a Python file with get_config(), default: as trained")
    parser.add_argument(
        "--trust", action="store_true", help="run the code that the config of the weights names"
    )
    parser.add_argument("--output", type=Path, help="folder to write to")
    return parser.parse_known_args(argv)


def load(
    checkpoint: str, config_file: str | None, overrides: Sequence[str], *, trust: bool = False
) -> tuple[nnx.Module, ConfigDict]:
    """The model and how to evaluate it. The tokenizer always is that of the weights.

    Raises ValueError or OSError for a mistake, before the evaluation begins.
    """
    params, saved = models.read(checkpoint, trust=trust or bool(config_file))
    if config_file:
        config = load_config(config_file, overrides)
        for field in ("tokenizer", "marks", "template"):
            if field in saved:
                config[field] = saved[field]
    else:
        config = ConfigDict(saved)
        with models.config_of(checkpoint):
            for text in overrides:
                override(config, text)
    with models.config_of("" if config_file else checkpoint):
        recipe = models.recipe_of(config)
        if hasattr(recipe, "check"):
            recipe.check(config)
        check_ranges(config)
    return models.assemble(params, config, checkpoint), config


def default_output(checkpoint: str) -> Path:
    """Inside a run; elsewhere in the working directory, as a release may be read-only."""
    if run.is_run(checkpoint):
        return Path(checkpoint) / "evaluation"
    return Path("evaluation") / release.resolve(checkpoint).name


if __name__ == "__main__":
    sys.exit(main())
