"""A recorded backward pass to play, step and scrub through, in its real order."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets

from ..display import readable
from ..draw.graphviz import GraphvizMissing, as_text
from ..gradient.boxes import Collapsed
from ..gradient.graph import Graph
from ..gradient.nodes import Node
from ..gradient.scenes import at_level, destinations
from .gradient_map import WIDE, GradientMap, Step
from .gradient_panel import Panel

PACES = {"slowly": 1200, "at a walk": 500, "fast": 120}  # milliseconds a node


def player(graph: Graph, parameter: str | None = None, level: str = "blocks") -> ipywidgets.VBox:
    """Play a recorded backward pass, node by node, in the order in which it really ran.

    The map is `graph.collapse(level)` (see `scenes.at_level`): the group of the node that runs
    glows, those still to come are empty. Beside it stands what the node does. Playing stops at
    `parameter` (any ending of a name that `graph.leaf` takes; by default the first lora_B that
    ran, else the first parameter) and at the other matrix of the same adapter. Raises ValueError
    for a graph in which nothing ran, and for a parameter to which no gradient came.
    """
    if not isinstance(graph, Graph):
        raise TypeError(
            f"this is a {type(graph).__name__}; pass the graph of a recording: tape.graph"
        )
    stops = _stops(graph, destinations(graph, parameter))
    root = f"mclip-player-{uuid.uuid4().hex[:12]}"
    shown = at_level(graph, level)
    controls = _Controls.of(graph, stops)
    picture, panel = _map(shown, root), Panel(graph, shown, stops)
    image = ipywidgets.HTML(
        picture.html if isinstance(picture, GradientMap) else picture,
        layout={"flex": f"0 0 {WIDE + 2}px", "margin": "0"},
    )
    beside = ipywidgets.HTML(layout={"flex": "1 1 270px", "margin": "0 0 0 12px", "width": "270px"})
    is_cut = isinstance(picture, GradientMap) and picture.is_cut
    controls.whole.layout = {"width": "auto", "display": None if is_cut else "none"}

    def show(n: int) -> None:
        step = Step(graph.order[n - 1], n in stops, controls.whole.value)
        style = picture.style(step) if isinstance(picture, GradientMap) else ""
        beside.value = style + panel.html(n)

    controls.connect(show, tuple(stops))
    row = {"align_items": "center", "width": "100%"}
    jumps = [*controls.jumps, controls.pace, controls.whole]
    box = ipywidgets.VBox(
        [
            ipywidgets.HBox(
                [controls.clock, controls.back, controls.forth, controls.slider], layout=row
            ),
            ipywidgets.HBox(jumps, layout={**row, "flex_flow": "row wrap"}),
            ipywidgets.HBox([image, beside], layout={"flex_flow": "row wrap", "margin": "6px 0 0"}),
        ],
        layout={"max_width": "980px"},
    )
    box.add_class(root)
    return box


def _map(shown: Collapsed, root: str) -> GradientMap | str:
    """The map, or where it can't be drawn the text form, as HTML."""
    try:
        return GradientMap(shown, root)
    except GraphvizMissing as missing:
        return as_text(repr(shown), missing).source


def _stops(graph: Graph, ends: Sequence[Node]) -> dict[int, str]:
    """Where playing stops: which node it is → the parameter's short name ("lora_B")."""
    place = {node.index: n for n, node in enumerate(graph.order, start=1)}
    return {place[node.index]: node.where.rpartition(".")[2] for node in ends}


@dataclass(frozen=True)
class _Controls:
    """Everything that can be pressed, and the rules between them.

    The clock and the slider tell each other, here and not in the page: playing has to stop in time.
    """

    clock: ipywidgets.Play
    slider: ipywidgets.IntSlider
    back: ipywidgets.Button
    forth: ipywidgets.Button
    jumps: dict[ipywidgets.Button, int]
    pace: ipywidgets.Dropdown
    whole: ipywidgets.ToggleButton

    @classmethod
    def of(cls, graph: Graph, stops: dict[int, str]) -> _Controls:
        last = len(graph.order)
        clock = ipywidgets.Play(value=1, min=1, max=last, interval=PACES["at a walk"])
        clock.show_repeat = False
        back, forth = (
            ipywidgets.Button(
                icon=f"step-{way}", tooltip=f"one node {way}", layout={"width": "38px"}
            )
            for way in ("backward", "forward")
        )
        return cls(
            clock=clock,
            slider=ipywidgets.IntSlider(value=1, min=1, max=last, layout={"flex": "1 1 auto"}),
            back=back,
            forth=forth,
            jumps={
                ipywidgets.Button(
                    description=readable(f"to {name}", 40),
                    tooltip=readable(graph.order[n - 1].where),
                    layout={"width": "auto"},
                ): n
                for n, name in stops.items()
            },
            pace=ipywidgets.Dropdown(
                options=list(PACES.items()), value=PACES["at a walk"], layout={"width": "110px"}
            ),
            whole=ipywidgets.ToggleButton(
                description="whole map", tooltip="follow the gradient, or see all of the map"
            ),
        )

    @property
    def playing(self) -> bool:
        return getattr(self.clock, self._playing)

    @property
    def _playing(self) -> str:
        return "playing" if self.clock.has_trait("playing") else "_playing"  # in ipywidgets 7

    def stop(self) -> None:
        setattr(self.clock, self._playing, False)

    def go(self, n: int) -> None:
        self.stop()
        self.slider.value = n

    def connect(self, show: Callable[[int], None], stops: Sequence[int]) -> None:
        """Let every control do its work; `show` is called with each new node."""

        def update(_: object = None) -> None:
            n = self.slider.value
            self.back.disabled, self.forth.disabled = n == 1, n == self.slider.max
            show(n)

        def follow(change: dict) -> None:
            update()
            if self.clock.value != change["new"]:  # moved by hand
                self.stop()
                self.clock.value = change["new"]

        self.clock.observe(lambda change: self._tick(change["new"], stops), names="value")
        self.slider.observe(follow, names="value")
        self.whole.observe(update, names="value")
        self.pace.observe(self._set_pace, names="value")
        self.back.on_click(lambda _: self.go(self.slider.value - 1))
        self.forth.on_click(lambda _: self.go(self.slider.value + 1))
        for button in self.jumps:
            button.on_click(lambda pressed: self.go(self.jumps[pressed]))
        update()

    def _set_pace(self, change: dict) -> None:
        self.clock.interval = change["new"]

    def _tick(self, n: int, stops: Sequence[int]) -> None:
        """The clock has gone on: follow it, but no further than to the next stop."""
        now = self.slider.value
        if n == now:
            return
        if not self.playing and n != 1:  # 1: the square button, which goes to the start
            # The page had gone on before it heard that playing is over.
            self.clock.value = now
            return
        arrived = [stop for stop in stops if now < stop <= n]
        if arrived and self.playing:
            self.stop()
            n = arrived[0]
        self.slider.value = n
