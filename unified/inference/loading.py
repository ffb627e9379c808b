"""From the folder of a trained model to what it can be asked."""

import os
from collections.abc import Mapping
from typing import Any

import jax

from unified import devices
from unified.inference import compiled
from unified.inference.assistant import Assistant
from unified.inference.picture_tokenizer import PictureNetwork, PictureTokenizer
from unified.interop import model as models


def load(
    checkpoint: str | os.PathLike | None = None,
    *,
    keep_compiled: bool = False,
    trust: bool = False,
    verify: bool = True,
    **options,
) -> Assistant | PictureTokenizer:
    """The model of a release folder or of a `train.py` run (its newest checkpoint, averaged).

    Default: the one that ships. `options` are those of `Assistant`, or of the `PictureTokenizer`
    that the folder of an autoencoder or a quantizer gives. Raises FileNotFoundError for a folder
    that is neither, ValueError for a damaged one, for parameters that do not fit the config beside
    them, and for a platform of JAX that is not there.

    A folder of weights is data, whoever made it: nothing of it is run, and its config may name code
    of this package alone. `trust` allows any, as of a program of your own (SECURITY.md).
    `verify` compares the parameters with the checksums that were saved beside them.

    A request of a new shape (number of requests, length, steps) compiles for seconds.
    `keep_compiled` keeps all that this process compiles for the next one, as `compiled.keep` says.
    """
    devices.find()
    if keep_compiled:
        compiled.keep()
    path = models.DEFAULT if checkpoint is None else checkpoint
    params, config = models.read(path, trust=trust, verify=verify)
    model = models.assemble(params, _computed(config), path)
    with models.config_of(path):
        if isinstance(model, PictureNetwork):
            return PictureTokenizer(model, config, **options)
        return Assistant(model, config, **options)


def _computed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config as this machine computes it: in float32 on a CPU.

    There bfloat16 takes longer to compile (2 times) and to run (docs/LOG.md).
    """
    on_cpu = jax.default_backend() == "cpu" and config.get("compute_dtype") == "bfloat16"
    return {**config, "compute_dtype": "float32"} if on_cpu else config
