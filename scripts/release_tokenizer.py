"""Releases a trained tokenizer of pictures; an autoencoder with the normalisation of its latents.

    python scripts/release_tokenizer.py runs/autoencoder unified/checkpoints/autoencoder

The first folder is a run of `train.py` (its newest checkpoint, averaged weights) or a release. The
second becomes a release, whose config holds what its recipe measures (`scale`, `shift`).
"""

import argparse

from unified.interop import model as models
from unified.interop import release


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a run of train.py, or a release")
    parser.add_argument("target", help="the release to write")
    parser.add_argument("--trust", action="store_true", help="whatever its config names")
    args = parser.parse_args()
    params, config = models.read(args.source, trust=args.trust)
    recipe = models.recipe_of(config)
    if hasattr(recipe, "statistics"):
        model = models.assemble(params, config, args.source)
        config["model"] |= recipe.statistics(model, config)
    release.save(args.target, params, config)
    print(f"{args.target}: {config['model']}")


if __name__ == "__main__":
    main()
