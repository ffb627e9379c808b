"""TensorFlow Datasets prepared as ArrayRecord, read without TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unified.data.files import opened
from unified.data.sources import RecordSource


class TfdsSource(RecordSource):
    """`path`: the folder of a prepared data set (`.../name/config/version`), `split` as in TFDS.

    Features become the fields of `record.py` by name (rename them with `columns`); a feature
    `label` becomes the caption where there is none: `prompt` with the name of the class for `{}`.
    """

    def __init__(self, path, *, split: str = "train", prompt: str = "{}", **options):
        import tensorflow_datasets as tfds  # takes a second to import

        super().__init__(**options)
        self.prompt = prompt
        builder = opened(path, tfds.builder_from_directory)
        features = builder.info.features
        pictures = [name for name, x in features.items() if isinstance(x, tfds.features.Image)]
        as_files = dict.fromkeys(pictures, tfds.decode.SkipDecoding())  # `decode.py` opens them
        self.examples = builder.as_data_source(split=split, decoders=as_files)
        self.name_of = getattr(features["label"], "int2str", str) if "label" in features else str
        self.parts = [(Path(path) / split, len(self.examples))]

    def read(self, part: int, row: int) -> Mapping[str, Any]:
        example = dict(self.examples[row])
        has_text = self.columns.keys() & {"caption", "captions"} or "caption" in example
        if "label" in example and not has_text:
            example["caption"] = self.prompt.format(self.name_of(int(example.pop("label"))))
        return example
