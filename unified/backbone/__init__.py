"""Backbones: streams of tokens through layers whose weights and attention a plan decides."""

from unified.backbone.backbone import Backbone, Found
from unified.backbone.cache import Cache
from unified.backbone.config import BackboneConfig, StreamConfig
