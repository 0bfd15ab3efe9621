"""The Hugging Face hub: whether it answers, asked once and not for long.

Its client tries for half a minute before it gives up, with a line of log for each try. Here a hub
that does not answer at once counts as none: the client then works offline, from its cache.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants as hub_constants
from huggingface_hub import get_session, hf_hub_url

PATIENCE = 4.0  # seconds

# Answers with which the client would try again and again.
OVERLOADED = 429
SERVER_ERROR = 500

_OFFLINE = threading.RLock()


@contextmanager
def hub_or_cache(repository: str, file: str, repo_type: str | None = None) -> Iterator[str | None]:
    """In this block the hub's client uses its cache alone if the hub can't be reached now.

    Gives the reason why it can't, or None. The hub is asked for `file` of `repository`, whatever
    the answer; the client's own settings hold (HF_ENDPOINT, HF_HUB_OFFLINE, proxies).
    """
    why = _why_not(hf_hub_url(repository, file, repo_type=repo_type))
    if why is None:
        yield None
        return
    with _OFFLINE:
        before = hub_constants.HF_HUB_OFFLINE
        hub_constants.HF_HUB_OFFLINE = True
        try:
            yield why
        finally:
            hub_constants.HF_HUB_OFFLINE = before


def _why_not(url: str) -> str | None:
    """Why the hub gives no answer that is worth waiting for, after PATIENCE at the latest."""
    if hub_constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    why = f"no answer within {PATIENCE:g} seconds"

    def ask() -> None:
        nonlocal why
        try:
            status = get_session().head(url, timeout=PATIENCE, follow_redirects=False).status_code
            refused = status == OVERLOADED or status >= SERVER_ERROR
            why = f"it answers with error {status}" if refused else ""
        except Exception as error:  # of the client: its classes differ between versions
            why = f"{type(error).__name__}: {error}"

    # In a thread of its own: looking up a name knows no time limit.
    thread = threading.Thread(target=ask, name="is the hub there?", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return why or None
