"""Build the page in demo/ with a model in it, and serve it on this machine.

    python tools/demo.py [--model nano] [--adapter mine=runs/my-adapter] [--port 8000]

The folder that is built, build/demo, can be put on any static host as it is. The first build needs
npm and a network, for the runtime (onnxruntime-web); from then on it works offline. Models are
exported again only if they, or the code that exports them, have changed.
"""

from __future__ import annotations

import argparse
import base64
import errno
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mclip_helpers import WeightsError, files
from mclip_helpers.export import GateError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "demo"
BUILT = ROOT / "build" / "demo"
MODEL = "nano"
BASE = "base"  # what the page calls the model without an adapter
ADAPTERS = ("thermal", "sketch", "openmoji")

RUNTIME = "onnxruntime-web@1.30.0"
# As a lock file has it. To change the version: npm view onnxruntime-web@… dist.integrity
RUNTIME_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# The build for a CPU alone. The first file is a module; not every host knows the ending .mjs.
RUNTIME_FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm.gz",
}


class DemoError(RuntimeError):
    """Why there is no page, and what to do about it."""


def build(
    folder: Path = BUILT, model: str = MODEL, adapters: Mapping[str, Path] | None = None
) -> Path:
    """The page in `folder`, complete. DemoError says what is missing.

    `adapters` are folders by names; None: the project's three, if `model` is theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in PAGE.iterdir():
        shutil.copy(file, folder / file.name)
    make_from(folder / "ort", {"runtime": RUNTIME_SHA512}, fetch_runtime)
    build_models(folder, model, adapters)
    return folder


def build_models(
    folder: Path, model: str = MODEL, adapters: Mapping[str, Path] | None = None
) -> None:
    """The part of the page that needs no npm: the model, its adapters, and example pictures."""
    try:
        import demo_folder  # takes seconds
    except ModuleNotFoundError as error:
        raise DemoError(f"{error}: run pip install -e '.[ship]', which brings it") from error
    if adapters is None:
        names = ADAPTERS if model == MODEL else ()
        adapters = {name: files.data_folder() / "adapters" / name for name in names}
    for source in adapters.values():
        if not (source / "adapter_config.json").is_file():
            raise DemoError(f"{source} is no adapter's folder: it has no adapter_config.json")
    code = {
        path.relative_to(ROOT).as_posix(): files.file_hash(path)
        for part in ("mclip_helpers/*/*.py", "data/nano.*", "tools/demo_folder.py")
        for path in sorted(ROOT.glob(part))
        if path.parent.name in ("data", "export", "lora", "model", "tools")
    }
    source = {"model": model, "code": code}
    make_from(folder / "examples", source, demo_folder.write_examples)
    source["adapters"] = {name: files.hashes(path) for name, path in adapters.items()}
    write = partial(demo_folder.write_model, name=model, adapters=adapters)
    make_from(folder / "model", source, write)


def make_from(folder: Path, source: Mapping[str, object], make: Callable[[Path], None]) -> None:
    """Let `make(folder)` write what is not there, or was made from another source."""
    stamp = folder / "made-from.json"
    wanted = json.dumps(source, indent=1, sort_keys=True)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return

    def write(place: Path) -> None:
        make(place)
        (place / stamp.name).write_text(wanted, encoding="utf-8")

    files.replace(folder, write, lambda path: None)


def fetch_runtime(folder: Path) -> None:
    """onnxruntime-web from npm's index, checked as npm's lock files do it.

    DemoError if npm is missing or can't fetch it, or if what it fetched is something else.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DemoError(
            f"npm is missing, which fetches {RUNTIME} once; install Node.js, which brings it "
            f"(nodejs.org; on Debian and Ubuntu: apt install npm), and run this again"
        )
    print(f"fetching {RUNTIME}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", RUNTIME, "--silent", "--pack-destination", place]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        packages = list(Path(place).glob("*.tgz"))
        if done.returncode or not packages:
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise DemoError(
                f"npm could not fetch {RUNTIME}, which needs a network once. It said: "
                f"{' '.join(said) or 'nothing'}"
            )
        content = packages[0].read_bytes()
        found = base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != RUNTIME_SHA512:
            raise DemoError(
                f"what npm fetched is not {RUNTIME}: its SHA-512 is {found}, and must be "
                f"{RUNTIME_SHA512}"
            )
        folder.mkdir()
        with tarfile.open(packages[0]) as package:
            for inside, outside in RUNTIME_FILES.items():
                member = package.extractfile(inside)
                assert member is not None, inside
                data = member.read()
                packed = outside.endswith(".gz")
                (folder / outside).write_bytes(gzip.compress(data, mtime=0) if packed else data)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; silent, and never out of date."""

    # Not the system's table, in which .js is text/plain on some Windows machines.
    extensions_map = {  # noqa: RUF012  # as in the class above
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".gz": "application/gzip",
        "": "application/octet-stream",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` for this machine alone. Port 0 is any; DemoError if it is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken" if error.errno == errno.EADDRINUSE else "is not for everyone"
        raise DemoError(
            f"port {port} {why}; name another one: make demo ARGS='--port {port + 1}'"
        ) from error


def _adapter(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name.isidentifier() or name == BASE or not folder:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=FOLDER, with a name of letters other than {BASE!r}"
        )
    return name, Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="a name that load_model knows")
    parser.add_argument(
        "--adapter",
        type=_adapter,
        action="append",
        metavar="NAME=FOLDER",
        help="in place of the project's three; may be given more than once",
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--build-only", action="store_true", help="serve nothing")
    options = parser.parse_args(arguments)
    adapters = dict(options.adapter) if options.adapter else None
    try:
        if not options.build_only:
            serving = server(BUILT, options.port)  # first: a build takes longer
        build(BUILT, options.model, adapters)
    except (DemoError, GateError, WeightsError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.build_only:
        print(f"{BUILT} is ready for any static host")
        return 0
    print(f"http://127.0.0.1:{serving.server_port}/  (Ctrl-C ends it)", flush=True)
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        serving.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
