"""The architectures of the emoji configs at a size for tests."""

from configs import emoji, emoji_dense, emoji_h, emoji_y

VARIANTS = {"mot": emoji, "dense": emoji_dense, "h": emoji_h, "y": emoji_y}


def small(variant="mot", **backbone):
    """A config of one of the architectures at a size for tests."""
    config = VARIANTS[variant].get_config()
    config.batch_size = 2
    config.data.lookahead = 8
    config.model.autoencoder = {
        "encoder_widths": (4, 4, 8),
        "decoder_widths": (4, 4, 8),
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "latent_channels": 2,
        "num_groups": 2,
        "scale": 1.0,
        "shift": 0.0,
    }
    for widths in config.model.backbone.streams.values():
        widths.update({"embed_dim": 16, "mlp_dim": 24})
    config.model.backbone.update({"num_heads": 2, "num_kv_heads": 1, "head_dim": 8, **backbone})
    vision = {"embed_dim": 8, "mlp_dim": 16, "num_layers": 1, "num_heads": 2}
    config.model.get("vision", {}).update(vision)
    return config
