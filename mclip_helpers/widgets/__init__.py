"""Things to play with. Each has a static picture beside it in the notebooks (`draw`)."""

from .boxes import classify_box, search_box
from .gradient_player import player

__all__ = ["classify_box", "player", "search_box"]
