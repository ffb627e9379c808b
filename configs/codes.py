"""Pictures as codes, read and drawn place by place by one dense network, as in Chameleon and Emu3.

The world and the sizes are those of `configs/quick.py`, for more minutes; a picture is 8x8 codes of
the quantizer that ships.
"""

from configs import quantizer, quick

VIEW = "codes"


def get_config():
    config = quick.get_config()
    lanes, model = config.layout.lanes, config.model
    del lanes.vit, lanes.vae, model.vision, model.autoencoder, model.parts.vit, model.parts.vae
    lanes[VIEW] = {
        "kind": "picture",
        "stream": "gen",
        "view": VIEW,
        "count": 6,  # pictures a row
        "height": 32,
        "width": 32,
        "stride": 4,
        "sees": "causal",
    }
    config.layout.uses = {"see": (VIEW,), "edit": (VIEW,), "draw": (VIEW,)}
    model.quantizer = quantizer.get_config().model
    model.parts[VIEW] = {
        "part": "codes",
        "quantizer": "quantizer",
        "head_dim": 0,
        "position_theta": 16.0,
    }
    model.backbone.shared = "all"

    config.total_steps, config.max_minutes = 600, 0.0
    config.load = {f"parts/{VIEW}/quantizer": "unified/checkpoints/quantizer"}
    config.freeze = (f"^parts/{VIEW}/quantizer/",)
    config.loss_weights = {"text/nll": 1.0, f"{VIEW}/nll": 1.0}
    config.drawing = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 0.9,
        "text_scale": 2.0,
        "image_scale": 1.0,
        "candidates": 1,
        "read_back": {},
    }
    return config
