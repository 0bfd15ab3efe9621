"""A player, and what a page would do with it."""

from __future__ import annotations

import html
import re

import ipywidgets

from mclip_helpers.gradient import Graph
from mclip_helpers.widgets.gradient_player import player


class Handles:
    """The parts of a player by name, and what a page would do with them."""

    def __init__(self, box: ipywidgets.VBox):
        first, second, third = box.children
        self.box = box
        self.clock, self.back, self.forth, self.slider = first.children
        self.buttons = {b.description: b for b in second.children if hasattr(b, "description")}
        self.pace = next(c for c in second.children if isinstance(c, ipywidgets.Dropdown))
        self.image, self.beside = third.children
        self.name = "playing" if self.clock.has_trait("playing") else "_playing"

    @property
    def root(self) -> str:
        return next(name for name in self.box._dom_classes if name.startswith("mclip-player-"))

    @property
    def plays(self) -> bool:
        return getattr(self.clock, self.name)

    @property
    def drawing(self) -> str:
        """The SVG of the map."""
        return re.search(r"<svg.*</svg>", self.image.value, re.DOTALL)[0]

    @property
    def style(self) -> str:
        """The rules of the step that is shown."""
        return re.match(r"<style>(.*?)</style>", self.beside.value, re.DOTALL)[1]

    @property
    def panel(self) -> str:
        """What can be read in the panel."""
        shown = re.sub(r"<style>.*?</style>", "", self.beside.value, flags=re.DOTALL)
        return html.unescape(re.sub(r"<[^>]*>", "", shown.replace("<wbr>", "")))

    def press_play(self) -> None:
        self.clock.set_state({self.name: True})

    def tick(self, value: int | None = None) -> None:
        self.clock.set_state({"value": self.clock.value + 1 if value is None else value})

    def play(self, most: int = 2000) -> None:
        self.press_play()
        for _ in range(most):
            if not self.plays or self.clock.value == self.clock.max:
                return
            self.tick()

    def rules(self, part: str) -> list[tuple[str, str]]:
        """(selector, declarations) of the step's rules whose selector has such a part."""
        rules = []
        for selectors, declarations in re.findall(r"([^{}]+)\{([^{}]*)\}", self.style):
            for selector in selectors.split(","):
                if part in selector:
                    rules.append((selector, declarations))
        return rules

    @property
    def empty(self) -> set[str]:
        """The keys of the groups that are drawn as not yet visited."""
        return {
            re.search(r'node-([^"]+)"', selector)[1]
            for selector, declarations in self.rules("node-")
            if "fill:transparent" in declarations
        }

    @property
    def glowing(self) -> set[str]:
        """The keys of the groups that glow."""
        return {
            re.search(r'node-([^"]+)"', selector)[1]
            for selector, declarations in self.rules("node-")
            if "drop-shadow" in declarations
        }


def played(graph: Graph, *arguments, **keywords) -> Handles:
    return Handles(player(graph, *arguments, **keywords))
