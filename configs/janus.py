"""Pictures are read as patches of a vision encoder and drawn as codes, by a head of their own, as
in Janus; all else is that of `configs/codes.py`."""

from configs import codes, quick


def get_config():
    config, patches = codes.get_config(), quick.get_config()
    config.layout.lanes.vit = patches.layout.lanes.vit
    config.layout.lanes[codes.VIEW].count = 4
    config.layout.uses = {"see": ("vit",), "edit": ("vit",), "draw": (codes.VIEW,)}
    config.model.vision = patches.model.vision
    config.model.parts.vit = patches.model.parts.vit
    config.model.parts[codes.VIEW].head_dim = 128
    return config
