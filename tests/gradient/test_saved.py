"""The bytes of the saved tensors, added up."""

from __future__ import annotations

import pytest

from mclip_helpers.gradient import Saved


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
