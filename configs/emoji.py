"""The whole world: one small network that reads, answers, draws and edits emoji scenes.

A mixture of transformers as in BAGEL: text and patches meet the weights of `und`, latents those
of `gen`, and all attend to one another.
"""

from ml_collections import ConfigDict

TASKS = ("caption", "vqa", "locate", "generate", "edit", "layout", "text")
ICONS = 0.05  # share of single pictures of all concepts, beside scenes


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "unified.recipes.packed"
    config.seed = 0
    config.compute_dtype = "float32"
    config.remat = "everything_saveable"
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}

    config.tokenizer = "unified/tokenizers/emoji_bpe.json"
    config.marks = {  # the tokens that only the packer writes
        "begin_text": "<|im_start|>",
        "end_text": "<|im_end|>",
        "begin_image": "<|vision_start|>",
        "end_image": "<|vision_end|>",
    }
    config.layout = layout()
    config.model = model()
    config.load = {"parts/vae/autoencoder": "unified/checkpoints/autoencoder"}
    config.freeze = ("^parts/vae/autoencoder/",)

    config.data = data()

    config.batch_size = 14  # rows
    config.total_steps = 400
    config.max_minutes = 4.0  # on a slower machine: fewer steps
    config.loss_weights = {"text/nll": 1.0, "vae/flow": 3.0}
    config.optimizer = {
        "name": "muon",
        "learning_rate": 4e-3,
        "schedule": "wsd",
        "warmup_steps": 50,
        "weight_decay": 0.05,
    }
    config.ema = {"decay": 0.995, "warmup": True}
    config.checkpoint = {"every": 200, "keep": 2}
    config.validation = {"every": 200, "batches": 1, "tasks": TASKS}
    config.drawing = {
        "steps": 25,
        "shift": 3.0,
        "text_scale": 3.0,
        "image_scale": 1.5,
        "candidates": 1,
        "read_back": {"generate": "describe the picture"},
    }
    config.benchmark = {"module": "unified.worlds.emoji.benchmark", "examples_per_task": 16}
    return config


def layout() -> dict:
    """A row: which kinds of tokens it has, in which stream, and how many."""
    return {
        "image_position": "shared",  # one RoPE position a picture
        "uses": {
            "see": ("vit",),
            "edit": ("vae", "vit"),
            "draw": ("vae",),
        },  # the views of pictures
        "lanes": {
            "text": {
                "kind": "text",
                "stream": "und",
                "view": "text",
                "tasks": (),  # all
                "budget": 88,  # tokens a row
                "losses": 64,  # of them predicted
            },
            "vit": {
                "kind": "patch",
                "stream": "und",
                "view": "vit",
                "tasks": (),
                "budget": 128,
                "patch": 8,  # pixels a side
                "min_side": 64,
                "max_side": 64,
            },
            "vae": {
                "kind": "picture",
                "stream": "gen",
                "view": "vae",
                "count": 3,  # pictures a row
                "height": 64,
                "width": 64,
                "stride": 8,  # pixels a side of a token
            },
        },
    }


def model() -> dict:
    """The networks, and the part of each view."""
    return {
        "backbone": {
            "streams": {
                "und": {"embed_dim": 192, "mlp_dim": 512},
                "gen": {"embed_dim": 192, "mlp_dim": 512},
            },
            "num_layers": 6,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 48,
            "shared": "none",
            "joint": "all",
            "qk_norm": True,
            "rope_theta": 10_000.0,
        },
        "vision": {
            "embed_dim": 128,
            "mlp_dim": 384,
            "num_layers": 3,
            "num_heads": 4,
            "patch": 8,
            "side": 8,
        },
        "autoencoder": {  # that of unified/checkpoints/autoencoder
            "encoder_widths": (8, 32, 48),
            "decoder_widths": (16, 32, 64),
            "encoder_blocks": 1,
            "decoder_blocks": 1,
            "latent_channels": 8,
            "num_groups": 4,
            "scale": 1.0426608324050903,
            "shift": -0.04509871080517769,
        },
        "parts": {  # what the model does with each view, and with which of these networks
            "text": {"part": "text", "vocab_size": 1024, "logits_chunk": 4096},
            "vit": {
                "part": "vision",
                "encoder": "vision",
                "position_theta": 16.0,  # pictures are 8 tokens a side
            },
            "vae": {
                "part": "flow",
                "autoencoder": "autoencoder",
                "timestep_shift": 3.0,  # towards noise, where words decide
                "sample_latents": False,
                "position_theta": 16.0,
            },
        },
    }


def data() -> dict:
    """Sources, condition dropout, and how the input is read."""
    source = "unified.worlds.emoji.tasks:EmojiSource"
    return {
        "train": {
            "emoji": {
                "format": source,
                "split": "train",
                "tasks": {
                    "caption": 2.0,
                    "vqa": 3.0,
                    "locate": 2.0,
                    "generate": 4.5,
                    "edit": 3.0,
                    "layout": 4.5,
                    "text": 0.5,
                },
                "icons": ICONS,
            }
        },
        "validation": {
            task: {"format": source, "split": "validation", "tasks": {task: 1.0}, "icons": ICONS}
            for task in TASKS
        },
        "dropout": {"text": 0.1, "image": 0.1},  # conditions forgotten, for guidance
        "lookahead": 64,
        "threads": 2,
        "prefetch": 2,
        "workers": 0,  # processes that make the rows, for machines with cores to spare
        "max_bad_records": 100,
    }
