"""What the documentation says of a user's own data is true."""

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unified.recipes import packed
from unified.training import config as configs

DOCUMENT = Path(__file__).parents[2] / "docs/data.md"


def test_the_config_that_the_documentation_gives_for_parquet_reads_parquet(tmp_path):
    pictures = []
    for level in range(40):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (level, 0, 0)).save(file, "png")
        pictures.append(file.getvalue())
    rows = {"image": pictures, "text": [f"red of {level}" for level in range(40)]}
    pq.write_table(pa.table(rows), tmp_path / "shard.parquet")
    [code] = re.findall(
        r"```python\n(from configs import folder.*?)```", DOCUMENT.read_text(), re.S
    )
    (tmp_path / "mine.py").write_text(code)
    config = configs.load(f"{tmp_path}/mine.py:{tmp_path}/*.parquet", ["--config.batch_size=2"])
    seen = {}
    for split in ("train", "validation"):
        inputs = packed.inputs(config, split)
        drawn = [next(inputs).lanes["vae"] for _ in range(6)]
        inputs.close()
        seen[split] = set(np.concatenate([x.pixels[x.target][:, 0, 0, 0] for x in drawn]))
    assert 1 <= len(seen["validation"]) <= 4  # about a twentieth of 40
    assert len(seen["train"]) > 10 and not seen["train"] & seen["validation"]
