"""Makes a release of a run, in fewer bytes if asked to.

    python scripts/release.py runs/emoji_long unified/checkpoints/emoji --storage bfloat16

The first folder is a run of `train.py` (its newest checkpoint, averaged weights) or a release.
"""

import argparse

from unified.interop import model as models
from unified.interop import release


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a run of train.py, or a release")
    parser.add_argument("target", help="the release to write")
    parser.add_argument("--storage", help="dtype of the weights (default: as they are)")
    parser.add_argument("--trust", action="store_true", help="whatever its config names")
    args = parser.parse_args()
    params, config = models.read(args.source, trust=args.trust)
    config = models.keep_tokenizer(args.target, config)
    release.save(args.target, params, config, storage=args.storage)


if __name__ == "__main__":
    main()
