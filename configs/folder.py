"""The default model on a folder of your own: `--config configs/folder.py:path/to/folder`.

The folder holds pictures and a `.jsonl` file, one record a line:

    {"image": "a.jpg", "caption": "a cat on a chair"}                           draws
    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image> what is it?"},
                                         {"from": "gpt", "value": "a cat"}]}    answers

About a twentieth of the records, spread over the files, is held out for validation: one at least
of a file of two or more (join small files). A record stays on its side when others are added.

All else is that of `configs/emoji.py`, a run of minutes that starts from nothing but the
autoencoder. Say how long to train, and fit the rows to your data:

- `--config.max_minutes=0 --config.total_steps=20000`: no limit of time (else 4 minutes) and more
  steps (else 400).
- A row holds 256 tokens of text, of them 192 predicted, and 3 pictures to draw. Texts that are
  longer are bad records; where all are short, captions say, most of the row is padding (see
  `input/fill/text` in the metrics), and `--config.layout.lanes.text.budget=96
  --config.layout.lanes.text.losses=64` wastes less. Pictures are of 64 by 64 pixels.

Other formats: "parquet", "webdataset", "array_record", "tfds" (see `unified/data/record.py`).
"""

from configs import emoji

HELD_OUT = 0.05  # of the records


def get_config(path: str):
    config = emoji.get_config()
    source = {"format": "jsonl", "path": path}
    config.data.train = {"folder": {**source, "rows": (HELD_OUT, None)}}
    config.data.validation = {"folder": {**source, "rows": (0, HELD_OUT)}}
    config.validation.tasks = ("folder",)
    with config.ignore_type():
        config.benchmark = {
            "module": "unified.evaluation.samples",
            "sources": {"folder": {**source, "rows": (0, HELD_OUT)}},
        }
    lanes = config.layout.lanes
    lanes.text.update({"budget": 256, "losses": 192})
    return config
