"""Your own pictures as tests make them: folders, Hugging Face datasets and shards."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import datasets
import webdataset
from PIL import Image


def png(name: str) -> bytes:
    """The bytes of a small picture whose colour comes from its name."""
    buffer = io.BytesIO()
    colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
    Image.new("RGB", (5, 4), colour).save(buffer, "png")
    return buffer.getvalue()


def save(folder: Path, *names: str) -> None:
    """Small pictures that all differ (their colour comes from their name)."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
        Image.new("RGB", (5, 4), colour).save(folder / name)


def write_csv(folder: Path, *rows: tuple[str, ...], header=("file_name", "text")) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    (folder / "metadata.csv").write_text(buffer.getvalue(), encoding="utf-8", newline="")


def write_jsonl(folder: Path, *records: object) -> None:
    """A `str` is written as it is, everything else as JSON."""
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def record(file_name: str, text: str) -> dict[str, str]:
    return {"file_name": file_name, "text": text}


def table(columns: dict[str, list], image: str = "image") -> datasets.Dataset:
    """A dataset in memory, as the hub would give it: the column `image` holds pictures."""
    columns = {
        name: [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in cells]
        for name, cells in columns.items()
    }
    return datasets.Dataset.from_dict(columns).cast_column(image, datasets.Image())


def write_shard(path: Path, samples: list[dict], keys: list[str] | None = None) -> Path:
    keys = keys or [f"{i:03}" for i in range(len(samples))]
    with webdataset.TarWriter(str(path)) as writer:
        for key, sample in zip(keys, samples, strict=True):
            writer.write({"__key__": key, **sample})
    return path
