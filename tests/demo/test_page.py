"""The page as a person uses it: with the mouse, with keys, with a screen reader."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from browser import Browser, JavaScriptError
from PIL import Image

ANSWERS = """Object.fromEntries([...document.querySelectorAll("#adapters label")].map((label) =>
    [label.dataset.name, label.querySelector(".answer").textContent]))"""


@pytest.fixture
def used(opened: Browser) -> Iterator[Browser]:
    """The page as it is when it has just been loaded."""
    opened.call("Page.reload")
    opened.wait_for("document.body?.dataset.ready && document.readyState === 'complete'")
    yield opened


def choose(page: Browser, selector: str) -> None:
    page.run("document.querySelector(selector).click()", selector=selector)


def first_bar(page: Browser) -> str:
    return page.run("return document.querySelector('#bars .label')?.textContent")


def test_an_example_and_the_switch(used: Browser) -> None:
    """The promise of the page: a sketch that the base takes for something else."""
    choose(used, '[alt="fish, sketch"]')
    used.wait_for('document.querySelector("[data-name=sketch]").classList.contains("right")')
    used.wait_for('document.querySelector("[data-name=base]").classList.contains("wrong")')
    assert first_bar(used) != "fish"
    choose(used, 'input[value="sketch"]')
    used.wait_for('document.querySelector("#bars .label").textContent === "fish"')
    assert used.run(f"return {ANSWERS}")["sketch"] == "fish"
    used.wait_for('document.getElementById("spoken").textContent.startsWith("sketch: fish")')


def test_own_labels(used: Browser) -> None:
    choose(used, '[alt="guitar, twemoji"]')
    used.wait_for("document.querySelector('#bars li.right')")
    used.run(
        """
        const labels = document.getElementById("labels");
        labels.value = "  violin \\n\\nguitar\\nguitar\\nquixotic";
        labels.dispatchEvent(new Event("input"));
        """
    )
    used.wait_for("document.querySelectorAll('#bars li').length === 3")
    assert first_bar(used) == "guitar"
    assert "quixotic" in used.run("return document.getElementById('unknown').textContent")


def test_all_names(used: Browser) -> None:
    choose(used, '[alt="guitar, twemoji"]')
    choose(used, "#all")
    used.wait_for("/and 1[56]\\d\\d more/.test(document.getElementById('state').textContent)")
    assert first_bar(used) == "guitar"


def test_draw_with_the_mouse(used: Browser) -> None:
    box = used.run("return document.getElementById('pad').getBoundingClientRect().toJSON()")

    def at(kind: str, x: float, y: float) -> None:
        used.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=box["x"] + x * box["width"],
            y=box["y"] + y * box["height"],
            button="left",
            clickCount=1,
        )

    at("mousePressed", 0.3, 0.3)
    for x, y in [(0.7, 0.3), (0.7, 0.6), (0.3, 0.6), (0.3, 0.3)]:
        at("mouseMoved", x, y)
    at("mouseReleased", 0.3, 0.3)
    used.wait_for("document.querySelectorAll('#bars li').length")
    # What the model sees: the rectangle fills the frame, however small it was drawn.
    seen = used.run(
        "const c = document.getElementById('view');"
        "return [...c.getContext('2d').getImageData(0, 0, 64, 64).data]"
    )
    dark = np.array(seen).reshape(64, 64, 4)[..., 0] < 128
    assert np.flatnonzero(dark.any(0))[[0, -1]] == pytest.approx([2, 61], abs=1)
    choose(used, "#undo")
    used.wait_for("document.querySelectorAll('#bars li').length === 0")
    assert used.run("return document.getElementById('clear').disabled")


def test_draw_with_keys(used: Browser) -> None:
    used.run("document.getElementById('pad').focus()")
    used.press("Space")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        used.press(key, times=4)
    used.press("Space")
    used.wait_for("document.querySelectorAll('#bars li').length")


def test_switch_with_keys(used: Browser) -> None:
    used.run("document.querySelector('input[name=adapter]').focus()")
    used.press("ArrowRight")
    used.wait_for("document.body.dataset.adapter === 'thermal'")


def test_camera(used: Browser) -> None:
    """The browser's stand-in for one, which shows a moving pattern."""
    choose(used, 'input[value="camera"]')
    used.wait_for("document.getElementById('video').videoWidth")
    used.wait_for("document.querySelectorAll('#bars li').length")
    choose(used, 'input[value="draw"]')
    used.wait_for("document.getElementById('video').srcObject === null")
    used.wait_for("document.querySelectorAll('#bars li').length === 0")


def test_a_dropped_file_that_is_no_picture(used: Browser) -> None:
    used.run(
        """
        const dropped = new DataTransfer();
        dropped.items.add(new File(["no picture"], "notes.txt"));
        const drop = new DragEvent("drop", { dataTransfer: dropped, bubbles: true });
        document.body.dispatchEvent(drop);
        """
    )
    used.wait_for("document.getElementById('problem').textContent.includes('can’t read')")


def test_the_page_can_reach_nothing_else(opened: Browser) -> None:
    """Not by promise: its security policy forbids it."""
    before = len(opened.problems)
    with pytest.raises(JavaScriptError, match="fetch"):
        opened.run("return (await fetch('https://example.org/')).status")
    complaints = opened.problems[before:]
    del opened.problems[before:]
    assert any("Content Security Policy" in text for text in complaints)
    assert "https://example.org/" not in opened.requests


def test_everything_has_a_name(opened: Browser) -> None:
    """What the browser tells a screen reader: each control and each picture with a name."""
    opened.call("Accessibility.enable")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    opened.call("Accessibility.disable")
    roles = {"button", "radio", "textbox", "image", "img", "list", "application"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in roles
        and not node.get("name", {}).get("value", "").strip()
    ]
    found = {node["role"]["value"] for node in nodes if not node["ignored"]}
    assert {"button", "radio", "textbox", "image", "heading"} <= found
    assert nameless == []


CONTRASTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgb = (colours) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!text || !element.checkVisibility() || element.closest(":disabled, .hidden")) continue;
  const behind = [];
  for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
  const back = light(rgb(["white", ...behind]));
  const front = light(rgb(["white", ...behind, getComputedStyle(element).color]));
  const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
  if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(opened: Browser, scheme: str) -> None:
    """Text is at least 4.5 times as bright, or as dark, as what is behind it (WCAG 2, AA)."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.call("Emulation.setEmulatedMedia", features=features)
    try:
        choose(opened, '[alt="fish, sketch"]')
        opened.wait_for('document.querySelector("[data-name=base]").classList.contains("wrong")')
        for adapter in ("base", "thermal", "sketch", "openmoji"):
            choose(opened, f'input[value="{adapter}"]')
            opened.wait_for(f"document.body.dataset.adapter === '{adapter}'")
            assert opened.run(CONTRASTS) == []
    finally:
        opened.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_fits_every_width(opened: Browser, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        assert opened.run("return document.documentElement.scrollWidth") <= width
        picture = Image.open(io.BytesIO(opened.picture()))
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50  # it shows something
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")
