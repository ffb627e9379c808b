"""Rebuilds unified/worlds/emoji/emoji64.parquet from the published packages it was made of.

    pip install resvg-py pillow pyarrow numpy      # and npm, for `npm pack`
    python scripts/build_emoji.py --work /tmp/emoji --out emoji64.parquet
    python scripts/build_emoji.py ... --compare unified/worlds/emoji/emoji64.parquet

A concept is kept where all of 3d, flat, modern and noto draw it; a skin tone where 3d and noto do.
What the sources get wrong, and what may not be used, is handled where a comment says "Trap".
"""

import argparse
import functools
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

PACKAGES = {
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "flat": "@lobehub/fluent-emoji-flat@1.1.0",
    "modern": "@lobehub/fluent-emoji-modern@1.0.0",
    "mono": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "noto": "@iconify-json/noto@1.2.9",
    "names": "emojibase-data@17.0.0",
}
STYLES = ("3d", "flat", "modern", "noto", "mono")
LANGUAGES = ("zh", "ja", "ko", "es", "fr", "de", "ru", "pt", "hi", "it")
SIDE = 64


def fetch(work: Path) -> dict[str, Path]:
    """Downloads and unpacks every package once; style -> its folder."""
    folders = {}
    for name, package in PACKAGES.items():
        folders[name] = work / name
        if folders[name].exists():
            continue
        command = ["npm", "pack", "--silent", package]
        packed = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True)
        with tarfile.open(work / packed.stdout.strip()) as tar:
            tar.extractall(folders[name], filter="data")
    return {name: folder / "package" for name, folder in folders.items()}


def normal(id: str) -> str:
    """Lower case, without the variation selector."""
    return id.lower().replace("-fe0f", "")


def swap_tones(id: str) -> str:
    """Trap: all lobehub sets exchange the files of the second and third skin tone."""
    swap = {"1f3fc": "1f3fd", "1f3fd": "1f3fc"}
    return "-".join(swap.get(part, part) for part in id.split("-"))


def lobehub(folder: Path) -> dict[str, Path]:
    """id -> file.

    Trap: ten files of `modern` are called `1f446svg`, with no dot. They are light skin tones under
    the name of the base, which has a file of its own that sorts first: that one is kept. (The
    table that ships was made without this rule and holds eight of them.)
    """
    found = {}
    for path in sorted((folder / "assets").iterdir()):
        id = path.name.removesuffix(".webp").removesuffix("svg").removesuffix(".")
        found.setdefault(swap_tones(normal(id)), path)
    return found


def iconify(folder: Path) -> dict[str, str]:
    """id -> SVG text of an icon set kept as one JSON file."""
    icons = json.loads((folder / "icons.json").read_text())
    found = {}
    for id, name in json.loads((folder / "chars.json").read_text()).items():
        alias = icons.get("aliases", {}).get(name, {"parent": name})
        icon = icons["icons"].get(alias["parent"])
        if icon is None or set(alias) - {"parent"}:
            continue
        width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
        body = icon["body"].replace("currentColor", "#000000")
        found[normal(id)] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{body}</svg>'
        )
    return found


def draw(source: Path | str) -> bytes:
    """A WebP of `SIDE` pixels from a WebP file, an SVG file or the text of an SVG."""
    import resvg_py

    if isinstance(source, Path) and source.name.endswith(".webp"):
        image = Image.open(source).convert("RGBA")
    else:
        svg = source.read_text() if isinstance(source, Path) else source
        png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIDE)
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    # Two steps, 256 to 128 to 64 pixels, as the table that ships was made.
    square = ImageOps.pad(image, (2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    small = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80, alpha_quality=90, method=6)
    return out.getvalue()


@functools.cache
def names(folder: Path, language: str) -> dict[str, str]:
    data = json.loads((folder / language / "data.json").read_text())
    return {normal(emoji["hexcode"]): emoji["label"] for emoji in data}


def rows(folder: Path, drawn: dict[str, dict]) -> list[dict]:
    """What is known of each concept that is drawn: first all bases, then all skin tones."""
    meta = json.loads((folder / "meta" / "groups.json").read_text())
    bases, tones = [], []
    for emoji in json.loads((folder / "en" / "data.json").read_text()):
        id = normal(emoji["hexcode"])
        if "group" not in emoji or not all(
            id in drawn[s] for s in ("3d", "flat", "modern", "noto")
        ):
            continue
        group = meta["groups"][str(emoji["group"])]
        subgroup = meta["subgroups"][str(emoji["subgroup"])]
        if subgroup in ("country-flag", "subdivision-flag"):  # Trap: of unclear origin
            continue
        row = {"group": group, "subgroup": subgroup, "base": id, "gender": emoji.get("gender")}
        local = {k: names(folder, k)[id] for k in LANGUAGES if id in names(folder, k)}
        i18n = json.dumps(local, ensure_ascii=False)
        tags = emoji.get("tags", [])
        bases.append(row | concept(emoji, 0, tags, i18n))
        if emoji["label"] == "person mountain biking":  # Trap: tones reversed at the source
            continue
        for skin in emoji.get("skins", ()):
            toned = normal(skin["hexcode"])
            if isinstance(skin["tone"], int) and toned in drawn["3d"] and toned in drawn["noto"]:
                gender = skin.get("gender", row["gender"])
                tones.append(row | concept(skin, skin["tone"], [], "{}") | {"gender": gender})
    return bases + tones


def concept(emoji: dict, tone: int, tags: list[str], i18n: str) -> dict:
    id = normal(emoji["hexcode"])
    names = {"emoji": emoji["emoji"], "caption": emoji["label"], "tags": tags, "i18n": i18n}
    return {"id": id, "tone": tone, **names}


def build(folders: dict[str, Path]) -> pa.Table:
    drawn: dict[str, dict] = {s: lobehub(folders[s]) for s in ("3d", "flat", "modern")}
    drawn |= {s: iconify(folders[s]) for s in ("noto", "mono")}
    # Trap: the 3d set holds drawings outside the MIT release; the flat set holds none of them.
    drawn["3d"] = {id: path for id, path in drawn["3d"].items() if id in drawn["flat"]}
    table = rows(folders["names"], drawn)
    for i, row in enumerate(table):
        for style in STYLES if row["tone"] == 0 else ("3d", "noto"):
            source = drawn[style].get(row["id"])
            row[style] = draw(source) if source else None
        if i % 200 == 0:
            print(f"{i} of {len(table)} concepts drawn", flush=True)
    columns = (*STYLES, "id", "emoji", "caption", "tags", "group", "subgroup", "tone", "base")
    kinds = dict.fromkeys(STYLES, pa.binary()) | {"tone": pa.int64(), "gender": pa.int64()}
    kinds["tags"] = pa.list_(pa.string())
    fields = [(name, kinds.get(name, pa.string())) for name in (*columns, "gender", "i18n")]
    full = [{name: row.get(name) for name, _ in fields} for row in table]
    return pa.Table.from_pylist(full, schema=pa.schema(fields))


def compare(built: pa.Table, shipped: pa.Table) -> None:
    """Prints how the concepts, facts and pictures of two tables differ."""
    ours, theirs = ({row["id"]: row for row in t.to_pylist()} for t in (built, shipped))
    both = [id for id in ours if id in theirs]
    print(f"concepts: {len(ours)} built, {len(theirs)} shipped, {len(both)} in both")
    for kind, ids in (("built", ours.keys() - theirs), ("shipped", theirs.keys() - ours)):
        print(f"only {kind}:", [(ours | theirs)[id]["caption"] for id in ids][:20])
    for name in built.column_names:
        if name not in STYLES:
            differing = [id for id in both if ours[id][name] != theirs[id][name]]
            print(
                f"{name}: {len(differing)} differ",
                [(ours[i][name], theirs[i][name]) for i in differing[:3]],
            )
            continue
        pairs = [(ours[id][name], theirs[id][name]) for id in both]
        missing = sum((a is None) != (b is None) for a, b in pairs)
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        error = [np.abs(pixels(a) - pixels(b)).mean() for a, b in pairs]
        same = sum(a == b for a, b in pairs)
        print(
            f"{name}: {len(pairs)} pictures, {same} identical, {missing} in one table only; "
            f"mean error of 255: median {np.median(error):.3f}, largest {max(error):.3f}"
        )


def pixels(data: bytes) -> np.ndarray:
    """int `[64 64 4]`, premultiplied, so that the colour of clear pixels does not count."""
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
    return np.concatenate([rgba[..., :3] * rgba[..., 3:] // 255, rgba[..., 3:]], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the packages")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--compare", type=Path, help="a file to compare the result with")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    table = build(fetch(args.work))
    pq.write_table(table, args.out, compression="zstd")
    print(f"{args.out}: {table.num_rows} concepts, {args.out.stat().st_size / 2**20:.1f} MiB")
    if args.compare:
        compare(table, pq.read_table(args.compare))


if __name__ == "__main__":
    main()
