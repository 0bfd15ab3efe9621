"""Whether the hub answers is asked once, and the client's settings are as before."""

from __future__ import annotations

import socket
import threading
import time

import huggingface_hub
import pytest
from huggingface_hub import constants as hub_constants

from mclip_helpers import network
from mclip_helpers.network import hub_or_cache


def taken_for_the_hub(monkeypatch, port: int) -> None:
    template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine, as a list of what it was asked; it gives the first line it is told."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken_for_the_hub(monkeypatch, server.getsockname()[1])

        def serve(status: bytes) -> list[bytes]:
            def answer() -> None:
                connection, _ = server.accept()
                asked.append(connection.recv(4096).partition(b"\r\n")[0])
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                connection.close()

            threading.Thread(target=answer, daemon=True).start()
            return asked

        yield serve
    huggingface_hub.close_session()


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"401 No", b"404 Not Found"])
def test_a_hub_that_answers_is_used_whatever_it_answers(hub, status):
    asked = hub(status)
    with hub_or_cache("owner/name", "a.bin", "dataset") as unreachable:
        assert unreachable is None
        assert not hub_constants.HF_HUB_OFFLINE
    assert asked == [b"HEAD /datasets/owner/name/resolve/main/a.bin HTTP/1.1"]


@pytest.mark.parametrize("status", [b"429 Slow", b"500 Oh", b"503 Later"])
def test_a_hub_that_the_client_would_ask_again_and_again_is_none(hub, status):
    hub(status)
    with hub_or_cache("owner/name", "a.bin") as unreachable:
        assert unreachable == f"it answers with error {status[:3].decode()}"
        assert hub_constants.HF_HUB_OFFLINE
    assert not hub_constants.HF_HUB_OFFLINE


def test_a_hub_that_is_silent_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken_for_the_hub(monkeypatch, server.getsockname()[1])
        begun = time.perf_counter()
        with hub_or_cache("owner/name", "a.bin") as unreachable:
            assert time.perf_counter() - begun < 2
            assert hub_constants.HF_HUB_OFFLINE
    assert unreachable is not None


def test_a_name_that_nobody_can_look_up_takes_no_longer(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    huggingface_hub.close_session()
    begun = time.perf_counter()
    with hub_or_cache("owner/name", "a.bin") as unreachable:
        assert unreachable == "no answer within 0.2 seconds"
    assert time.perf_counter() - begun < 2


def test_offline_nobody_is_asked_and_the_setting_stays(monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(network, "get_session", lambda: pytest.fail("asked"))
    with hub_or_cache("owner/name", "a.bin") as unreachable:
        assert unreachable == "HF_HUB_OFFLINE is set"
    assert hub_constants.HF_HUB_OFFLINE


def test_the_setting_is_as_before_after_an_error(monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "_why_not", lambda url: "because")
    with pytest.raises(KeyError), hub_or_cache("owner/name", "a.bin"):
        raise KeyError
    assert not hub_constants.HF_HUB_OFFLINE
