"""The page, built once, served, and open in a headless browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from browser import Browser, find_browser

import demo


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the page is served. It is the one that `make demo` builds, made anew if need be."""
    pytest.importorskip("onnxruntime", reason="the extra `ship` is not installed")
    try:
        folder = demo.build()
    except demo.DemoError as error:
        pytest.skip(str(error))
    serving = demo.server(folder, 0)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/"
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The page, loaded; what the browser asked for and complained of is kept to the end."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed (on Debian: apt install chromium)")
    address = request.getfixturevalue("address")
    with Browser(program) as browser:
        browser.call("Page.navigate", url=address)
        browser.wait_for("document.body?.dataset.ready")
        yield browser
        asked = [url for url in browser.requests if not url.startswith((address, "data:", "blob:"))]
        assert not asked, f"the page asked for {asked}"
        assert not browser.problems


@pytest.fixture(scope="session")
def page(opened: Browser) -> Browser:
    """The opened page with a model of the tests' own: `model`, with all adapters."""
    opened.run(
        """
        const { Model } = await import("./model.js");
        window.model = await Model.load();
        for (const adapter of model.card.adapters) await model.addAdapter(adapter);
        const bytes = (data) => Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        window.blob = (data) => new Blob([bytes(data)]);
        """
    )
    return opened
