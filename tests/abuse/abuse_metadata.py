"""Promises about metadata.csv and metadata.jsonl: handled, or named with row, all at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from cases import Case
from PIL import Image

import mclip_helpers as mh

COLOURS = {"a.png": "red", "b.png": "blue", "c.png": "green", "d e.png": "white"}


def folder_with(metadata: str | bytes, suffix: str = "csv") -> Callable[[Path], Path]:
    """A folder with four pictures and this metadata."""

    def prepare(folder: Path) -> Path:
        for name, colour in COLOURS.items():
            Image.new("RGB", (8, 8), colour).save(folder / name)
        data = metadata.encode("utf-8", "surrogatepass") if isinstance(metadata, str) else metadata
        (folder / f"metadata.{suffix}").write_bytes(data)
        return folder

    return prepare


def bytes_of_metadata(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("metadata.*")]


def refused(
    name: str, metadata: str | bytes, *says: str, suffix: str = "csv", problems: int = 1
) -> Case:
    """Refused with so many problems: no more are said than there are."""
    return Case(
        name,
        prepare=folder_with(metadata, suffix),
        does=mh.folder_dataset,
        refused=mh.DataError,
        says=(f"{problems} problem", f"metadata.{suffix}", *says),
        keeps=bytes_of_metadata,
    )


def read(name: str, metadata: str | bytes, captions: list[str], suffix: str = "csv") -> Case:
    """Read, with these captions of the first pictures."""
    return Case(
        name,
        prepare=folder_with(metadata, suffix),
        does=mh.folder_dataset,
        holds=lambda _, dataset: dataset.all_captions[: len(captions)] == captions,
        keeps=bytes_of_metadata,
    )


def table(*rows: str, header: str = "file_name,text") -> str:
    """A CSV with these rows, and good rows for the pictures that they do not begin with."""
    rest = [f"{name},good" for name in COLOURS if not any(name in row for row in rows)]
    return "\n".join([header, *rows, *rest]) + "\n"


def lines(*rows: str) -> str:
    """The same as JSON, one object a line."""
    rest = [f'{{"file_name": "{name}", "text": "good"}}' for name in COLOURS]
    return (
        "\n".join([*rows, *(line for line in rest if not any(line[:22] in r for r in rows))]) + "\n"
    )


# ----------------------------------------------------------------------------------------- captions

INVISIBLE = {
    "a space": " ",
    "a no-break space": "\xa0",
    "a wide space": "\u3000",
    "a zero-width space": "\u200b",
    "a byte-order mark": "\ufeff",
    "a zero-width joiner": "\u200d",
    "a soft hyphen": "\xad",
    "a mark of direction": "\u202e",
    "a word joiner": "\u2060",
    "an empty Braille pattern": "\u2800",
    "a Hangul filler": "\u3164",
    "an accent without a letter": "\u0301",
    "a variation selector": "\ufe0f",
    "a tag of a flag": "\U000e0067",
}
UNREADABLE = {
    "a zero": "\0",
    "an escape sequence": "\x1b[2J",
    "a bell": "\x07",
    "a deletion": "\x7f",
    "a letter of Windows read as Latin-1": "\x93",
}
FOR_NOTHING = (
    *("nan", "NaN", "NAN", "NULL", "null", "None", "none", "nil", "NA", "N/A", "n/a", "#N/A"),
    *("<NA>", "undefined", "-", "--", "–", "—"),
)
CAPTIONS = [
    *(
        refused(
            f"a caption of {word!r} stands for nothing",
            table(f"a.png,{word}"),
            f"row 1: a.png: the caption (text) is '{word}'",
            "say more",
        )
        for word in FOR_NOTHING
    ),
    *(
        refused(
            f"a caption of nothing but {what} is empty",
            table(f"a.png,{text}"),
            "row 1: a.png: the caption (text) ",
        )
        for what, text in INVISIBLE.items()
    ),
    *(
        refused(
            f"a caption with {what} is refused",
            table(f"a.png,an {text} apple"),
            "row 1: a.png: the caption (text) holds",
        )
        for what, text in UNREADABLE.items()
    ),
    *(
        refused(
            f"a caption with {what} is refused in JSON, too",
            lines(json.dumps({"file_name": "a.png", "text": f"an {text} apple"})),
            "row 1: a.png: the caption (text) holds",
            suffix="jsonl",
        )
        for what, text in (
            UNREADABLE | {"half a letter": "\ud83d", "its other half": "\udc4d"}
        ).items()
    ),
    refused(
        "a caption of a million letters is refused with its row",
        table("a.png," + "x" * 10**6),
        "row 1: a.png",
        "1,000,000 characters",
        "10,000",
    ),
    refused(
        "a caption of 10,001 letters is refused",
        table("a.png," + "x" * 10_001),
        "10,001 characters",
    ),
    read("a caption of 10,000 letters is read", table("a.png," + "x" * 10_000), ["x" * 10_000]),
    read(
        "a caption that only begins like nothing is read", table("a.png,nan bread"), ["nan bread"]
    ),
    *(
        read(f"a caption in {script} is read", table(f"a.png,{text}"), [text])
        for script, text in {
            "Korean": "사과",
            "Arabic": "تفاحة",
            "Persian, with a zero-width joint": "می\u200cخواهم",
            "emoji": "👩\u200d🍳",
            "one letter": "x",
            "punctuation": "!?",
            "digits": "5",
        }.items()
    ),
    read("spaces around a caption do not count", table("a.png,  an apple \t"), ["an apple"]),
    read(
        "the same caption twice is one",
        table("a.png,apple", "a.png,apple ", "a.png,fruit"),
        ["apple", "fruit"],
    ),
    *(
        refused(
            f"a caption that is {what} is refused",
            lines(f'{{"file_name": "a.png", "text": {text}}}'),
            "row 1: a.png: the caption",
            suffix="jsonl",
        )
        for what, text in {
            "a number": "5",
            "a fraction": "0.5",
            "NaN": "NaN",
            "infinite": "Infinity",
            "true": "true",
            "null": "null",
            "an object": '{"en": "apple"}',
            "an empty list": "[]",
            "a list of numbers": "[5]",
            "a list in a list": '[["apple"]]',
            "a list with nan": '["apple", "nan"]',
            "a list of nothing": '[" ", null]',
            "an empty text": '""',
        }.items()
    ),
]

# --------------------------------------------------------------------------------- names of columns

HEADERS = [
    read(
        "capitals in the names of columns do not count",
        table("a.png,x", header="File_Name,TEXT"),
        ["x"],
    ),
    read(
        "spaces around the names of columns do not count",
        table("a.png,x", header=" file_name , text "),
        ["x"],
    ),
    read("a byte-order mark does not count", "\ufeff" + table("a.png,x"), ["x"]),
    read("two byte-order marks do not count", "\ufeff\ufeff" + table("a.png,x"), ["x"]),
    read(
        "quotes around the names of columns do not count",
        table("a.png,x", header='"file_name","text"'),
        ["x"],
    ),
    read(
        "capitals in JSON do not count",
        lines('{"File_Name": "a.png", " Text ": "x"}').replace(
            '{"file_name": "a.png", "text": "good"}\n', ""
        ),
        ["x"],
        "jsonl",
    ),
    *(
        refused(
            f"the header {header!r} has a column twice",
            table("a.png,x,y", header=header),
            "more than once",
        )
        for header in (
            "file_name,text,text",
            "file_name,text,Text",
            "file_name,file_name,text",
            "text,file_name, text",
        )
    ),
    *(
        refused(
            f"the header {header!r} lacks a column",
            table("a.png,x", header=header),
            "missing (it has: ",
        )
        for header in (
            "file_name,caption",
            "filename,text",
            "a.png,apple",
            "file_name",
            "x" * 10**5,
            "file name,text",
        )
    ),
    *(
        refused(
            f"a file with {word} for commas says so",
            table().replace(",", mark),
            f"separated by {word}; save it with commas",
        )
        for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"))
    ),
]

# ----------------------------------------------------------------------------- files of other kinds

OTHER_KINDS = {  # what → (its bytes, what is said)
    "a new Excel file": (b"PK\x03\x04\x14\0\6\0" + bytes(99), "an Excel"),
    "an old Excel file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Excel file"),
    "a web page": (b"<!DOCTYPE html><html></html>", "HTML"),
    "XML": (b'\xef\xbb\xbf<?xml version="1.0"?>', "XML"),
    "a PDF": (b"%PDF-1.7\n", "a PDF"),
    "formatted text": (b"{\\rtf1\\ansi", "RTF"),
    "compressed": (b"\x1f\x8b\x08\0", "gzip"),
    "Parquet": (b"PAR1" + bytes(20), "Parquet"),
    "UTF-16": (table().encode("utf-16"), "UTF-16"),
    "UTF-16, big-endian": (b"\xfe\xff" + table().encode("utf-16-be"), "UTF-16"),
    "UTF-16 without a mark": (table().encode("utf-16-le"), "UTF-16"),
    "UTF-32": (table().encode("utf-32"), "UTF-16"),
    "Latin-1": (table("a.png,café").encode("latin-1"), "not in UTF-8 (in line 2"),
    "Korean Windows": (table("a.png,사과").encode("cp949"), "not in UTF-8 (in line 2"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "metadata"),
    "zeros": (bytes(500), "UTF-16"),
    "nothing": (b"", "metadata"),
    "blank lines": (b"\n\n \n", "metadata"),
}
KINDS = [
    *(
        refused(f"a metadata.{suffix} that is {what} is named", data, said, suffix=suffix)
        for what, (data, said) in OTHER_KINDS.items()
        for suffix in ("csv", "jsonl")
        if (what, suffix) != ("a picture", "jsonl")
    ),
    refused("a CSV of a header only has no rows", "file_name,text\n", "no rows"),
    refused(
        "one JSON array for lines says so",
        json.dumps([{"file_name": "a.png", "text": "x"}]),
        "one JSON array",
        suffix="jsonl",
    ),
    refused(
        "one JSON array on many lines says so",
        json.dumps([{"file_name": "a.png", "text": "x"}], indent=1),
        "one JSON array",
        suffix="jsonl",
    ),
    refused(
        "an object on many lines says so",
        json.dumps({"file_name": "a.png", "text": "x"}, indent=1),
        "over several lines",
        suffix="jsonl",
    ),
]

# ------------------------------------------------------------------------------------ rows of a CSV

ROWS = [
    refused(
        "an unclosed quote in row 1 is named, and no picture for it",
        table('a.png,"apple'),
        "row 1: a quote is not closed",
        "lines 2 to 5",
    ),
    refused(
        "an unclosed quote in the last row is named",
        'file_name,text\na.png,x\nb.png,x\nc.png,x\nd e.png,"x\n',
        "row 4: a quote is not closed",
        "line 5 is",
    ),
    refused(
        "letters after a closing quote are named",
        table('a.png,"red" apple'),
        "row 1: a quote is not closed",
        "line 2 is",
    ),
    refused(
        "a quote in a header that is not closed is named",
        table(header='file_name,"text'),
        "in its header",
    ),
    refused(
        "two rows with quotes are named, both",
        table('a.png,"x" y', 'b.png,"x" y'),
        "row 1: a quote",
        "row 2: a quote",
        problems=2,
    ),
    read("a doubled quote is one", table('a.png,"a ""red"" apple"'), ['a "red" apple']),
    read("a quote in the middle is one", table('a.png,a 5" nail'), ['a 5" nail']),
    read("a quoted cell after a space is one", table('a.png, "red, ripe"'), ["red, ripe"]),
    read("a caption over two lines is one", table('a.png,"red\nripe"'), ["red\nripe"]),
    read("blank lines do not count", table("a.png,x", "", "b.png,y"), ["x", "y"]),
    *(
        read(
            f"lines end as on {where}",
            table("a.png,x", "b.png,y").replace("\n", end).encode(),
            ["x", "y"],
        )
        for where, end in (("Windows", "\r\n"), ("an old Mac", "\r"), ("Linux", "\n"))
    ),
    refused("too many cells are named", table("a.png,red, ripe"), "row 1: more cells than columns"),
    refused("too few cells are named", table("a.png"), "row 1: a.png: the caption (text) is empty"),
    refused("an empty cell is named", table("a.png,"), "row 1: a.png: the caption (text) is empty"),
    refused("a row of commas is named", table(","), "row 1: file_name is empty"),
    refused("a file name of spaces is named", table("  ,x"), "row 1: file_name is empty"),
    read("spaces around a file name do not count", table(" a.png ,x", "d e.png,y"), ["x", "y"]),
    Case(
        "the limit of the module csv is as it was",
        prepare=folder_with(table("a.png,x")),
        does=mh.folder_dataset,
        holds=lambda _, dataset: len(dataset) == 4,
        keeps=lambda _: csv.field_size_limit(),
    ),
    refused(
        "all bad rows are named at once",
        table(
            "a.png,nan", "gone.png,x", "b.png,", ",x", "c.png,\u200b", '../x.png,"y"', "d e.png,x,y"
        ),
        *("row 1", "row 2", "row 3", "row 4", "row 5", "row 6", "row 7"),
        problems=7,
    ),
    refused(
        "20 bad rows are all shown",
        table(*["gone.png,x"] * 20),
        *(f"row {row}: gone.png" for row in range(1, 21)),
        problems=20,
    ),
    refused(
        "two problems of one row are named, both",
        table("gone.png,nan"),
        "no such file",
        "'nan'",
        problems=2,
    ),
    refused(
        "a broken picture with three rows is named once",
        "file_name,text\n" + "metadata.csv,x\n" * 3 + "".join(f"{n},x\n" for n in COLOURS),
        "row 1: metadata.csv: not a readable picture",
    ),
]

# ------------------------------------------------------------------------------------ lines of JSON

BAD_LINES = {  # what → (the line, what is said)
    "is cut off": ('{"file_name": "a.png", "text": ', "not valid JSON"),
    "is CSV": ("a.png,x", "not valid JSON"),
    "ends in a comma": ('{"file_name": "a.png", "text": "x"},', "not valid JSON"),
    "has single quotes": ("{'file_name': 'a.png', 'text': 'x'}", "not valid JSON"),
    "has two objects": ('{"file_name": "a.png", "text": "x"} {}', "not valid JSON"),
    "has a key twice": ('{"file_name": "a.png", "text": "x", "text": "y"}', "more than once"),
    "has a key twice but for capitals": (
        '{"file_name": "a.png", "text": "x", "Text": "y"}',
        "once",
    ),
    "has no text": ('{"file_name": "a.png"}', "text missing"),
    "has no file name": ('{"text": "x"}', "file_name missing"),
    "is an empty object": ("{}", "file_name and text missing"),
    "is a list": ('["a.png", "x"]', "file_name and text missing"),
    "is a text": ('"a.png"', "file_name and text missing"),
    "is null": ("null", "file_name and text missing"),
    "is a number": ("7", "file_name and text missing"),
    "is a number of 5,000 digits": ("7" * 5_000, "not valid JSON"),
    "is nested 100,000 times": ("[" * 100_000, "not valid JSON"),
    "is nested in a cell": (
        '{"file_name": "a.png", "text": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "not valid JSON",
    ),
    "has a zero in it": ('{"file_name": "a.png",\0 "text": "x"}', "not valid JSON"),
}
BAD_NAMES = {
    "a number": ("7", "file_name is 7, which is no text"),
    "a list": ('["a.png"]', "which is no text"),
    "true": ("true", "which is no text"),
    "null": ("null", "file_name is empty"),
    "an empty text": ('""', "file_name is empty"),
    "half a letter": (r'"\ud83d.png"', "no file can have such a name"),
    "a zero": (r'"\u0000"', "no file can have such a name"),
}
GOOD = '{"file_name": "b.png", "text": "good"}'
JSON = [
    *(
        refused(
            f"a line that {what} is named",
            f"{GOOD}\n{line}\n{GOOD}\n",
            "row 2: ",
            said,
            suffix="jsonl",
        )
        for what, (line, said) in BAD_LINES.items()
    ),
    *(
        refused(
            f"a file name that is {what} is named",
            lines(GOOD, f'{{"file_name": {name}, "text": "x"}}'),
            "row 2: ",
            said,
            suffix="jsonl",
        )
        for what, (name, said) in BAD_NAMES.items()
    ),
    read(
        "blank lines and Windows line ends do not count",
        lines('{"file_name": "a.png", "text": "x"}').replace("\n", "\r\n\r\n"),
        ["x"],
        "jsonl",
    ),
    read(
        "further keys do not count",
        lines('{"file_name": "a.png", "text": "x", "id": {"a": [1]}}'),
        ["x"],
        "jsonl",
    ),
    refused(
        "all bad lines are named at once",
        "\n".join([GOOD, *(line for line, _ in BAD_LINES.values())]),
        "row 2: ",
        "row 19: ",
        suffix="jsonl",
        problems=len(BAD_LINES),
    ),
]

CASES = CAPTIONS + HEADERS + KINDS + ROWS + JSON
