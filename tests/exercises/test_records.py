"""The one file of the learner's progress: it counts, loses nothing, and never gets in the way."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shown import png, texts, xml

import class_report
import mclip_helpers as mh
from mclip_helpers.exercises import EXERCISES, NOTEBOOKS, DamagedRecords, Kind, Progress, records
from mclip_helpers.exercises.records import Record

TODAY = datetime.date.today().isoformat()


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the progress is kept in these tests."""
    path = tmp_path / "deep" / "progress.json"
    monkeypatch.setenv("MCLIP_PROGRESS", str(path))
    return path


def solved(*ids: str) -> Progress:
    return Progress(tuple(Record(id, Kind.RIGHT, "", 1, TODAY, TODAY) for id in ids))


def test_each_check_is_counted(file: Path):
    question = mh.exercise("02.2")
    question.check({"numbers": 8 * 384, "factor": None})
    question.check({"numbers": 8 * 384, "factor": None})
    question.check({"numbers": 12288, "factor": 4})
    question.finding({"numbers": 12288, "factor": 4})  # asked for the data: not counted
    question.check(None)  # no attempt, such as a stub in a notebook that is run as a whole
    assert records.read() == [
        Record("02.2", "known mistake", "only A", 2, TODAY, TODAY),
        Record("02.2", "right", "", 1, TODAY, TODAY),
    ]


def test_nothing_is_in_the_file_that_says_who_or_what(file: Path):
    mh.exercise("03.2").check(lambda z: "my secret")
    content = json.loads(file.read_text())
    assert set(content) == {"version", "checks"}
    (row,) = content["checks"]
    assert row == {
        "exercise": "03.2", "kind": "type", "mistake": "", "count": 1, "first": TODAY, "last": TODAY
    }  # fmt: skip


def test_without_the_variable_it_is_in_runs_of_the_project(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("MCLIP_PROGRESS")
    project = Path(mh.__file__).parents[1]
    assert records.path() == project / "runs" / "progress.json"


DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    '{"version": 2, "checks": []}',
    '{"version": 1}',
    '{"version": 1, "checks": [{"exercise": "03.1"}]}',
    '{"version": 1, "checks": [3]}',
    json.dumps({"version": 1, "checks": [{**vars(Record("1", "", "", 1, "", "")), "x": 1}]}),
    json.dumps({"version": 1, "checks": [Record("1", "right", "", 0, "", "").__dict__]}),
    "[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_put_aside_and_the_check_answers(file: Path, content: str):
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(DamagedRecords):
        records.read()
    assert mh.progress().solved == set() and "can't be read" in str(mh.progress())
    checked = mh.exercise("05.4").check(-0.2)
    assert checked.finding.is_right and "damaged" in repr(checked)
    assert [r.exercise for r in records.read()] == ["05.4"]
    assert file.with_name("progress-damaged-1.json").read_text() == content
    assert "damaged" not in repr(mh.exercise("05.4").check(-0.2))


def test_bytes_that_are_no_text_are_a_damaged_file(file: Path):
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert mh.exercise("05.4").check(-0.2).finding.is_right
    assert file.with_name("progress-damaged-1.json").read_bytes() == b"\xff\xfe\x00"


def test_where_nothing_can_be_written_the_check_answers_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("MCLIP_PROGRESS", str(tmp_path / "a file" / "progress.json"))
    checked = mh.exercise("05.4").check(0.4)
    assert checked.finding.mistake == "with zero_grad"
    assert "Not written down" in repr(checked) and "Not written down" in checked._repr_html_()
    assert mh.progress().solved == set()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(file: Path):
    file.parent.mkdir(mode=0o500)
    assert "Not written down" in repr(mh.exercise("05.4").check(0.4))


def test_a_lock_that_is_held_delays_and_does_not_stop(file: Path, monkeypatch):
    monkeypatch.setattr(records, "WAIT", 0.1)
    file.parent.mkdir()
    with records.FileLock(file.with_name(f".{file.name}.lock")):
        found: list = []
        thread = threading.Thread(target=lambda: found.append(mh.exercise("05.4").check(-0.2)))
        thread.start()
        thread.join(10)
    assert found[0].finding.is_right and "another notebook" in repr(found[0])


def test_two_notebooks_at_once_lose_nothing(file: Path):
    code = (
        "from mclip_helpers.exercises import Kind, records\n"
        "records.WAIT = 60\n"
        "for _ in range(20): assert not records.note('{}', Kind.RIGHT)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code.format(id)]) for id in ("01.1", "02.1")]
    assert [process.wait(120) for process in both] == [0, 0]
    assert [(r.exercise, r.count) for r in records.read()] == [("01.1", 20), ("02.1", 20)]


# ------------------------------------------------------------------------------------- the map


def test_progress_knows_what_is_solved_and_what_was_tried():
    rows = [("03.1", Kind.RIGHT), ("03.1", Kind.DIFFERS), ("03.2", Kind.DIFFERS), ("99.1", "right")]
    progress = Progress(tuple(Record(id, kind, "", 1, TODAY, TODAY) for id, kind in rows))
    assert progress.solved == {"03.1"} and progress.tried == {"03.2"}
    assert progress.of("03") == (1, 7)
    assert progress.next.id == "00.1" and solved(*EXERCISES).next is None
    assert "03 · The contrastive loss  ● ◐ ○ ○ ○ ○ ○" in str(progress)


@pytest.mark.parametrize("ids", [[], ["00.1", "00.2", "01.1"], list(EXERCISES)])
def test_the_map_shows_each_notebook_and_how_far_one_is(ids: list[str]):
    progress = solved(*ids)
    chart = progress.plot()
    written = texts(chart)
    assert set(NOTEBOOKS) | set(NOTEBOOKS.values()) <= set(written)
    assert f"{len(ids)} of {len(EXERCISES)} exercises are solved" in written
    assert png(chart).width > 800
    assert "image/png" in progress._repr_mimebundle_()


def test_the_map_says_why_there_is_nothing_on_it():
    assert any("$ broken" in text for text in texts(Progress((), "$ broken $").plot()))


# ---------------------------------------------------------------------------------- the report


def learner(folder: Path, name: str, *rows: tuple) -> None:
    content = [Record(id, kind, mistake, n, TODAY, TODAY).__dict__ for id, kind, mistake, n in rows]
    (folder / f"{name}.json").write_text(json.dumps({"version": 1, "checks": content}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A class of thirty, one of whom has a damaged file and one a name that breaks HTML."""
    folder = tmp_path / "class"
    folder.mkdir()
    for i in range(27):
        shifted = ("03.1", "known mistake", "labels shifted by one", 1 + i)
        learner(folder, f"seat {i}", ("03.1", "right", "", 1), *([shifted] if i < 9 else []))
    learner(folder, "<b>&'Mina\"", ("03.2", "known mistake", "rows only", 40))
    learner(folder, "nobody")
    (folder / "torn.json").write_text("{")
    return folder


def test_the_report_of_a_class(folder: Path, tmp_path: Path, monkeypatch, capsys):
    report = tmp_path / "report.html"
    monkeypatch.setattr(sys, "argv", ["class_report", str(folder), str(report)])
    class_report.main()
    assert "29 learners, 1 files unreadable" in capsys.readouterr().out
    page = report.read_text(encoding="utf-8")
    body = re.search(r"<body>.*</body>", page, re.DOTALL).group()
    tables = xml(body).findall(".//table")
    names = [row.find("th").text for row in tables[0].findall("./tbody/tr")]
    assert len(names) == 29 and "<b>&'Mina\"" in names
    assert [name for name in names if name.startswith("seat")] == [f"seat {i}" for i in range(27)]
    numbers = [cell.text for cell in tables[0].findall("./thead/tr")[1]]
    assert numbers == [None, *(id.partition(".")[2] for id in EXERCISES), None]
    assert all(len(row) == len(EXERCISES) + 2 for row in tables[0].findall("./tbody/tr"))
    first, second = tables[1].findall("./tbody/tr")
    cells = ["".join(cell.itertext()).strip() for cell in first]
    assert cells == [
        "03.1 · The loss, from raw features", "labels shifted by one", "9", str(sum(range(1, 10)))
    ]  # fmt: skip
    assert "rows only" in "".join(second.itertext())
    assert "03.2" in "".join(tables[2].itertext()) and "torn.json" in "".join(tables[3].itertext())
    assert "<script" not in page and "http" not in page
    class_report.main()  # replaces its own report


def test_the_report_replaces_nothing_else(folder: Path, tmp_path: Path, monkeypatch):
    mine = tmp_path / "essay.html"
    mine.write_text("my essay")
    monkeypatch.setattr(sys, "argv", ["class_report", str(folder), str(mine)])
    with pytest.raises(SystemExit, match="no report of this tool"):
        class_report.main()
    assert mine.read_text() == "my essay"
    monkeypatch.setattr(sys, "argv", ["class_report", str(tmp_path / "none"), str(mine)])
    with pytest.raises(SystemExit, match=r"no file \*\.json"):
        class_report.main()
