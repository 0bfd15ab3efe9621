"""What a recording gives to its reader."""

from __future__ import annotations

from graphs import recorded

import mclip_helpers as mh


def test_a_graph_says_how_large_it_is():
    graph = recorded("adapters").graph
    leaves = 2 * len(list(mh.lora_layers(recorded("adapters").model)))
    assert (
        repr(graph) == f"<Graph: {len(graph.nodes)} nodes, {len(graph.nodes)} ran, {leaves} leaves>"
    )
