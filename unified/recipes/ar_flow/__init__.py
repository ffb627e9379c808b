"""Autoregressive text and rectified-flow pictures in one transformer.

The family of Transfusion (dense), BAGEL and LMFusion (mixture of transformers), UniFork (Y),
HBridge (H) and LaTtE-Flow (layers active by flow time): their differences are `config.layout`
and `config.model.backbone`.
"""

from unified.recipes.ar_flow.check import check
from unified.recipes.ar_flow.config import ARFlowConfig, defaults, drawing, parse, tokenizer
from unified.recipes.ar_flow.flops import flops
from unified.recipes.ar_flow.model import ARFlow
from unified.recipes.ar_flow.recipe import build, counts, evaluate, inputs, loss
from unified.recipes.ar_flow.sampling import decode_text, prefill, score_text, velocity
