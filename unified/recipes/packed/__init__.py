"""Examples of all kinds packed in rows, for a model made of parts.

The family of Transfusion (dense), BAGEL and LMFusion (mixture of transformers), UniFork (Y),
HBridge (H), LaTtE-Flow (layers active by flow time), and whatever other parts make: their
differences are `config.layout` and `config.model`.
"""

from unified.config import defaults, parse
from unified.recipes.packed.check import check
from unified.recipes.packed.recipe import build, counts, evaluate, flops, inputs, loss
