"""The player of a backward pass, and the same story as a strip of frames."""

from __future__ import annotations

import dataclasses
import functools
import html
import re

import ipywidgets
import pytest
import torch
from conftest import fresh
from torch import nn

import mclip_helpers as mh
from mclip_helpers.draw import graphviz
from mclip_helpers.draw.strip_map import ROWS, span
from mclip_helpers.gradient import Graph
from mclip_helpers.gradient.derivatives import in_words, stem
from mclip_helpers.gradient.words import short_number
from mclip_helpers.widgets.gradient_map import HIGH, WIDE
from mclip_helpers.widgets.gradient_player import player


def frames(graph: Graph, *arguments) -> mh.draw.Chart:
    return graph.frames(*arguments).plot()


IMAGE_B = "stages.3.blocks.0.token_mixer.qkv.lora_B"


@functools.cache
def step_of(name: str, lora: bool = True) -> Graph:
    torch.manual_seed(0)
    clip = fresh(name)
    model = mh.inject_lora(clip.model) if lora else clip.model
    size = clip.model.visual.image_size
    pictures = torch.rand(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    with mh.trace(model) as tape:
        a = clip.model.encode_image(pictures)
        b = clip.model.encode_text(clip.tokenizer(["a cat", "a dog"]))
        mh.contrastive_loss(a, b, clip.model.logit_scale.exp()).backward()
    return tape.graph


@pytest.fixture
def graph() -> Graph:
    return step_of("nano")


def toy() -> Graph:
    """One line of algebra, and no module."""
    w, b = torch.randn(4, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    with mh.trace({"w": w, "b": b}) as tape:
        ((torch.randn(3, 4) @ w + b).relu() ** 2).mean().backward()
    return tape.graph


def sequential() -> Graph:
    """A model of no towers."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with mh.trace(model) as tape:
        model(torch.randn(3, 4)).square().mean().backward()
    return tape.graph


def centres(svg: str) -> dict[str, tuple[float, float]]:
    """The middle of each box in the drawing, by its group's key."""
    dx, dy = map(float, re.search(r"translate\(([-\d.]+)[ ,]([-\d.]+)\)", svg).groups())
    found = {}
    for piece in svg.split('<g id="node-')[1:]:
        drawn = re.search(r'\b(?:d|points)="([^"]+)"', piece)[1]
        numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", drawn)]
        xs, ys = numbers[::2], numbers[1::2]
        middle = (min(xs) + max(xs)) / 2 + dx, (min(ys) + max(ys)) / 2 + dy
        found[piece[: piece.index('"')]] = middle
    return found


class Handles:
    """The parts of a player by name, and what a page would do with them."""

    def __init__(self, box: ipywidgets.VBox):
        first, second, third = box.children
        self.box = box
        self.clock, self.back, self.forth, self.slider = first.children
        self.buttons = {b.description: b for b in second.children if hasattr(b, "description")}
        self.pace = next(c for c in second.children if isinstance(c, ipywidgets.Dropdown))
        self.image, self.said = third.children
        self.name = "playing" if self.clock.has_trait("playing") else "_playing"

    @property
    def root(self) -> str:
        return next(name for name in self.box._dom_classes if name.startswith("mclip-player-"))

    @property
    def plays(self) -> bool:
        return getattr(self.clock, self.name)

    @property
    def style(self) -> str:
        return re.match(r"<style>(.*?)</style>", self.said.value, re.DOTALL)[1]

    @property
    def panel(self) -> str:
        """What can be read in the panel."""
        shown = re.sub(r"<style>.*?</style>", "", self.said.value, flags=re.DOTALL)
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

    def rules(self, prefix: str) -> list[tuple[str, str]]:
        """(selector, what is said of it) for the rules of the step that name such a group."""
        found = []
        for selectors, said in re.findall(r"([^{}]+)\{([^{}]*)\}", self.style):
            for selector in selectors.split(","):
                if prefix in selector:
                    found.append((selector, said))
        return found

    @property
    def empty(self) -> set[str]:
        """The keys of the groups that are drawn as not yet visited."""
        return {
            re.search(r'node-([^"]+)"', selector)[1]
            for selector, said in self.rules("node-")
            if "fill:transparent" in said
        }

    @property
    def glowing(self) -> set[str]:
        return {
            re.search(r'node-([^"]+)"', selector)[1]
            for selector, said in self.rules("node-")
            if "drop-shadow" in said
        }


def played(graph: Graph, *arguments, **keywords) -> Handles:
    return Handles(player(graph, *arguments, **keywords))


# ------------------------------------------------------------------------------------- every step


def test_the_panel_tells_of_each_node_in_the_order_in_which_it_ran(graph):
    shown = played(graph)
    for n, node in enumerate(graph.order, start=1):
        shown.slider.value = n
        assert f"step {n} of {len(graph.order)}" in shown.panel
        assert node.operation in shown.panel
        assert in_words(node.operation) in shown.panel
        assert node.where in shown.panel
        for norm in node.visits[0].outgoing:
            assert norm is None or short_number(norm) in shown.panel or norm == 0


def test_what_goes_out_is_told_with_its_shape_its_norm_and_where_it_goes(graph):
    shown = played(graph)
    n, node = next((n, m) for n, m in enumerate(graph.order, 1) if m.operation == "MmBackward0")
    shown.slider.value = n
    for norm, shape, behind in zip(
        node.visits[0].outgoing, node.visits[0].outgoing_shapes, node.next, strict=True
    ):
        target = graph.nodes[behind]
        place = graph.order.index(target) + 1
        assert f"{shape[0]} × {shape[1]}" in shown.panel
        assert short_number(norm) in shown.panel
        assert f"to step {place}: {stem(target.operation)}" in shown.panel


def test_an_input_for_which_nobody_asks_is_counted_and_not_drawn(graph):
    shown = played(graph)
    n = next(n for n, m in enumerate(graph.order, 1) if m.operation == "AddmmBackward0")
    shown.slider.value = n
    assert graph.order[n - 1].visits[0].outgoing.count(None) == 2
    assert "2 more inputs, for which nobody asks" in shown.panel
    assert shown.panel.count("goes out") == 1


def test_a_group_is_empty_until_the_pass_has_come_to_it_and_one_glows(graph):
    shown, groups = played(graph), graph.collapse("blocks").groups
    for n in (1, 8, 19, 38, 43, 103, 248, 249, 300, len(graph.order)):
        shown.slider.value = n
        later = {g.key for g in groups if g.kind != "dark" and g.order > n}
        assert shown.empty == later
        node = graph.order[n - 1]
        assert shown.glowing == {g.key for g in groups if node.index in g.nodes}
    assert later == set()


def test_dark_groups_stay_as_they_are(graph):
    shown = played(graph)
    dark = [g.key for g in graph.collapse("blocks").groups if g.kind == "dark"]
    assert len(dark) > 5
    for n in (1, 200, 366):
        shown.slider.value = n
        assert not any(f"node-{key}" in shown.style for key in dark)
    assert all(f'id="node-{key}"' in shown.image.value for key in dark)


def test_the_drawing_is_sent_once_and_a_step_is_small(graph):
    shown = played(graph)
    before = shown.image.value
    sizes = []
    for n in range(1, len(graph.order) + 1, 7):
        shown.slider.value = n
        sizes.append(len(shown.said.value))
    assert shown.image.value is before
    assert before.count("<svg") == 1 and "<svg" not in shown.said.value
    assert max(sizes) < 13_000


def test_two_players_do_not_disturb_each_other(graph):
    one, other = played(graph), played(graph)
    assert one.root != other.root
    one.slider.value = 40
    assert other.slider.value == 1 and "step 1 of" in other.panel
    fixed = re.search(r"<style>(.*?)</style>", one.image.value, re.DOTALL)[1]
    fixed = re.sub(r"@keyframes [^{]+\{[^{]*\{[^}]*\}\}", "", fixed)
    fixed = re.sub(r"@media [^{]+\{", "", fixed)
    for selectors in re.findall(r"([^{}]+)\{[^{}]*\}", one.style + fixed):
        assert all(part.startswith(f".{one.root} ") for part in selectors.split(","))


def test_the_running_group_is_always_inside_of_the_window(graph):
    for level in ("blocks", "modules"):
        shown = played(graph, level=level)
        source = shown.image.value
        _, _, width, _ = map(float, re.search(r'viewBox="([^"]+)"', source)[1].split())
        places = centres(source)
        assert len(places) == len(graph.collapse(level).groups)
        for n in (1, 40, 150, 249, 366):
            shown.slider.value = n
            drawn = float(re.search(r"svg\{width:(\d+)px", shown.style)[1])
            moved = re.search(r"translate\((-?\d+)px,(-?\d+)px\)", shown.style)
            (key,) = shown.glowing
            for place, shift, window in zip(
                places[key], map(float, moved.groups()), (WIDE, HIGH), strict=True
            ):
                assert 0 < place * drawn / width + shift < window


def test_the_whole_map_fits_in_the_window(graph):
    shown = played(graph)
    shown.buttons["whole map"].value = True
    wide, high = map(int, re.search(r"width:(\d+)px;height:(\d+)px", shown.style).groups())
    assert wide <= WIDE and high <= HIGH
    shown.buttons["whole map"].value = False
    assert int(re.search(r"svg\{width:(\d+)px", shown.style)[1]) > wide


def test_a_small_map_needs_no_other_view():
    assert played(toy()).buttons["whole map"].layout.display == "none"


@pytest.mark.parametrize("level", ["towers", "modules", "operations"])
def test_every_level_can_be_played(graph, level):
    shown = played(graph, level=level)
    shown.slider.value = 100
    groups = graph.collapse(level).groups
    assert shown.glowing == {g.key for g in groups if graph.order[99].index in g.nodes}


def test_without_graphviz_the_groups_are_listed_and_everything_else_works(graph, monkeypatch):
    monkeypatch.setattr(graphviz, "pygraphviz", None)
    shown = played(graph, IMAGE_B)
    assert html.escape(repr(graph.collapse("blocks")).splitlines()[0]) in shown.image.value
    assert "pygraphviz, which is not installed" in shown.image.value
    shown.play()
    assert shown.slider.value == graph.leaf(IMAGE_B).order
    assert "Arrived" in shown.panel


# ---------------------------------------------------------------------------------------- controls


def test_playing_stops_at_lora_b_then_at_lora_a_then_at_the_end(graph):
    shown = played(graph, IMAGE_B)
    b, a = graph.leaf(IMAGE_B), graph.leaf(IMAGE_B.replace("_B", "_A"))
    shown.play()
    assert not shown.plays and shown.slider.value == b.order
    shown.play()
    assert not shown.plays and shown.slider.value == a.order


def test_a_tick_that_comes_late_changes_nothing(graph):
    shown = played(graph)
    shown.play()
    stopped = shown.slider.value
    shown.tick(stopped + 1)
    shown.tick(stopped + 2)
    assert shown.slider.value == shown.clock.value == stopped
    assert f"step {stopped} of" in shown.panel


def test_a_page_that_skips_a_tick_stops_all_the_same(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick(30)
    shown.tick(41)
    assert not shown.plays and shown.slider.value == shown.clock.value == 38


def test_the_square_button_goes_to_the_start(graph):
    shown = played(graph)
    shown.slider.value = 20
    shown.clock.set_state({shown.name: False, "value": 1})
    assert shown.slider.value == 1 and "step 1 of" in shown.panel


def test_playing_goes_on_from_where_the_slider_was_put(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick()
    shown.slider.set_state({"value": 200})
    assert not shown.plays and shown.clock.value == 200
    shown.press_play()
    shown.tick()
    assert shown.slider.value == 201


def test_single_steps_go_both_ways_and_end_at_the_ends(graph):
    shown = played(graph)
    assert shown.back.disabled and not shown.forth.disabled
    shown.forth.click()
    shown.forth.click()
    shown.back.click()
    assert shown.slider.value == 2 and "step 2 of" in shown.panel
    shown.slider.value = shown.slider.max
    assert shown.forth.disabled and not shown.back.disabled


def test_a_single_step_stops_the_playing(graph):
    shown = played(graph)
    shown.press_play()
    shown.tick()
    shown.forth.click()
    assert not shown.plays and shown.slider.value == shown.clock.value == 3


def test_the_buttons_jump_to_the_two_matrices(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_A"].click()
    assert shown.slider.value == graph.leaf(IMAGE_B.replace("_B", "_A")).order
    shown.buttons["to lora_B"].click()
    assert shown.slider.value == graph.leaf(IMAGE_B).order


def test_the_pace_is_that_of_the_clock(graph):
    shown = played(graph)
    before = shown.clock.interval
    shown.pace.value = min(value for _, value in shown.pace.options)
    assert shown.clock.interval < before


# ---------------------------------------------------------------------------------------- arrivals


def test_it_arrives_at_lora_b_with_its_norm(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_B"].click()
    leaf = graph.leaf(IMAGE_B)
    said = f"Arrived: {leaf.where}, norm {short_number(leaf.norm_in)}."
    assert said in shown.panel and "now in its .grad" in shown.panel
    assert f"These {leaf.shape[0] * leaf.shape[1]:,} numbers" in shown.panel
    shown.forth.click()
    assert "Arrived" not in shown.panel


def test_lora_a_receives_exactly_zero_and_it_is_said_why(graph):
    shown = played(graph, IMAGE_B)
    shown.buttons["to lora_A"].click()
    why = next(g.why for g in graph.gradients if g.name == graph.leaf(IMAGE_B[:-1] + "A").where)
    assert why and f"receives exactly zero: {why}." in shown.panel
    assert "Arrived" not in shown.panel


def test_an_adapter_that_has_learned_something_arrives_twice():
    clip = fresh("nano")
    model = mh.inject_lora(clip.model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    with mh.trace(model) as tape:
        clip.model.encode_text(clip.tokenizer(["a cat", "a dog"])).square().sum().backward()
    shown = played(tape.graph)
    for button in ("to lora_B", "to lora_A"):
        shown.buttons[button].click()
        assert "Arrived" in shown.panel and "zero" not in shown.panel


def test_without_a_name_it_is_the_first_lora_b_that_ran(graph):
    first = next(n for n in graph.order if n.is_leaf and n.where.endswith("lora_B"))
    shown = played(graph)
    shown.play()
    assert shown.slider.value == first.order


def test_without_adapters_it_is_the_first_parameter_that_ran():
    graph = step_of("nano", lora=False)
    shown = played(graph)
    shown.play()
    assert graph.order[shown.slider.value - 1].parameters == ("logit_scale",)
    assert "to logit_scale" in shown.buttons


def test_a_tensor_by_name_and_a_model_without_towers_can_be_played():
    for graph, name in ((toy(), "w"), (sequential(), "0.weight")):
        shown = played(graph, name)
        shown.play()
        assert graph.order[shown.slider.value - 1].where == name
        assert "Arrived" in shown.panel


def test_algebra_without_modules_is_shown_operation_by_operation():
    graph = toy()
    shown = played(graph)
    assert len(centres(shown.image.value)) == len(graph.nodes)


def test_inputs_without_a_name_are_no_place_to_stop():
    x = torch.randn(3, requires_grad=True)
    with mh.trace({"other": torch.zeros(1)}) as tape:
        (x * 2).sum().backward()
    shown = played(tape.graph)
    shown.play()
    assert shown.clock.value == len(tape.graph.order)
    assert "a tensor without a name" in shown.panel


def test_a_pass_that_broke_off_says_so_where_it_did():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("<b>no</b> way")

    w = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError), mh.trace({"w": w}) as tape:
        Broken.apply(w * 2).sum().backward()
    shown = played(tape.graph)
    shown.slider.value = len(tape.graph.order)
    assert "Here the pass broke off: RuntimeError: <b>no</b> way" in shown.panel
    assert "<b>no</b>" not in shown.said.value


def test_names_are_escaped():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<i>&</i>", nn.Linear(2, 2))

        def forward(self, x):
            return self.get_submodule("<i>&</i>")(x).sum()

    model = Odd()
    with mh.trace(model) as tape:
        loss = model(torch.ones(1, 2))
        tape.label(loss=loss)
        loss.backward()
    shown = played(tape.graph)
    for n in range(1, len(tape.graph.order) + 1):
        shown.slider.value = n
        assert "<i>&" not in shown.said.value + shown.image.value
    assert "<i>&</i>" in shown.panel


@pytest.mark.parametrize("function", [player, frames])
def test_a_graph_in_which_nothing_ran_is_refused(graph, function):
    still = dataclasses.replace(
        graph, nodes=tuple(dataclasses.replace(node, visits=()) for node in graph.nodes)
    )
    with pytest.raises(ValueError, match="no node of this graph ran"):
        function(still)


@pytest.mark.parametrize("function", [player, frames])
def test_a_parameter_that_is_not_there_is_refused_with_the_graphs_own_words(graph, function):
    with pytest.raises(ValueError, match="no parameter is called 'lora_C'"):
        function(graph, "lora_C")
    with pytest.raises(ValueError, match="give more of the name"):
        function(graph, "lora_B")
    with pytest.raises(ValueError, match="is not in this graph"):
        function(graph, "visual.trunk.stem.0.conv_kxk.0.conv.weight")


@pytest.mark.parametrize("function", [player, frames])
def test_a_parameter_that_the_pass_did_not_come_to_is_refused(graph, function):
    leaf = graph.leaf(IMAGE_B)
    nodes = [dataclasses.replace(n, visits=()) if n is leaf else n for n in graph.nodes]
    cut = dataclasses.replace(graph, nodes=tuple(nodes))
    with pytest.raises(ValueError, match=r"did not come to .*qkv\.lora_B"):
        function(cut, IMAGE_B)


# ------------------------------------------------------------------------------------------ frames


def texts(chart) -> list[list[str]]:
    """What stands in each frame."""
    return [[text.get_text() for text in axes.texts] for axes in chart.axes]


def test_the_six_frames_tell_the_story_of_an_adapter(graph):
    found = texts(frames(graph, IMAGE_B))
    titles = [
        "the loss, where it begins",
        "the paths to the towers part",
        "into the image tower",
        "into its block, stages.3.blocks.0",
        "lora_B: arrived",
        "lora_A: exactly zero",
    ]
    assert [next(t for t in frame if t in titles) for frame in found] == titles
    steps = [int(re.search(r"step (\d+) of 366", " ".join(frame))[1]) for frame in found]
    assert steps[0] == 1 and steps == sorted(steps)
    b = graph.leaf(IMAGE_B)
    assert steps[4] == b.order
    assert any(f"arrived: norm {short_number(b.norm_in)}" in t for t in found[4])
    assert "exactly zero: B is all zeros, and" in " ".join(found[5]).replace("\n", " ")


@pytest.mark.parametrize("name", [IMAGE_B, "text.transformer.resblocks.1.attn.q_proj.lora_B"])
def test_the_ways_part_at_the_last_node_behind_which_both_towers_lie(graph, name):
    second = texts(frames(graph, name))[1]
    n = int(re.search(r"step (\d+)", " ".join(second))[1])
    assert graph.order[n - 1].operation == "MmBackward0"  # of pictures and texts: every cosine

    def towers(index: int) -> set[str]:
        seen, waiting = set(), [index]
        while waiting:
            node = graph.nodes[waiting.pop()]
            if node.index not in seen:
                seen.add(node.index)
                waiting += [b for b in node.next if b is not None]
        return {graph.tower(graph.nodes[i]) for i in seen} - {"loss"}

    node = graph.order[n - 1]
    assert towers(node.index) == {"image", "text"}
    assert sorted(map(sorted, map(towers, node.next))) == [["image"], ["text"]]


def filled(axes) -> set[str]:
    """The words in the boxes of a frame that are not white."""
    boxes = [p for p in axes.patches if p.get_alpha() in (None, 1)]
    coloured = [p.get_bbox() for p in boxes if min(p.get_facecolor()[:3]) < 0.999]
    return {
        text.get_text()
        for text in axes.texts
        for box in coloured
        if box.contains(*text.get_position())
    }


def test_in_each_frame_what_the_pass_has_visited_is_filled(graph):
    drawn = frames(graph, IMAGE_B).axes
    dark = {"10 frozen blocks", "token_embedding"}
    assert filled(drawn[0]) == {"loss"} | dark
    third = filled(drawn[2])
    assert {"loss", "head", "text", "resblocks.0"} <= third and "final_conv" not in third
    assert "B" not in filled(drawn[3]) and "B" in filled(drawn[4])
    assert "A" not in filled(drawn[5])  # a zero fills nothing


@pytest.mark.parametrize("level", ["blocks", "modules", "operations", "towers"])
@pytest.mark.parametrize("name", ["nano", "MobileCLIP2-S0"])
def test_no_map_has_more_rows_than_can_be_read(name, level):
    graph = step_of(name)
    for axes in frames(graph, IMAGE_B, level).axes:
        columns: dict[float, set[float]] = {}
        for text in axes.texts:
            if text.get_ha() == "center" and text.get_position()[1] > 0:
                x, y = text.get_position()
                columns.setdefault(round(x, 2), set()).add(round(y, 3))
        assert max(map(len, columns.values())) <= ROWS
        sizes = [t.get_fontsize() for t in axes.texts]
        assert min(sizes) >= 6


def test_a_parameter_without_an_adapter_has_its_layer_in_the_story():
    graph = step_of("nano", lora=False)
    name = "stages.2.blocks.1.mlp.fc1.weight"
    found = [" ".join(frame) for frame in texts(frames(graph, name))]
    assert len(found) == 6
    assert "into its layer, fc1" in found[4] and "weight: arrived" in found[5]


@pytest.mark.parametrize(("make", "name"), [(toy, "w"), (sequential, "0.weight")])
def test_graphs_without_towers_have_frames_along_the_way(make, name):
    graph = make()
    found = [" ".join(frame) for frame in texts(frames(graph, name))]
    steps = [int(re.search(r"step (\d+)", frame)[1]) for frame in found]
    assert steps == sorted(set(steps)) and 3 <= len(steps) <= 6
    on_the_way = {node.index for node in graph.path(name).nodes}
    assert all(graph.order[n - 1].index in on_the_way for n in steps)
    assert f"{name.rpartition('.')[2]}: arrived" in found[-1]


def test_a_graph_of_no_parameters_has_frames_too():
    x = torch.randn(3, requires_grad=True)
    with mh.trace({"other": torch.zeros(1)}) as tape:
        (x * 2).sum().backward()
    found = [" ".join(frame) for frame in texts(frames(tape.graph))]
    assert "a tensor without a name" in found[-1]


def test_labels_of_blocks_that_share_a_row_say_which():
    assert span(["resblocks.11", "resblocks.10", "resblocks.9"]) == "resblocks.11…9"
    assert span(["stages.3.blocks.0", "stages.3.pos_emb"]) == "stages.3 × 2"
    assert span(["head", "final_conv", "stem"]) == "head + 2"


def test_frames_are_ten_inches_wide(graph):
    assert frames(graph).get_figwidth() == 10
