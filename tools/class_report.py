"""Make one page for the teacher of the progress files of a class.

    python tools/class_report.py folder report.html

Each learner's file is `runs/progress.json`. Collect them in one folder, each under the name that
the report is to show ("Mina.json", "seat 12.json"): the files themselves hold no names. The page is
one file without scripts, and nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mclip_helpers import files
from mclip_helpers.display import html_text
from mclip_helpers.exercises import EXERCISES, NOTEBOOKS, DamagedRecords, Exercise, Progress
from mclip_helpers.exercises.records import read

MARK = "made by tools/class_report.py"
MOST = 15  # mistakes in the list
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1B1F24; margin: 2rem auto; max-width: 75rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { max-width: 46rem; } .quiet { color: #555; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .28rem .5rem; text-align: left; }
.map th, .map td { padding: .16rem .1rem; text-align: center; }
.map th.name { text-align: left; padding-right: 1rem; white-space: nowrap; }
.map td.first, .map th.first { border-left: 1px solid #C9CCD1; padding-left: .35rem; }
.map tbody tr:nth-child(odd) { background: #F6F7F8; }
.list tr { border-bottom: 1px solid #E3E5E8; } .list td { vertical-align: top; }
.solved { color: #009E73; } .tried { color: #D07F00; } .open { color: #C9CCD1; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: #E69F00; height: .7rem; border-radius: .2rem; display: inline-block; }
@media print { body { margin: 0; max-width: none; } }
"""
SIGNS = {"solved": "●", "tried": "◐", "open": "○"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="holds the progress files, one for each learner")
    parser.add_argument("report", type=Path, help="the page to write, such as report.html")
    arguments = parser.parse_args()
    try:
        learners, unreadable = read_folder(arguments.folder)
        write(arguments.report, page(learners, unreadable))
    except (FileExistsError, FileNotFoundError, NotADirectoryError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{arguments.report}: {len(learners)} learners, {len(unreadable)} files unreadable")


def read_folder(folder: Path) -> tuple[dict[str, Progress], dict[str, str]]:
    """Learner → progress, and file → why it can't be read; names are those of the files.

    FileNotFoundError if there is no file that ends with .json.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: in_order(path.stem))
    if not paths:
        raise FileNotFoundError(
            f"there is no file *.json in {folder}; collect the learners' progress files there"
        )
    learners, unreadable = {}, {}
    for path in paths:
        try:
            learners[path.stem] = Progress(tuple(read(path)))
        except (DamagedRecords, OSError) as error:
            unreadable[path.name] = str(error)
    return learners, unreadable


def in_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts "seat 9" before "seat 10", and regards no capitals."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def page(learners: Mapping[str, Progress], unreadable: Mapping[str, str]) -> str:
    """The whole page as HTML."""
    parts = [
        f"<h1>Where the class is</h1><p class='quiet'>{len(learners)} learners, "
        f"{len(EXERCISES)} exercises.</p>",
        f"<div class='wide'>{class_map(learners)}</div>",
        "<p class='quiet'>"
        + " · ".join(f"<span class='{kind}'>{sign}</span> {kind}" for kind, sign in SIGNS.items())
        + "</p>",
        "<h2>Mistakes that were made most</h2>",
        mistakes(learners),
        "<h2>Where they are stuck</h2>",
        stuck(learners),
    ]
    if unreadable:
        rows = "".join(
            f"<tr><td>{html_text(name)}</td><td>{html_text(why)}</td></tr>"
            for name, why in unreadable.items()
        )
        parts.append(f"<h2>Files that can't be read</h2><table class='list'>{rows}</table>")
    return (
        f"<!DOCTYPE html>\n<!-- {MARK} -->\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>Where the class is</title>"
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def class_map(learners: Mapping[str, Progress]) -> str:
    """A row for each learner, a column for each exercise."""
    by_notebook = grouped()
    heads = "".join(
        f"<th class='first' colspan='{len(several)}' title='{html_text(NOTEBOOKS[notebook])}'>"
        f"{notebook}</th>"
        for notebook, several in by_notebook.items()
    )
    numbers = "".join(
        f"<th class='{'first' if i == 0 else ''}'>{exercise.id.partition('.')[2]}</th>"
        for several in by_notebook.values()
        for i, exercise in enumerate(several)
    )
    rows = []
    for name, progress in learners.items():
        cells = []
        for several in by_notebook.values():
            for i, exercise in enumerate(several):
                kind = state(progress, exercise)
                first = " first" if i == 0 else ""
                title = html_text(f"{exercise.id} · {exercise.title}: {kind}")
                cells.append(f"<td class='{kind}{first}' title='{title}'>{SIGNS[kind]}</td>")
        count = f"<td class='number'>{len(progress.solved)}</td>"
        rows.append(f"<tr><th class='name'>{html_text(name)}</th>{''.join(cells)}{count}</tr>")
    head = f"<thead><tr><th></th>{heads}<th></th></tr>"
    head += f"<tr class='quiet'><th></th>{numbers}<th></th></tr></thead>"
    return f"<table class='map'>{head}<tbody>{''.join(rows)}</tbody></table>"


def grouped() -> dict[str, list[Exercise]]:
    """Notebook → its exercises."""
    found: dict[str, list[Exercise]] = defaultdict(list)
    for exercise in EXERCISES.values():
        found[exercise.notebook].append(exercise)
    return dict(found)


def state(progress: Progress, exercise: Exercise) -> str:
    if exercise.id in progress.solved:
        return "solved"
    return "tried" if exercise.id in progress.tried else "open"


def mistakes(learners: Mapping[str, Progress]) -> str:
    """The known mistakes, those of most learners first; then by how often they were made."""
    people: Counter[tuple[str, str]] = Counter()
    times: Counter[tuple[str, str]] = Counter()
    for progress in learners.values():
        times += progress.mistakes
        people.update(progress.mistakes.keys())
    if not people:
        return "<p>None so far.</p>"
    order = sorted(people, key=lambda key: (-people[key], -times[key], key))[:MOST]
    rows = [
        [title_of(id), html_text(name), bar(people[id, name], len(learners)), str(times[id, name])]
        for id, name in order
    ]
    return table(["exercise", "mistake", "learners", "times"], rows)


def stuck(learners: Mapping[str, Progress]) -> str:
    """The exercises that most have tried and not solved."""
    tried = Counter(id for progress in learners.values() for id in progress.tried)
    if not tried:
        return "<p>Nobody: whatever was tried is solved.</p>"
    solved = Counter(id for progress in learners.values() for id in progress.solved)
    order = sorted(tried, key=lambda id: (-tried[id], id))[:MOST]
    rows = [[title_of(id), bar(tried[id], len(learners)), str(solved[id])] for id in order]
    return table(["exercise", "tried, not solved", "solved"], rows)


def title_of(id: str) -> str:
    found = EXERCISES.get(id)
    return html_text(f"{id} · {found.title}" if found else id)


def bar(count: int, of: int) -> str:
    width = 8 * count / max(1, of)
    return f"<span class='bar' style='width:{width:.2f}rem'></span> {count}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table class='list'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write(path: Path, text: str) -> None:
    """Replace an older report; FileExistsError for any other file."""

    def refuse(there: Path) -> None:
        if there.is_dir() or MARK not in there.read_text(encoding="utf-8", errors="replace")[:200]:
            raise FileExistsError(f"{there} is no report of this tool; give another name")

    def put(place: Path) -> None:
        place.write_text(text, encoding="utf-8")

    files.replace(path, put, refuse)


if __name__ == "__main__":
    main()
