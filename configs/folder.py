"""The default model on a folder of your own: `--config configs/folder.py:path/to/folder`.

The folder holds pictures and a `.jsonl` file, one record a line:

    {"image": "a.jpg", "caption": "a cat on a chair"}                           draws
    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image> what is it?"},
                                         {"from": "gpt", "value": "a cat"}]}    answers

A twentieth of the records, the first ones and one at least, is held out for validation.

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
