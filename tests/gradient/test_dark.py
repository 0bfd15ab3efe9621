"""The dark region: modules that ran, and at which no gradient is computed."""

from __future__ import annotations

import pytest
import torch
from graphs import HOW, call_of, graph_of, recorded, visit
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import Call, Darkness, Kind, Level, Node, OperationGroup
from mclip_helpers.gradient.dark import dark_groups, darkness
from mclip_helpers.names import clean_name


def frozen(module: str, **others) -> Call:
    return call_of(module, **({"needs_gradient": False} | others))


def test_what_is_odd_about_one_call_goes_first():
    plain, silent, lost = frozen("a"), call_of("a", recorded=False), call_of("a", lost=True)
    assert darkness([plain, plain]) is Darkness.FROZEN
    assert darkness([plain, silent, lost]) is Darkness.NO_GRAD
    assert darkness([plain, lost, silent]) is Darkness.LOST


def lit_group(key: str, kind: Kind, order: int | None, place: str = "") -> OperationGroup:
    return OperationGroup(key=key, kind=kind, tower=kind, place=place, order=order)


def test_below_the_last_group_of_a_tower_that_ran_hangs_the_dark_in_reverse_order():
    lit = [
        lit_group("g0", Kind.LOSS, order=1),
        lit_group("g1", Kind.IMAGE, place="head", order=2),
        lit_group("g2", Kind.IMAGE, place="neck", order=3),
        lit_group("g3", Kind.IMAGE, place="tail", order=None),
    ]
    calls = (
        frozen("visual.stem", weights=3),
        frozen("visual.stem", weights=3),
        frozen("visual.empty", weights=0),
        frozen("visual.body", weights=7),
        call_of("visual.neck", nodes=(0,)),
        frozen("text.embedding", weights=11),
    )
    neck = Node(0, "XBackward0", "visual.neck", 1, (), visits=visit(3, 1.0))
    groups, edges = dark_groups(graph_of(neck, calls=calls), Level.MODULES, None, lit)
    assert [(g.tower, g.place, g.weights, g.is_rest) for g in groups] == [
        ("image", "visual.stem", 3, True),
        ("image", "visual.body", 7, True),
        ("text", "text.embedding", 11, False),
    ]
    stem, body, _ = (group.key for group in groups)
    assert edges == [("g2", body), (body, stem)]


# ------------------------------------------------------------------------------- in a recording


@pytest.mark.parametrize("how", HOW)
def test_dark_are_the_modules_with_weights_that_ran_and_left_nothing(how: str):
    seen = recorded(how)
    made = {n.module for n in seen.graph.nodes}
    modules = dict(seen.model.named_modules())
    wanted = {
        clean_name(name)
        for name, results in seen.results.items()
        if any(True for _ in modules[name].parameters(recurse=False))
        and name not in made
        and not any(r.requires_grad for r in results)
    }
    groups = seen.graph.collapse("modules").groups
    shown = {g.label: g for g in groups if g.kind == "dark"}
    # A frozen layer that only its adapter asks something of stands there in light, once.
    assert shown.keys() == wanted - {g.label for g in groups if g.kind != "dark"}
    assert (len(wanted) > 5) == (how != "everything")
    for name, group in shown.items():
        if how == "image only" and mh.tower_of(name) == "text":
            assert group.note == "ran under no_grad"
        else:
            [weights] = [
                sum(p.numel() for p in m.parameters(recurse=False))
                for n, m in modules.items()
                if clean_name(n) == name and n in seen.results
            ]
            assert group.note == f"{weights:,} frozen weights"


class Shared(nn.Module):
    """A layer and a frozen one that are called twice, and one whose result is not used."""

    def __init__(self):
        super().__init__()
        self.layer, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
        self.lost = nn.Linear(3, 3)

    def forward(self, x):
        self.lost(x)
        x = self.frozen(self.frozen(x))
        return self.layer(self.layer(x))


def test_groups_say_which_call_they_are_and_what_lies_in_the_dark():
    model = Shared()
    with mh.trace(model) as tape:
        loss = model(torch.ones(1, 3)).sum()
        tape.label(loss=loss)
        loss.backward()
    shown = tape.graph.collapse("modules")
    assert [(g.label, g.kind, g.note) for g in shown.groups] == [
        ("layer", "model", "T, Addmm"),
        ("layer (call 2)", "model", "T, Addmm"),
        ("loss", "loss", "SumBackward0"),
        ("layer.weight", "weights", ""),
        ("layer.bias", "weights", ""),
        ("lost", "dark", "leads nowhere: detached, or not used"),
        ("frozen", "dark", "12 frozen weights"),
    ]
    assert "layer (call 2) (T, Addmm) → layer, " in repr(shown)
    operations = tape.graph.collapse("operations").groups
    assert [g.label for g in operations if g.kind == "loss"] == ["loss"]
    blocks = tape.graph.collapse("towers").groups
    assert [(g.label, g.kind) for g in blocks] == [
        ("model", "model"),
        ("loss", "loss"),
        ("2 weights", "weights"),
        ("the rest of the model tower", "dark"),
    ]


def test_a_module_that_hands_on_what_another_computed_is_not_dark():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.inside = nn.Parameter(torch.ones(2)), nn.Linear(2, 2)

        def forward(self, x):
            return self.inside(x)

    model = nn.Sequential(Around())
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    assert [g.label for g in tape.graph.collapse("modules").groups if g.kind == "dark"] == []
