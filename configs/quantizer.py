"""The quantizer of the discrete models: pictures of 64x64 to 16x16 codes, of 512."""

from configs import autoencoder


def get_config():
    config = autoencoder.get_config()
    config.recipe = "unified.recipes.quantizer"
    del config.model.scale, config.model.shift
    config.model.codebook_size = 512
    config.total_steps = 2000
    config.loss_weights = {
        "l1": 0.5,
        "mse": 4.0,
        "edges": 0.25,
        "codebook": 1.0,
        "commitment": 0.25,
        "revival": 0.1,
    }
    return config
