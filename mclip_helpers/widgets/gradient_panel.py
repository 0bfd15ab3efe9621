"""What stands beside the player's map: all that is known of one node, as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..colours import COLOURS, box_style
from ..display import html_text
from ..gradient.boxes import Collapsed
from ..gradient.derivatives import in_words, stem
from ..gradient.graph import Graph
from ..gradient.kinds import Kind
from ..gradient.nodes import Node
from ..gradient.reasons import Cause, Reason, join_reasons
from ..gradient.words import KINDS, short_number, short_shape
from ..names import is_adapter
from .gradient_map import FAINT, HIGH

NEIGHBOURS = 3  # nodes that are listed before and after


class Panel:
    """The text for each node of a recorded backward pass; `stops` are those it stops at."""

    def __init__(self, graph: Graph, shown: Collapsed, stops: Mapping[int, str]):
        self._graph, self._stops = graph, stops
        self._place = {node.index: n for n, node in enumerate(graph.order, start=1)}
        self._kinds = {node: group.kind for group in shown.groups for node in group.nodes}
        self._reasons = {g.name: g.reasons for g in graph.gradients}
        visits = [node.visits[0] for node in graph.order]
        norms = [n for v in visits for n in (*v.incoming, *(v.outgoing or ())) if n]
        finite = [norm for norm in norms if math.isfinite(norm)]
        self._floor, self._top = min(finite, default=0.1) / 2, max(finite, default=1.0)

    def html(self, n: int) -> str:
        """What is said of node `n`, counted from 1."""
        node = self._graph.order[n - 1]
        arrival = self._arrival(node) if n in self._stops else ""
        return (
            f'<div style="font-size:13px;line-height:1.4;min-height:{HIGH}px;overflow:hidden;'
            f'padding-right:4px">{self._head(n, node)}{self._gradients(node)}{arrival}'
            f"{self._neighbours(n)}</div>"
        )

    def _head(self, n: int, node: Node) -> str:
        """Which node it is, what runs there, and which module made it."""
        kind = self._kinds.get(node.index, self._graph.tower(node))
        style = box_style(kind)
        label = f" <i>{html_text(node.label)}</i>" if node.label else ""
        passes = f" It ran {len(node.visits)} times; this is the first." * (len(node.visits) > 1)
        return (
            f'<div style="display:flex;justify-content:space-between;align-items:baseline">'
            f"<span>node <b>{n:,}</b> of {len(self._graph.order):,}</span>"
            f'<span style="background:{style.fill};border:1px solid {style.edge};'
            f'color:{style.ink};font-size:11px;border-radius:9px;padding:0 8px">'
            f"{KINDS[kind]}</span></div>"
            f'<div style="font:bold 15px/1.5 monospace;overflow-wrap:anywhere">'
            f"{html_text(node.operation)}{label}</div>"
            f'<div style="min-height:37px"><i>{html_text(in_words(node.operation))}</i></div>'
            f'<div style="margin-top:6px;min-height:37px">{_origin(node)}.{passes}</div>'
        )

    def _gradients(self, node: Node) -> str:
        """What comes in and what goes out, each with its shape and its norm as a bar."""
        visit = node.visits[0]
        rows = [
            self._bar("G comes in", shape, norm, "")
            for norm, shape in zip(visit.incoming, visit.incoming_shapes, strict=False)
            if norm is not None
        ]
        outgoing = visit.outgoing or ()
        rows += [
            self._bar("goes out", shape, norm, self._target(behind))
            for norm, shape, behind in zip(outgoing, visit.outgoing_shapes, node.next, strict=False)
            if norm is not None
        ]
        unasked = sum(norm is None for norm in outgoing)
        note = ""
        if visit.outgoing is None:
            note = f"Here the pass broke off: {self._graph.error or 'nothing came out'}"
        elif unasked:
            note = f"{unasked} more input{'s' * (unasked > 1)}, for which nobody asks"
        small = f'<div style="font-size:11px;opacity:.75">{html_text(note)}</div>' if note else ""
        return (
            f'<div style="margin-top:8px;padding-top:8px;border-top:1px solid {FAINT};'
            f'min-height:112px">{"".join(rows)}{small}</div>'
        )

    def _target(self, behind: int | None) -> str:
        if behind is None:
            return ""
        node, place = self._graph.nodes[behind], self._place.get(behind)
        return f"to {f'node {place:,}' if place else 'what did not run'}: {_brief(node)}"

    def _bar(self, direction: str, shape: tuple[int, ...] | None, norm: float, target: str) -> str:
        share = 0.0
        if norm and math.isfinite(norm):
            whole = math.log(self._top / self._floor) or 1
            share = 100 * math.log(norm / self._floor) / whole
        below = html_text(target)
        return (
            f'<div style="display:flex;gap:6px;white-space:nowrap">'
            f'<span style="flex:0 0 70px;font-size:11px;opacity:.75;align-self:center">'
            f'{direction}</span><span style="flex:1 1 auto;overflow:hidden">'
            f"{short_shape(shape)}</span>"
            f"<b>{'zero' if norm == 0 else short_number(norm)}</b></div>"
            f'<div style="margin-left:76px"><div style="width:{max(0, share):.0f}%;height:4px;'
            f'border-radius:2px;background:currentColor;opacity:.55"></div>'
            f'<div style="font-size:11px;opacity:.75;margin:1px 0 4px;white-space:nowrap;'
            f'overflow:hidden;text-overflow:ellipsis" title="{below}">{below}</div></div>'
        )

    def _arrival(self, node: Node) -> str:
        """The framed sentence at a parameter: what arrived, or why nothing did."""
        name = f"<b>{_breakable(node.where)}</b>"
        colour = COLOURS["frozen"]
        if node.norm_in is None:
            text = f"{name}: the pass came here with no gradient."
        elif node.norm_in == 0:
            text = (
                f"{name} receives <b>exactly zero</b>{_because(self._reasons.get(node.where, ()))}"
            )
        else:
            colour = COLOURS[Kind.ADAPTER if is_adapter(node.where) else Kind.WEIGHTS]
            text = (
                f"<b>Arrived:</b> {name}, norm <b>{short_number(node.norm_in)}</b>. "
                f"These {math.prod(node.shape or ()):,} numbers are now in its .grad."
            )
        return (
            f'<div style="padding:7px 10px;border-radius:8px;border:2px solid {colour};'
            f'background:{colour}26;box-shadow:0 0 14px {colour}88;margin:4px 4px 10px">'
            f"{text}</div>"
        )

    def _neighbours(self, n: int) -> str:
        """The nodes before and after, with a line wherever another module begins."""
        order = self._graph.order
        first = max(1, min(n - NEIGHBOURS, len(order) - 2 * NEIGHBOURS))
        rows, before = [], order[first - 2].where if first > 1 else None
        for m in range(first, min(len(order), first + 2 * NEIGHBOURS) + 1):
            node = order[m - 1]
            line = f"border-top:1px dotted {FAINT};" if before not in (None, node.where) else ""
            here = "background:rgba(128,128,128,.22);font-weight:bold;" if m == n else ""
            before = node.where
            rows.append(
                f'<div style="{line}{here}display:flex;gap:7px;padding:0 4px;white-space:nowrap">'
                f'<span style="flex:0 0 30px;text-align:right;opacity:.7">{m}</span>'
                f'<span style="overflow:hidden;text-overflow:ellipsis" '
                f'title="{html_text(node.where)}">{html_text(_brief(node))}</span></div>'
            )
        return (
            f'<div style="margin-top:4px;padding-top:6px;border-top:1px solid {FAINT};'
            f'font-size:11.5px;line-height:1.55">{"".join(rows)}</div>'
        )


def _origin(node: Node) -> str:
    """Which parameter a leaf stands for, or which call of which module made the operation."""
    name = f"<b>{_breakable(node.where)}</b>"
    if node.is_leaf:
        return f"the gradient of {name if node.where else 'a tensor without a name'}"
    if not node.where:
        return "made outside of every module"
    return f"made by {name}" + (f", call {node.call}" if node.call > 1 else "")


def _because(reasons: tuple[Reason, ...]) -> str:
    """Why only zeros arrived, and what follows where it is the other matrix of the adapter."""
    text = f": {html_text(join_reasons(reasons))}." if reasons else "."
    if any(r.cause is Cause.ZERO_FACTOR and r.part == "B" for r in reasons):
        text += " After the first step of the optimizer B is no longer zero, and A learns."
    return text


def _brief(node: Node) -> str:
    """An operation and the last two parts of where it was made, on one line."""
    operation = stem(node.operation)
    end = ".".join(node.where.split(".")[-2:])
    return f"{operation} · {end}" if end else operation


def _breakable(name: str) -> str:
    """The name for HTML; a line may break after each of its dots."""
    return html_text(name).replace(".", ".<wbr>")
