"""A recorded backward pass to play, step and scrub through, in its real order."""

from __future__ import annotations

import html
import math
import re
import uuid
from collections.abc import Sequence

import ipywidgets

from ..draw.base import COLOURS
from ..draw.diagrams import KINDS, look_of
from ..draw.strip import at_level, destinations
from ..gradient.derivatives import in_words, stem
from ..gradient.graph import Collapsed, Graph, Node, short_number, short_shape
from ..names import is_adapter

WIDE, HIGH = 515, 540  # pixels of the window that the map is seen through
LETTERS = 9  # pixels: the size of the map's letters, if the whole map would make them smaller
PACES = {"slowly": 1200, "at a walk": 500, "fast": 120}  # milliseconds a step
FAINT = "rgba(128,128,128,.35)"  # of a line, on a light and on a dark page


def player(graph: Graph, parameter: str | None = None, level: str = "blocks") -> ipywidgets.VBox:
    """Play a recorded backward pass, node by node, in the order in which it really ran.

    The map is `graph.collapse(level)` (see `diagrams.at_level`): the group of the node that runs
    glows, those still to come are empty. Beside it stands what the node does. Playing stops at
    `parameter` (any ending of a name that `graph.leaf` takes; by default the first lora_B that
    ran, else the first parameter) and at the other matrix of the same adapter. Raises ValueError
    for a graph in which nothing ran, and for a parameter to which no gradient came.
    """
    stops = _stops(graph, destinations(graph, parameter))
    root = f"mclip-player-{uuid.uuid4().hex[:12]}"
    shown = at_level(graph, level)
    picture, panel = _Map(shown, root), _Panel(graph, shown, stops)
    order, last = graph.order, len(graph.order)

    image = ipywidgets.HTML(picture.html, layout={"flex": f"0 0 {WIDE + 2}px", "margin": "0"})
    said = ipywidgets.HTML(layout={"flex": "1 1 270px", "margin": "0 0 0 12px", "width": "270px"})
    # The clock and the slider tell each other, here and not in the page: it has to stop in time.
    clock = ipywidgets.Play(value=1, min=1, max=last, interval=PACES["at a walk"])
    clock.show_repeat = False
    runs = "playing" if clock.has_trait("playing") else "_playing"  # so called in ipywidgets 7
    slider = ipywidgets.IntSlider(value=1, min=1, max=last, layout={"flex": "1 1 auto"})
    back, forth = (
        ipywidgets.Button(icon=f"step-{way}", tooltip=f"one step {way}", layout={"width": "38px"})
        for way in ("backward", "forward")
    )
    jumps = [
        ipywidgets.Button(
            description=f"to {name}", tooltip=order[n - 1].where, layout={"width": "auto"}
        )
        for n, name in stops.items()
    ]
    pace = ipywidgets.Dropdown(
        options=list(PACES.items()), value=PACES["at a walk"], layout={"width": "110px"}
    )
    whole = ipywidgets.ToggleButton(
        description="whole map", tooltip="follow the gradient, or see all of the map"
    )
    whole.layout = {"width": "auto", "display": None if picture.is_cut else "none"}

    def show(_=None) -> None:
        n = slider.value
        said.value = picture.style(order, n, n in stops, whole.value) + panel.html(n)
        back.disabled, forth.disabled = n == 1, n == last

    def tick(change) -> None:
        n, now = change["new"], slider.value
        if n == now:
            return
        if not getattr(clock, runs) and n != 1:  # 1: the square button, which goes to the start
            # The page had gone on before it heard that playing is over.
            clock.value = now
            return
        arrived = [stop for stop in stops if now < stop <= n]
        if arrived and getattr(clock, runs):
            setattr(clock, runs, False)
            n = arrived[0]
        slider.value = n

    def follow(change) -> None:
        show()
        if clock.value != change["new"]:  # moved by hand
            setattr(clock, runs, False)
            clock.value = change["new"]

    def go(n: int) -> None:
        setattr(clock, runs, False)
        slider.value = n

    clock.observe(tick, names="value")
    slider.observe(follow, names="value")
    whole.observe(show, names="value")
    pace.observe(lambda change: setattr(clock, "interval", change["new"]), names="value")
    back.on_click(lambda _: go(slider.value - 1))
    forth.on_click(lambda _: go(slider.value + 1))
    for button, n in zip(jumps, stops, strict=True):
        button.on_click(lambda _, n=n: go(n))
    show()
    row = {"align_items": "center", "width": "100%"}
    box = ipywidgets.VBox(
        [
            ipywidgets.HBox([clock, back, forth, slider], layout=row),
            ipywidgets.HBox([*jumps, pace, whole], layout={**row, "flex_flow": "row wrap"}),
            ipywidgets.HBox([image, said], layout={"flex_flow": "row wrap", "margin": "6px 0 0"}),
        ],
        layout={"max_width": "980px"},
    )
    box.add_class(root)
    return box


def _stops(graph: Graph, ends: Sequence[Node]) -> dict[int, str]:
    """Where playing stops: which step it is → the parameter's short name ("lora_B")."""
    place = {node.index: n for n, node in enumerate(graph.order, start=1)}
    return {place[node.index]: node.where.rpartition(".")[2] for node in ends}


class _Map:
    """The drawing of the groups, seen through a window that follows the gradient."""

    def __init__(self, shown: Collapsed, root: str):
        self._root = f".{root}"
        self._groups = {node: group for group in shown.groups for node in group.nodes}
        self._waiting = {g.key: g.order or math.inf for g in shown.groups if g.kind != "dark"}
        svg = shown.plot().source
        kinds = [kind for kind in KINDS if any(g.kind == kind for g in shown.groups)]
        # The window moves over the drawing: what the colours mean stands under it instead.
        svg = re.sub(r'<g class="legend">.*?</g>', "", svg, flags=re.DOTALL)
        self._left, self._top, self._width, self._height = map(
            float, re.search(r'viewBox="([^"]+)"', svg)[1].split()
        )
        self._centres = dict(_centres(svg))
        fit = min(WIDE / self._width, HIGH / self._height)
        letters = float(re.search(r'font-size[:=]["\s]*([\d.]+)', svg)[1])
        near, largest = LETTERS / letters, 1.5 * LETTERS / letters
        self._scales = min(max(fit, near), largest), min(fit, largest)  # near, and all of it
        self.is_cut = self._scales[0] > fit
        self._high = min(HIGH, math.ceil(self._scales[0] * self._height))
        self.html = f"<style>{self._fixed_style(root)}</style>"
        self.html += f'<div class="map">{svg}</div><div class="keys">{_keys(kinds)}</div>'

    def _fixed_style(self, root: str) -> str:
        box, boxes = f"{self._root} .map", f'{self._root} .map g[id^="node-"]'
        return (
            f"{box}{{position:relative;overflow:hidden;width:{WIDE}px;height:{self._high}px;"
            f"border:1px solid {FAINT};border-radius:8px}}"
            f"{box} svg{{position:absolute;left:0;top:0;transform-origin:0 0;"
            f"transition:transform .45s ease,width .45s ease,height .45s ease}}"
            f"{boxes} path,{boxes} polygon{{transition:fill .35s,stroke-opacity .35s}}"
            # (Else the longest line says how wide what stands beside the map must be.)
            f"{self._root} .widget-html-content{{min-width:0}}"
            f"{self._root} .keys{{line-height:1.5;font-size:11px;margin-top:5px}}"
            f"@keyframes {root}{{50%{{stroke-width:11px;stroke-opacity:.55}}}}"
            f"@media (prefers-reduced-motion:reduce){{{self._root} *{{transition:none!important;"
            f"animation:none!important}}}}"
        )

    def style(self, order: Sequence[Node], n: int, is_stop: bool, whole: bool) -> str:
        """What changes with the step: who is empty, who glows, and what the window looks at."""
        running = self._groups.get(order[n - 1].index)
        now = order[n - 1].order
        waiting = [key for key, first in self._waiting.items() if first > now]
        rules = []
        if waiting:
            rules += [
                f"{self._select(waiting, 'path', 'polygon')}"
                "{fill:transparent!important;stroke-opacity:.7}",
                f"{self._select(waiting, 'text', label=True)}"
                "{fill:currentColor!important;fill-opacity:.6}",
            ]
        if running is not None:
            zero = order[n - 1].is_leaf and order[n - 1].norm_in == 0
            colour = COLOURS["frozen" if zero else running.kind]
            dash = "stroke-dasharray:5 4;" if zero else ""
            beat = f"animation:{self._root[1:]} .7s ease-in-out 2;" if is_stop and not zero else ""
            rules.append(
                f"{self._select([running.key], 'path', 'polygon')}"
                f"{{stroke:{colour}!important;stroke-width:{5 if is_stop else 4}px!important;"
                f"{dash}{beat}filter:drop-shadow(0 0 {9 if is_stop else 5}px {colour})}}"
            )
        scale = self._scales[whole]
        x, y = self._centres.get(running.key if running else "", (self._left, self._top))
        wide, high = scale * self._width, scale * self._height
        across = _shift(WIDE, wide, scale * (x - self._left))
        down = _shift(self._high, high, scale * (y - self._top))
        rules.append(
            f"{self._root} .map svg{{width:{wide:.0f}px;height:{high:.0f}px;"
            f"transform:translate({across:.0f}px,{down:.0f}px)}}"
        )
        return f"<style>{''.join(rules)}</style>"

    def _select(self, keys: Sequence[str], *shapes: str, label: bool = False) -> str:
        ids = [f'[id="node-{key}"]' for key in keys]
        ids += [f'[id="label-{key}"]' for key in keys if label]
        return ",".join(f"{self._root} .map g{i} {shape}" for i in ids for shape in shapes)


def _shift(window: float, length: float, place: float) -> float:
    """How far to move a drawing so that `place` is in the window's middle, and no edge inside."""
    if length <= window:
        return (window - length) / 2
    return min(0.0, max(window - length, window / 2 - place))


def _centres(svg: str):
    """(group's key, (x, y)) of each box in the drawing."""
    for piece in svg.split('<g id="node-')[1:]:
        drawn = re.search(r'\b(?:d|points)="([^"]+)"', piece)
        moved = re.search(r'<g id="graph0"[^>]*translate\(([-\d.]+)[ ,]([-\d.]+)\)', svg)
        dx, dy = map(float, moved.groups()) if moved else (0.0, 0.0)
        numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", drawn[1])]
        xs, ys = numbers[::2], numbers[1::2]
        centre = (min(xs) + max(xs)) / 2 + dx, (min(ys) + max(ys)) / 2 + dy
        yield piece[: piece.index('"')], centre


def _keys(kinds: Sequence[str]) -> str:
    """What the colours of the map mean."""
    found = []
    for kind in kinds:
        fill, edge, _ = look_of(kind)
        found.append(
            f'<span style="display:inline-block;width:10px;height:10px;border-radius:2px;'
            f'background:{fill};border:1px solid {edge};margin:0 5px -1px 0"></span>'
            f'<span style="margin-right:12px;opacity:.75">{KINDS[kind]}</span>'
        )
    return "".join(found)


class _Panel:
    """What stands beside the map: all that is known of one step."""

    def __init__(self, graph: Graph, shown: Collapsed, stops: dict[int, str]):
        self._graph, self._stops = graph, stops
        self._step = {node.index: n for n, node in enumerate(graph.order, start=1)}
        self._kinds = {node: group.kind for group in shown.groups for node in group.nodes}
        self._why = {g.name: g.why for g in graph.gradients}
        visits = [node.visits[0] for node in graph.order]
        norms = [n for v in visits for n in (*v.incoming, *(v.outgoing or ())) if n]
        finite = [norm for norm in norms if math.isfinite(norm)]
        self._floor, self._top = min(finite, default=0.1) / 2, max(finite, default=1.0)

    def html(self, n: int) -> str:
        node = self._graph.order[n - 1]
        pieces = [
            self._head(n, node),
            self._gradients(node),
            self._arrival(node) if n in self._stops else "",
            self._neighbours(n),
        ]
        return (
            f'<div style="font-size:13px;line-height:1.4;min-height:{HIGH}px;overflow:hidden;'
            f'padding-right:4px">'
            f"{''.join(pieces)}</div>"
        )

    def _head(self, n: int, node: Node) -> str:
        kind = self._kinds.get(node.index, self._graph.tower(node))
        fill, edge, ink = look_of(kind)
        where = f" <b>{_breakable(node.where)}</b>"
        if node.is_leaf:
            made = "the gradient of" + (where if node.where else " a tensor without a name")
        else:
            made = "made by" + where if node.where else "made outside of every module"
        again = f", call {node.call}" if node.call > 1 else ""
        passes = f" It ran {len(node.visits)} times; this is the first." * (len(node.visits) > 1)
        label = f" <i>{html.escape(node.label)}</i>" if node.label else ""
        return (
            f'<div style="display:flex;justify-content:space-between;align-items:baseline">'
            f"<span>step <b>{n:,}</b> of {len(self._graph.order):,}</span>"
            f'<span style="background:{fill};border:1px solid {edge};color:{ink};font-size:11px;'
            f'border-radius:9px;padding:0 8px">{KINDS.get(kind, kind)}</span></div>'
            f'<div style="font:bold 15px/1.5 monospace;overflow-wrap:anywhere">'
            f"{html.escape(node.operation)}{label}</div>"
            f'<div style="min-height:37px"><i>{html.escape(in_words(node.operation))}</i></div>'
            f'<div style="margin-top:6px;min-height:37px">'
            f"{made}{again}.{passes}</div>"
        )

    def _gradients(self, node: Node) -> str:
        visit, rows = node.visits[0], []
        for norm, shape in zip(visit.incoming, visit.incoming_shapes, strict=False):
            if norm is not None:
                rows.append(self._bar("G comes in", shape, norm, ""))
        unasked = 0
        for norm, shape, behind in zip(
            visit.outgoing or (), visit.outgoing_shapes, node.next, strict=False
        ):
            if norm is None:
                unasked += 1
            else:
                rows.append(self._bar("goes out", shape, norm, self._target(behind)))
        note = ""
        if visit.outgoing is None:
            note = f"Here the pass broke off: {self._graph.error or 'nothing came out'}"
        elif unasked:
            note = f"{unasked} more input{'s' * (unasked > 1)}, for which nobody asks"
        said = f'<div style="font-size:11px;opacity:.75">{html.escape(note)}</div>' if note else ""
        return (
            f'<div style="margin-top:8px;padding-top:8px;border-top:1px solid {FAINT};'
            f'min-height:112px">{"".join(rows)}{said}</div>'
        )

    def _target(self, behind: int | None) -> str:
        if behind is None:
            return ""
        node, step = self._graph.nodes[behind], self._step.get(behind)
        return f"to {'step ' + format(step, ',') if step else 'what did not run'}: {_brief(node)}"

    def _bar(self, way: str, shape: tuple[int, ...] | None, norm: float, target: str) -> str:
        share = 0.0
        if norm and math.isfinite(norm):
            whole = math.log(self._top / self._floor) or 1
            share = 100 * math.log(norm / self._floor) / whole
        below = html.escape(target)
        return (
            f'<div style="display:flex;gap:6px;white-space:nowrap">'
            f'<span style="flex:0 0 70px;font-size:11px;opacity:.75;align-self:center">{way}</span>'
            f'<span style="flex:1 1 auto;overflow:hidden">{short_shape(shape)}</span>'
            f"<b>{'zero' if norm == 0 else short_number(norm)}</b></div>"
            f'<div style="margin-left:76px"><div style="width:{max(0, share):.0f}%;height:4px;'
            f'border-radius:2px;background:currentColor;opacity:.55"></div>'
            f'<div style="font-size:11px;opacity:.75;margin:1px 0 4px;white-space:nowrap;'
            f'overflow:hidden;text-overflow:ellipsis" title="{below}">{below}</div></div>'
        )

    def _arrival(self, node: Node) -> str:
        name = f"<b>{_breakable(node.where)}</b>"
        if node.norm_in is None:
            colour, said = COLOURS["frozen"], f"{name}: the pass came here with no gradient."
        elif node.norm_in == 0:
            why = self._why.get(node.where, "")
            colour, said = COLOURS["frozen"], f"{name} receives <b>exactly zero</b>"
            said += f": {html.escape(why)}." if why else "."
            if why.startswith("B is all zeros"):
                said += " After the first step of the optimizer B is no longer zero, and A learns."
        else:
            colour = COLOURS["adapter" if is_adapter(node.where) else "weights"]
            said = f"<b>Arrived:</b> {name}, norm <b>{short_number(node.norm_in)}</b>. "
            said += f"These {math.prod(node.shape or ()):,} numbers are now in its .grad."
        return (
            f'<div style="margin-top:2px;padding:7px 10px;border-radius:8px;border:2px solid '
            f"{colour};background:{colour}26;box-shadow:0 0 14px {colour}88;margin:4px 4px 10px"
            f'">{said}</div>'
        )

    def _neighbours(self, n: int) -> str:
        """The steps before and after, with a line wherever another module begins."""
        order, around = self._graph.order, 3
        first = max(1, min(n - around, len(order) - 2 * around))
        rows, before = [], order[first - 2].where if first > 1 else None
        for m in range(first, min(len(order), first + 2 * around) + 1):
            node = order[m - 1]
            line = f"border-top:1px dotted {FAINT};" if before not in (None, node.where) else ""
            look = "background:rgba(128,128,128,.22);font-weight:bold;" if m == n else ""
            before = node.where
            rows.append(
                f'<div style="{line}{look}display:flex;gap:7px;padding:0 4px;white-space:nowrap">'
                f'<span style="flex:0 0 30px;text-align:right;opacity:.7">{m}</span>'
                f'<span style="overflow:hidden;text-overflow:ellipsis" '
                f'title="{html.escape(node.where)}">{html.escape(_brief(node))}</span></div>'
            )
        return (
            f'<div style="margin-top:4px;padding-top:6px;border-top:1px solid {FAINT};'
            f'font-size:11.5px;line-height:1.55">{"".join(rows)}</div>'
        )


def _brief(node: Node) -> str:
    """An operation and the last two parts of where it was made, on one line."""
    operation = stem(node.operation)
    end = ".".join(node.where.split(".")[-2:])
    return f"{operation} · {end}" if end else operation


def _breakable(name: str) -> str:
    """The name for HTML; a line may break after each of its dots."""
    return html.escape(name).replace(".", ".<wbr>")
