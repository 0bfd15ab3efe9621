"""The kinds of things in a picture of a backward pass, as values. The words are in `words`."""

from __future__ import annotations

from enum import StrEnum, auto


class Level(StrEnum):
    """How much of the graph one box of a picture stands for."""

    TOWERS = auto()
    BLOCKS = auto()
    MODULES = auto()
    OPERATIONS = auto()


LEVELS = tuple(Level)


class Kind(StrEnum):
    """What a box of a picture is made of; `draw.COLOURS` has a colour for each.

    The first four are places, too: IMAGE and TEXT are the towers, LOSS is what is computed from
    their results, and MODEL is a model without towers, or what several towers use.
    """

    LOSS = auto()
    IMAGE = auto()
    TEXT = auto()
    MODEL = auto()
    ADAPTER = auto()  # operations and parameters of LoRA adapters
    WEIGHTS = auto()  # other trained parameters
    INPUT = auto()  # tensors without a name that want a gradient
    DARK = auto()  # modules that ran and left no node: no gradient is computed there


class Darkness(StrEnum):
    """Why a module that ran left no node in the graph."""

    NO_GRAD = auto()
    LOST = auto()  # its nodes are in no graph of a loss: detached, or not used
    FROZEN = auto()  # nothing in it needs a gradient


class Scene(StrEnum):
    """What one frame of the strip shows. Some have a name: a parameter, tower, block or layer."""

    LOSS = auto()
    PARTING = auto()  # the last node from which both towers are reached
    TOWER = auto()
    BLOCK = auto()
    LAYER = auto()
    BETWEEN = auto()
    ARRIVED = auto()
    ZERO = auto()
