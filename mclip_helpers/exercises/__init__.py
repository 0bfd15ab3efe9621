"""Exercises that know what went wrong.

exercise   the form: what is asked, the solution, the known mistakes, and how an answer is checked
nb01_load… the exercises of each notebook
series     all of them by number, and where the learner stands
findings   what a check found, as data; words: as sentences; cards: as shown
values     whether two results say the same
running    code that may do anything is run
records    the one file in which the outcome of each check is counted
"""

from .cards import Checked
from .exercise import Exercise, Mistake, Program, Question, Wrong
from .findings import Finding, Kind
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
    "Mistake",
    "Program",
    "Progress",
    "Question",
    "Record",
    "Wrong",
    "exercise",
    "progress",
]
