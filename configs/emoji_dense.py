"""`emoji.py` as one dense transformer, as in Transfusion: all tokens share all weights.

Pictures are latents, whether they are read or drawn: there is no vision encoder.
"""

from configs import emoji


def get_config():
    config = emoji.get_config()
    config.model.backbone.shared = "all"
    del config.model.vision, config.model.parts.vit, config.layout.lanes.vit
    config.layout.uses.update({"see": ("vae",), "edit": ("vae",)})
    config.layout.lanes.text.update({"budget": 92})
    config.layout.lanes.vae.update({"count": 5})
    return config
