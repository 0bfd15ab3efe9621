"""The map of the player: the groups as boxes, seen through a window that follows the gradient.

The drawing is sent to the page once. A step sends a few lines of CSS that say which boxes are
empty, which one glows, and what the window looks at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..colours import COLOURS, box_style
from ..draw.collapsed import LETTERS, kinds_of, lay_out_groups
from ..gradient.boxes import Collapsed, Group
from ..gradient.kinds import Kind
from ..gradient.nodes import Node
from ..gradient.words import KINDS

WIDE, HIGH = 515, 540  # pixels of the window
READABLE = 9  # pixels: the size of the letters, if the whole map would make them smaller
FAINT = "rgba(128,128,128,.35)"  # of a line, on a light and on a dark page


@dataclass(frozen=True)
class Step:
    """What the map shows: the node that runs, whether playing stops here, and how much is seen."""

    node: Node
    is_stop: bool
    whole: bool


class GradientMap:
    """The drawing of the groups; `html` is sent once, `style` with every step.

    `root` is the class of the widget around it: the rules of two players must not mix. Raises
    GraphvizMissing where nothing can be laid out.
    """

    def __init__(self, shown: Collapsed, root: str):
        self._root = root
        self._groups = {node: group for group in shown.groups for node in group.nodes}
        self._lit = [group for group in shown.groups if group.kind is not Kind.DARK]
        self._drawing = lay_out_groups(shown)
        whole = min(WIDE / self._drawing.width, HIGH / self._drawing.height)
        near, largest = READABLE / LETTERS, 1.5 * READABLE / LETTERS
        self._near, self._whole = min(max(whole, near), largest), min(whole, largest)
        self.is_cut = self._near > whole
        self._high = min(HIGH, math.ceil(self._near * self._drawing.height))
        svg = self._drawing.to_svg().source
        # What the colours mean stands under the window, since the drawing moves in it.
        self.html = (
            f"<style>{self._fixed_style()}</style>"
            f'<div class="map">{svg}</div><div class="keys">{_keys(kinds_of(shown.groups))}</div>'
        )

    def _fixed_style(self) -> str:
        root = f".{self._root}"
        window, boxes = f"{root} .map", f'{root} .map g[id^="node-"]'
        return (
            f"{window}{{position:relative;overflow:hidden;width:{WIDE}px;height:{self._high}px;"
            f"border:1px solid {FAINT};border-radius:8px}}"
            f"{window} svg{{position:absolute;left:0;top:0;transform-origin:0 0;"
            f"transition:transform .45s ease,width .45s ease,height .45s ease}}"
            f"{boxes} path,{boxes} polygon{{transition:fill .35s,stroke-opacity .35s}}"
            # (Else the longest line says how wide what stands beside the map must be.)
            f"{root} .widget-html-content{{min-width:0}}"
            f"{root} .keys{{line-height:1.5;font-size:11px;margin-top:5px}}"
            f"@keyframes {self._root}{{50%{{stroke-width:11px;stroke-opacity:.55}}}}"
            f"@media (prefers-reduced-motion:reduce){{{root} *{{transition:none!important;"
            f"animation:none!important}}}}"
        )

    def style(self, step: Step) -> str:
        """The rules for one step."""
        running = self._groups.get(step.node.index)
        rules = [*self._empty(step.node.order or 0), self._window(running, step.whole)]
        if running is not None:
            rules.append(self._glow(running, step))
        return f"<style>{''.join(rules)}</style>"

    def _empty(self, now: int) -> list[str]:
        """The rules for the groups that the pass has not come to yet."""
        keys = [group.key for group in self._lit if (group.order or math.inf) > now]
        if not keys:
            return []
        shapes, letters = self._select(keys, "path", "polygon"), self._select(keys, "text")
        return [
            f"{shapes}{{fill:transparent!important;stroke-opacity:.7}}",
            f"{letters}{{fill:currentColor!important;fill-opacity:.6}}",
        ]

    def _glow(self, running: Group, step: Step) -> str:
        zero = step.node.is_leaf and step.node.norm_in == 0
        colour = COLOURS["frozen" if zero else running.kind]
        dash = "stroke-dasharray:5 4;" if zero else ""
        beat = f"animation:{self._root} .7s ease-in-out 2;" if step.is_stop and not zero else ""
        width, blur = (5, 9) if step.is_stop else (4, 5)
        return (
            f"{self._select([running.key], 'path', 'polygon')}"
            f"{{stroke:{colour}!important;stroke-width:{width}px!important;"
            f"{dash}{beat}filter:drop-shadow(0 0 {blur}px {colour})}}"
        )

    def _window(self, running: Group | None, whole: bool) -> str:
        """The rule that moves the drawing so that the running group is in the window's middle."""
        scale = self._whole if whole else self._near
        x, y = self._drawing.centres.get(running.key if running else "", (0.0, 0.0))
        wide, high = scale * self._drawing.width, scale * self._drawing.height
        across, down = _shift(WIDE, wide, scale * x), _shift(self._high, high, scale * y)
        return (
            f".{self._root} .map svg{{width:{wide:.0f}px;height:{high:.0f}px;"
            f"transform:translate({across:.0f}px,{down:.0f}px)}}"
        )

    def _select(self, keys: Sequence[str], *shapes: str) -> str:
        return ",".join(
            f'.{self._root} .map g[id="node-{key}"] {shape}' for key in keys for shape in shapes
        )


def _shift(window: float, length: float, place: float) -> float:
    """How far to move a drawing so that `place` is in the window's middle, and no edge inside."""
    if length <= window:
        return (window - length) / 2
    return min(0.0, max(window - length, window / 2 - place))


def _keys(kinds: Sequence[Kind]) -> str:
    """What the colours of the map mean."""
    styles = [(box_style(kind), KINDS[kind]) for kind in kinds]
    return "".join(
        f'<span style="display:inline-block;width:10px;height:10px;border-radius:2px;'
        f'background:{style.fill};border:1px solid {style.edge};margin:0 5px -1px 0"></span>'
        f'<span style="margin-right:12px;opacity:.75">{name}</span>'
        for style, name in styles
    )
