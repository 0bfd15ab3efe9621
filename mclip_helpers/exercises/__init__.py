"""Exercises that know what went wrong.

forms      what every exercise has; programs and questions: how an answer is checked
nb00_start… the exercises of each notebook
last_test  ten questions at the end of the series
series     all of them by number, and where the learner stands
findings   what a check found, as data; words: as sentences; cards: as shown
values     whether two results say the same
running    code that may do anything is run
records    the one file in which the outcome of each check is counted
"""

from .cards import Checked
from .findings import Finding, Kind
from .forms import Exercise
from .last_test import LastTest, last_test
from .programs import Mistake, Program
from .questions import Question, Wrong
from .records import DamagedRecords, Record
from .series import EXERCISES, NOTEBOOKS, Progress, exercise, progress

__all__ = [
    "EXERCISES",
    "NOTEBOOKS",
    "Checked",
    "DamagedRecords",
    "Exercise",
    "Finding",
    "Kind",
    "LastTest",
    "Mistake",
    "Program",
    "Progress",
    "Question",
    "Record",
    "Wrong",
    "exercise",
    "last_test",
    "progress",
]
