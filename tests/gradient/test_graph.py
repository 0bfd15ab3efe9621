"""What a recorded graph answers: names, one weight, ways, groups, and what the towers receive."""

from __future__ import annotations

import copy
import functools
import math
import random
from collections import Counter
from itertools import pairwise

import pytest
import torch
from conftest import fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mclip_helpers as mh
from mclip_helpers.gradient import (
    LEAF,
    LEVELS,
    Call,
    Collapsed,
    Gradients,
    Graph,
    Node,
    Saved,
    Verdict,
    Visit,
)
from mclip_helpers.names import block_of, clean_name, is_adapter, layer_and_part, short_name


def about(number: float):
    return pytest.approx(number, rel=1e-4, abs=1e-30)


def norm(tensor: torch.Tensor) -> float:
    return tensor.detach().double().norm().item()


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("base_model.model.visual.trunk.stem.0.conv", "visual.trunk.stem.0.conv"),
        ("base_model.model.visual.head.base_layer.weight", "visual.head.weight"),
        ("base_model.model.a.qkv.lora_A.default.weight", "a.qkv.lora_A"),
        ("base_model.model.a.qkv.lora_B.default", "a.qkv.lora_B"),
        ("lora_A.default.weight", "lora_A"),
        ("base_layer.weight", "weight"),
        ("a.lora_A.default.bias", "a.lora_A.bias"),
        ("a.lora_A.other.weight", "a.lora_A.other.weight"),
        ("base_model.model", ""),
        ("base_model", ""),
        ("", ""),
        # These only look like PEFT's.
        ("x.base_layers.0.weight", "x.base_layers.0.weight"),
        ("base_models.0.weight", "base_models.0.weight"),
        ("base_model.encoder.weight", "base_model.encoder.weight"),
        ("xlora_A.default.weight", "xlora_A.default.weight"),
    ],
)
def test_clean_name_takes_away_what_peft_added_and_no_more(name: str, clean: str):
    assert clean_name(name) == clean
    assert clean_name(clean) == clean


def test_a_cleaned_name_is_that_of_the_model_before_its_adapters():
    model = fresh("nano").model
    mh.split_attention(model)
    before = [name for name, _ in model.named_parameters()]
    modules = {name for name, _ in model.named_modules()}
    peft = mh.inject_lora(model, targets="all")
    after = [name for name, _ in peft.named_parameters()]
    assert [clean_name(name) for name in after if not is_adapter(name)] == before
    for name in after:
        layer, part = layer_and_part(name)
        assert layer in modules
        assert (part in ("A", "B")) == is_adapter(name)
    cleaned = {clean_name(name) for name, _ in peft.named_modules() if not is_adapter(name)}
    assert cleaned == modules


@pytest.mark.parametrize(
    ("name", "short", "block"),
    [
        (
            "visual.trunk.stages.3.blocks.0.mlp.fc1",
            "stages.3.blocks.0.mlp.fc1",
            "stages.3.blocks.0",
        ),
        ("visual.trunk.stages.3.blocks.0", "stages.3.blocks.0", "stages.3.blocks.0"),
        ("visual.trunk.stages.2.downsample.proj.0", "stages.2.downsample.proj.0", None),
        ("visual.trunk.stages.2", "stages.2", "stages.2"),
        ("visual.trunk.head.fc", "head.fc", "head"),
        ("base_model.model.text.transformer.resblocks.3.attn", "resblocks.3.attn", "resblocks.3"),
        ("text.transformer", "transformer", "transformer"),
        ("text.token_embedding.weight", "token_embedding.weight", "token_embedding"),
        ("logit_scale", "logit_scale", "logit_scale"),
        ("", "", ""),
    ],
)
def test_a_block_is_as_short_as_can_be(name: str, short: str, block: str | None):
    assert short_name(name) == short
    assert block_of(name) == ("stages.2.downsample" if block is None else block)


def test_a_parameter_called_a_is_no_adapter():
    assert layer_and_part("mixer.A") == ("mixer", "A")
    assert not is_adapter("mixer.A") and not is_adapter("flora_A.weight")
    assert layer_and_part("x.lora_A.default.weight") == ("x", "A")


# -------------------------------------------------------------------------------- graphs at random

PLACES = [
    None,
    "",
    "visual.trunk.stem.0",
    "visual.trunk.stages.0.blocks.0.mlp.fc1",
    "visual.trunk.stages.0.blocks.0.mlp",
    "visual.trunk.stages.0.blocks.1",
    "text.transformer.resblocks.0.attn.q",
    "text.transformer.resblocks.0.attn.q.lora_A.default",
    "text.transformer.resblocks.0",
]
NAMES = [
    "visual.trunk.stem.0.weight",
    "visual.trunk.stages.0.blocks.0.mlp.fc1.weight",
    "text.transformer.resblocks.0.attn.q.lora_A.default.weight",
    "text.transformer.resblocks.0.attn.q.lora_B.default.weight",
    "logit_scale",
]


@st.composite
def graphs(draw) -> Graph:
    """Operations that hand on to earlier ones and to leaves; some ran, some didn't."""
    size, ends = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    rng = random.Random(draw(st.integers(0, 2**32)))
    nodes, order = [], list(range(1, size + ends + 1))
    rng.shuffle(order)
    for i in range(size + ends):
        visits = ()
        if rng.random() < 0.8:
            incoming = tuple(
                rng.choice([None, 0.0, rng.random()]) for _ in range(rng.choice([1, 2]))
            )
            shapes = tuple(None if n is None else (2, 3) for n in incoming)
            visits = (Visit(order[i], incoming, shapes, (), ()),)
        if i >= size:
            names = () if i - size >= len(NAMES) else (NAMES[i - size],)
            nodes.append(Node(i, LEAF, None, 1, (), names, visits))
            continue
        behind = [None, *range(i), *range(size, size + ends)]
        following = tuple(rng.choice(behind) for _ in range(rng.choice([0, 1, 2, 3])))
        place = rng.choice(PLACES)
        nodes.append(Node(i, "XBackward0", place, rng.choice([1, 1, 2]), following, (), visits))
    roots = tuple({size - 1, rng.randrange(size)})
    calls = tuple(Call(p, 1, (), 5, True, True, False, None) for p in PLACES if p)
    return Graph(tuple(nodes), roots, calls, _gradients(nodes), Saved({}), 1, None)


def _gradients(nodes: list[Node]) -> Gradients:
    model = nn.Module()
    for node in nodes:
        for name in node.parameters:
            module = model
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(torch.zeros(1)))
    return mh.gradients(model)


def every_way(graph: Graph, target: int) -> list[list[int]]:
    """All ways from a root to `target`, one by one."""
    found = []

    def go(way: list[int]) -> None:
        if way[-1] == target:
            found.append(way)
        for behind in graph.nodes[way[-1]].next:
            if behind is not None:
                go([*way, behind])

    for root in graph.roots:
        go([root])
    return found


@settings(deadline=None)
@given(graph=graphs())
def test_ways_and_the_shortest_path_are_those_of_trying_every_way(graph: Graph):
    for node in graph.nodes:
        ways = every_way(graph, node.index)
        assert graph.ways(node.index) == len(ways)
        if node.parameters and ways:
            path = graph.path(node.parameters[0])
            assert path.ways == len(ways)
            assert [n.index for n in path.nodes] in ways
            assert len(path.nodes) == min(map(len, ways))
            assert path.parameter == clean_name(node.parameters[0])


@settings(deadline=None)
@given(graph=graphs())
def test_before_and_edges_are_next_read_backwards(graph: Graph):
    pairs = [(n.index, b) for n in graph.nodes for b in n.next if b is not None]
    assert Counter(graph.edges) == Counter(pairs)
    for node in graph.nodes:
        assert Counter(graph.before(node.index)) == Counter(a for a, b in pairs if b == node.index)
    assert [n.order for n in graph.order] == sorted(n.order for n in graph.nodes if n.visits)


def check_groups(graph: Graph, level: str, within: str | None = None) -> Collapsed:
    """All that must hold of the groups of any graph."""
    found = graph.collapse(level, within)
    lit = [g for g in found.groups if g.kind != "dark"]
    dark = [g for g in found.groups if g.kind == "dark"]
    keys = [g.key for g in found.groups]
    assert len(set(keys)) == len(keys)
    # Each node that is shown is in one group.
    members = Counter(i for g in lit for i in g.nodes)
    assert set(members.values()) <= {1}
    assert all(g.nodes for g in lit) and not any(g.nodes for g in dark)
    if within is None:
        assert len(members) == len(graph.nodes)
    owner = {i: g.key for g in lit for i in g.nodes}
    for i, key in owner.items():
        assert found.group_of(i).key == key
    # The arrows are those of the graph.
    lit_keys = {g.key for g in lit}
    arrows = [(a, b) for a, b in found.edges if {a, b} <= lit_keys]
    wanted = {
        (owner[a], owner[b])
        for a, b in graph.edges
        if a in owner and b in owner and owner[a] != owner[b]
    }
    assert set(arrows) == wanted and len(arrows) == len(wanted)
    # Nothing comes back to where it was.
    after = {key: {b for a, b in found.edges if a == key} for key in keys}
    while after:
        ends = [key for key, behind in after.items() if not behind & after.keys()]
        assert ends, f"a circle among {after}"
        for key in ends:
            del after[key]
    for group in lit:
        inside = [graph.nodes[i] for i in group.nodes]
        assert all(n.is_leaf == inside[0].is_leaf for n in inside)
        assert group.order == min((n.order for n in inside if n.order), default=None)
        entered = [
            n.norm_in
            for n in inside
            if n.index in graph.roots
            or any(owner.get(b) != group.key for b in graph.before(n.index))
        ]
        known = [n for n in entered if n is not None]
        assert group.norm == (about(math.hypot(*known)) if known else None)
    return found


@settings(deadline=None)
@given(graph=graphs(), level=st.sampled_from(LEVELS))
def test_groups_part_the_nodes_and_their_arrows_make_no_circle(graph: Graph, level: str):
    found = check_groups(graph, level)
    if level == "operations":
        operations = [n for n in graph.nodes if not n.is_leaf]
        assert len([g for g in found.groups if g.label == "XBackward0"]) == len(operations)


@settings(deadline=None)
@given(graph=graphs(), level=st.sampled_from(LEVELS), place=st.sampled_from(PLACES[2:]))
def test_within_shows_what_a_module_made_and_its_parameters(graph: Graph, level, place):
    own = {n.index for n in graph.nodes if f"{n.where}.".startswith(f"{clean_name(place)}.")}
    if not own:
        with pytest.raises(ValueError, match="is in this graph"):
            graph.collapse(level, place)
        return
    found = check_groups(graph, level, place)
    assert {i for g in found.groups for i in g.nodes} == own
    assert found.within == place


# -------------------------------------------------------------------------------- a recorded model


def step(clip: mh.Clip, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    images, tokens = torch.rand(2, 3, 64, 64), clip.tokenizer(["a red car", "two cats"])
    image, text = clip.model.encode_image(images), clip.model.encode_text(tokens)
    return mh.contrastive_loss(image, text, clip.model.logit_scale.exp())


class Recorded:
    """A step of nano, its graph, and what the test saw of it with hooks of its own."""

    def __init__(self, targets: str | None, no_text: bool = False):
        self.clip = fresh("nano")
        model = self.clip.model
        self.model = mh.inject_lora(model, rank=2, targets=targets) if targets else model
        self.results: dict[str, list[torch.Tensor]] = {}
        self.names = {m: n for n, m in self.model.named_modules()}
        handles = [m.register_forward_hook(self.note) for m in self.model.modules()]
        if no_text:
            plain = model.encode_text
            model.encode_text = torch.no_grad()(lambda *a, **k: plain(*a, **k))
        with mh.trace(self.model) as tape:
            self.loss = step(self.clip)
            self.loss.backward(retain_graph=True)
        for handle in handles:
            handle.remove()
        self.graph = tape.graph

    def note(self, module, inputs, output) -> None:
        if isinstance(output, torch.Tensor):
            if output.requires_grad and not output.is_leaf:
                output.retain_grad()
            self.results.setdefault(self.names[module], []).append(output)


@functools.cache
def recorded(how: str) -> Recorded:
    return {
        "adapters": lambda: Recorded("default"),
        "all layers": lambda: Recorded("all"),
        "everything": lambda: Recorded(None),
        "image only": lambda: Recorded("default", no_text=True),
    }[how]()


HOW = ("adapters", "all layers", "everything", "image only")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("level", LEVELS)
def test_groups_of_a_model_part_its_nodes_and_make_no_circle(how: str, level: str):
    graph = recorded(how).graph
    found = check_groups(graph, level)
    assert (len(found.groups) < 10) == (level == "towers")
    check_groups(graph, level, "stages.3.blocks.0")


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


@pytest.mark.parametrize("how", HOW)
def test_what_arrives_at_a_block_is_the_gradient_of_its_result(how: str):
    seen = recorded(how)
    checked = 0
    for tower, blocks in seen.graph.norms().towers.items():
        start = {"image": "visual.trunk.", "text": "text.transformer."}[tower]
        counts = Counter(label for label, _ in blocks)
        for label, size in blocks:
            for name, results in seen.results.items():
                if clean_name(name) == start + label and counts[label] == 1:
                    assert size == about(norm(results[-1].grad)), name
                    checked += 1
    assert checked >= (3 if how == "image only" else 4)


@pytest.mark.parametrize("how", HOW)
def test_the_norms_stand_in_the_order_of_the_backward_pass(how: str):
    seen = recorded(how)
    groups = {g.label: g.order for g in seen.graph.collapse("blocks").groups if g.kind == "image"}
    labels = [label for label, _ in seen.graph.norms().towers["image"]]
    assert labels[0] == "head" or labels[0].startswith("final")
    assert [groups[label] for label in labels] == sorted(groups[label] for label in labels)
    assert ("text" in seen.graph.norms().towers) == (how != "image only")


def test_a_tower_receives_the_gradient_of_its_features():
    seen = recorded("adapters")
    groups = {g.kind: g for g in seen.graph.collapse("towers").groups if not g.is_leaf}
    image = seen.results["base_model.model.visual"][-1].grad
    assert groups["image"].norm == about(norm(image))
    assert groups["loss"].norm == about(1)
    assert {g.label: g.kind for g in seen.graph.collapse("towers").groups if g.is_leaf} == {
        f"{2 * len([t for t in towers if t == tower])} matrices A, B": "adapter"
        for towers in [[mh.tower_of(name) for name, _ in mh.lora_layers(seen.model)]]
        for tower in ("image", "text")
    }


@pytest.mark.parametrize("how", HOW)
def test_the_path_to_a_weight_is_a_shortest_one_and_its_ways_are_counted(how: str):
    """Against PyTorch's own graph, which was retained."""
    seen = recorded(how)
    root = seen.loss.grad_fn
    distance, front = {root: 0}, [root]
    while front:
        front = [
            behind
            for node in front
            for behind, _ in node.next_functions
            if behind is not None
            and behind not in distance
            and distance.setdefault(behind, distance[node] + 1)
        ]
    ways = {root: 1}
    for node in sorted(distance, key=lambda n: -n._sequence_nr() if n.name()[-4:] != "Grad" else 1):
        for behind, _ in node.next_functions:
            if behind is not None:
                ways[behind] = ways.get(behind, 0) + ways[node]
    places = {n.variable: n for n in distance if hasattr(n, "variable")}
    reached = [(n, p) for n, p in seen.model.named_parameters() if p in places]
    assert len(reached) == sum(p.grad is not None for p in seen.model.parameters()) >= 10
    for name, p in reached[:: max(1, len(reached) // 25)]:
        path = seen.graph.path(name)
        assert len(path.nodes) == distance[places[p]] + 1
        assert path.ways == ways[places[p]]
        assert path.nodes[-1].parameters == (name,)
        assert path.nodes[0].index in seen.graph.roots
        assert all(b.index in a.next for a, b in pairwise(path.nodes))
        assert path.kinds[-1] == ("adapter" if is_adapter(name) else mh.tower_of(name) or "loss")
        assert f"one of {path.ways:,} paths" in str(path)


def test_the_kinds_along_a_path_are_towers_and_adapters():
    path = recorded("adapters").graph.path("stages.3.blocks.0.token_mixer.qkv.lora_A")
    assert path.kinds[0] == "loss" and path.kinds[-1] == "adapter"
    assert [k for i, k in enumerate(path.kinds) if i == 0 or k != path.kinds[i - 1]] == [
        "loss",
        "image",
        "adapter",
    ]


def test_without_towers_everything_is_the_model():
    trunk = copy.deepcopy(fresh("nano").model.visual)
    with mh.trace(trunk) as tape:
        trunk(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert {tape.graph.tower(n) for n in tape.graph.nodes} == {"model", "loss"}
    labels = [g.label for g in tape.graph.collapse("towers").groups]
    assert labels[:2] == ["model", "loss"]


def test_what_the_whole_model_computes_itself_is_of_no_tower():
    clip = fresh("nano")
    peft = mh.inject_lora(clip.model)
    with mh.trace(peft) as tape:
        image, text, scale = peft(torch.rand(2, 3, 64, 64), clip.tokenizer(["a", "b"]))
        (scale * image @ text.T).sum().backward()
    by_module = {n.module: tape.graph.tower(n) for n in tape.graph.nodes if not n.is_leaf}
    assert by_module["base_model.model"] == "loss"
    assert by_module[None] == "loss"
    assert {t for m, t in by_module.items() if m and "visual" in m} == {"image"}
    assert {t for m, t in by_module.items() if m and ".text." in m} == {"text"}


# --------------------------------------------------------------------------------- names of a leaf


def test_a_leaf_answers_to_every_ending_of_its_name_that_fits_it_alone():
    graph = recorded("adapters").graph
    full = "base_model.model.visual.trunk.stages.3.blocks.0.token_mixer.qkv.lora_B.default.weight"
    node = graph.leaves[full]
    for name in (
        full,
        "visual.trunk.stages.3.blocks.0.token_mixer.qkv.lora_B",
        "stages.3.blocks.0.token_mixer.qkv.lora_B.default.weight",
        "stages.3.blocks.0.token_mixer.qkv.lora_B",
        "3.blocks.0.token_mixer.qkv.lora_B",
    ):
        assert graph.leaf(name) is node
    every = {
        name: graph.leaves[name]
        for name, p in recorded("adapters").model.named_parameters()
        if p.requires_grad
    }
    assert len(every) == len(graph.leaves)
    for name, wanted in every.items():
        assert graph.leaf(clean_name(name)) is graph.leaf(name) is wanted


def test_a_whole_name_goes_before_endings():
    inner, outer = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with mh.trace({"scale": outer, "layer.scale": inner}) as tape:
        (inner * outer).sum().backward()
    assert tape.graph.leaf("scale").parameters == ("scale",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qkv.lora_C", r"no parameter is called 'qkv\.lora_C'"),
        ("ora_B", "no parameter is called 'ora_B'"),
        ("stages.3.blocks.0.token_mixer.qvk.lora_B", r"Did you mean .*token_mixer\.qkv\.lora_B"),
        ("lora_B", r"'lora_B' fits \d+ parameters \(visual.*, …\): give more of the name"),
        ("stem.0.conv_kxk.0.conv.weight", "is not in this graph: requires_grad is False"),
        ("", "no parameter is called ''"),
    ],
)
def test_a_leaf_that_is_not_there_is_refused_with_the_reason(name: str, said: str):
    with pytest.raises(ValueError, match=said):
        recorded("adapters").graph.leaf(name)
    with pytest.raises(ValueError, match=said):
        recorded("adapters").graph.path(name)


def test_a_leaf_that_no_gradient_came_to_is_refused_with_the_reason():
    with pytest.raises(
        ValueError, match=r"text.*lora_B is not in this graph: .* ran under no_grad"
    ):
        recorded("image only").graph.leaf("text.transformer.resblocks.0.attn.q_proj.lora_B")


def test_collapse_refuses_what_it_does_not_know():
    graph = recorded("adapters").graph
    with pytest.raises(ValueError, match="'layers'; it must be one of towers, blocks, modules"):
        graph.collapse("layers")
    with pytest.raises(ValueError, match=r"no module called .stages\.9. ran"):
        graph.collapse("blocks", within="stages.9")
    with pytest.raises(ValueError, match="nothing that stem computed is in this graph"):
        graph.collapse("modules", within="stem")
    text = recorded("image only").graph
    with pytest.raises(ValueError, match=r"nothing that resblocks\.0 .*: ran under no_grad"):
        text.collapse("modules", within="resblocks.0")


# ------------------------------------------------------------------------------- labels and notes


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
        self.lost = nn.Linear(3, 3)

    def forward(self, x):
        self.lost(x)
        x = self.frozen(self.frozen(x))
        return self.layer(self.layer(x))


def test_groups_say_which_call_they_are_and_what_lies_in_the_dark():
    with mh.trace(Shared()) as tape:
        tape_input = torch.ones(1, 3)
        model = tape._model
        loss = model(tape_input).sum()
        tape.label(loss=loss)
        loss.backward()
    found = tape.graph.collapse("modules")
    assert [(g.label, g.kind, g.note) for g in found.groups] == [
        ("layer", "model", "T, Addmm"),
        ("layer (call 2)", "model", "T, Addmm"),
        ("loss", "loss", "SumBackward0"),
        ("layer.weight", "weights", ""),
        ("layer.bias", "weights", ""),
        ("lost", "dark", "leads nowhere: detached, or not used"),
        ("frozen", "dark", "12 frozen weights"),
    ]
    assert "layer (call 2) (T, Addmm) → layer, " in repr(found)
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


def test_the_norms_have_blocks_that_only_zero_came_to():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    nn.init.constant_(model[0].bias, -100)
    with mh.trace(model) as tape:
        model(torch.ones(1, 2)).sum().backward()
    [after, relu, first] = tape.graph.norms().towers["model"]
    assert after == ("2", about(math.sqrt(2)))
    assert relu[0] == "1" and relu[1] > 0
    assert first == ("0", 0)


def test_an_input_that_wants_a_gradient_is_no_weight():
    layer, x = nn.Linear(3, 3), torch.ones(1, 3, requires_grad=True)
    with mh.trace(layer) as tape:
        layer(x).sum().backward()
    for level in LEVELS:
        labels = [g.label for g in check_groups(tape.graph, level).groups if g.is_leaf]
        assert "1 input" in labels
    assert sorted(g.label for g in tape.graph.collapse("towers").groups if g.is_leaf) == [
        "1 input",
        "2 weights",
    ]


def test_leaves_say_how_many_were_reached():
    zero, fine, unused = (nn.Parameter(torch.ones(2)) for _ in range(3))
    with mh.trace({"zero": zero, "fine": fine, "unused": unused}) as tape:
        (zero * 0 + fine + unused).sum().backward(inputs=[zero, fine])
    [weights] = [g for g in tape.graph.collapse("towers").groups if g.is_leaf]
    assert (weights.label, weights.note) == (
        "3 weights",
        "1 reached, 1 exactly zero, 1 not reached",
    )
    notes = {g.label: g.note for g in tape.graph.collapse("modules").groups if g.is_leaf}
    assert notes == {"zero": "exactly zero", "fine": "", "unused": "not reached"}


def test_a_graph_says_how_large_it_is():
    graph = recorded("adapters").graph
    leaves = 2 * len(list(mh.lora_layers(recorded("adapters").model)))
    assert (
        repr(graph) == f"<Graph: {len(graph.nodes)} nodes, {len(graph.nodes)} ran, {leaves} leaves>"
    )


# ------------------------------------------------------------------------------------------- bytes


def test_saved_bytes_add_up_by_tower_block_and_module():
    saved = Saved(
        {
            "": 1,
            "base_model.model": 2,
            "base_model.model.visual.trunk.stages.0.blocks.1.mlp.fc1": 10,
            "base_model.model.visual.trunk.stages.0.blocks.1.mlp.fc1.base_layer": 20,
            "base_model.model.visual.trunk.stages.0.blocks.1.mlp.fc1.lora_A.default": 40,
            "base_model.model.text.transformer.resblocks.0": 100,
            "base_model.model.text.transformer.resblocks.1": 200,
        },
        of_the_model=7,
    )
    assert saved.total == 373
    assert saved.by("towers") == {"loss": 3, "image": 70, "text": 300}
    assert saved.by("blocks") == {
        "loss": 3,
        "image: stages.0.blocks.1": 70,
        "text: resblocks.0": 100,
        "text: resblocks.1": 200,
    }
    assert saved.by("modules") == {
        "loss": 3,
        "visual.trunk.stages.0.blocks.1.mlp.fc1": 30,
        "visual.trunk.stages.0.blocks.1.mlp.fc1.lora_A": 40,
        "text.transformer.resblocks.0": 100,
        "text.transformer.resblocks.1": 200,
    }
    with pytest.raises(
        ValueError, match="'operations'; bytes are known by towers, blocks, modules"
    ):
        saved.by("operations")
    assert "373" in str(saved)


# --------------------------------------------------------------------------------------- gradients


def test_before_a_backward_pass_no_adapter_is_reached_and_the_rest_is_frozen():
    clip = mh.load_model("nano", pretrained="random", device="cpu")
    peft = mh.inject_lora(clip.model, rank=2)
    found = mh.gradients(peft)
    layers = len(list(mh.lora_layers(peft)))
    assert len(found) == len(list(peft.parameters()))
    assert found.count("not_reached") == 2 * layers > 0
    assert found.count("not_reached", "A") == found.count("not_reached", "B") == layers
    assert found.count("frozen") == len(found) - 2 * layers
    assert all(g.norm is None for g in found)
    assert set(found.dead) == set(found.adapters)


def test_after_it_every_b_it_came_to_is_reached_and_every_a_is_exactly_zero():
    seen = recorded("image only")
    for found in (mh.gradients(seen.model), seen.graph.gradients):
        towers = {}
        for g in found:
            if g.part in ("A", "B"):
                towers.setdefault((g.tower, g.part), set()).add(g.verdict)
        assert towers == {
            ("image", "A"): {Verdict.ZERO},
            ("image", "B"): {Verdict.REACHED},
            ("text", "A"): {Verdict.NOT_REACHED},
            ("text", "B"): {Verdict.NOT_REACHED},
        }
        named = [name for name, _ in mh.lora_layers(seen.model)]
        assert found.dead == tuple(name for name in named if mh.tower_of(name) == "text")


def test_each_gradient_is_that_of_its_parameter_and_stays_as_it_is():
    peft = recorded("image only").model
    before = [None if p.grad is None else p.grad.clone() for p in peft.parameters()]
    found = mh.gradients(peft)
    named = dict(mh.lora_layers(peft))
    for g, grad, (name, p) in zip(found, before, peft.named_parameters(), strict=True):
        assert g.name == clean_name(name)
        assert g.shape == tuple(p.shape)
        assert g.requires_grad == p.requires_grad
        assert g.norm == (None if grad is None else pytest.approx(grad.square().sum().sqrt()))
        assert (g.part in ("A", "B")) == p.requires_grad
        if p.requires_grad:
            assert getattr(named[g.layer], f"lora_{g.part}")["default"].weight is p
        assert p.grad is None or torch.equal(p.grad, grad)
    assert set(found.adapters) == set(named)
    assert all(set(pair) == {"A", "B"} for pair in found.adapters.values())


@pytest.mark.parametrize("how", HOW)
def test_a_recorded_gradient_is_the_one_that_lies_there(how: str):
    seen = recorded(how)
    for there, came in zip(mh.gradients(seen.model), seen.graph.gradients, strict=True):
        assert (there.name, there.verdict, there.shape) == (came.name, came.verdict, came.shape)
        assert there.norm == came.norm
        assert bool(came.why) == (came.verdict != Verdict.REACHED)


def test_gradients_of_a_plain_model_have_the_names_of_its_layers():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    found = {(g.layer, g.part): g.verdict for g in mh.gradients(model)}
    assert found.keys() == {("0", "weight"), ("0", "bias"), ("2", "weight"), ("2", "bias")}
    assert found["0", "bias"] == "frozen"
    assert found["2", "bias"] == Verdict.REACHED
    assert mh.gradients(model).adapters == {}
    assert mh.gradients(model).dead == ()


def test_a_dead_layer_is_told_from_one_with_a_gradient_of_zero():
    used, unused = nn.Linear(1, 1), nn.Linear(1, 1)
    (0 * used(torch.ones(1, 1))).sum().backward()
    found = mh.gradients(nn.ModuleList([used, unused]))
    assert found.count("zero") == 2
    assert found.count("not_reached") == 2


def test_the_table_counts_verdicts_with_their_reasons_the_reached_first():
    seen = recorded("image only")
    found = seen.graph.gradients
    rows = [line.split()[0] for line in str(found).splitlines()[2:]]
    assert rows[:2] == ["reached", "exactly"] and rows[-1] == "frozen"
    numbers = [row[1] for row in found.table().rows]
    assert sum(map(int, numbers)) == len(found)
    assert "ran under no_grad" in str(found)
