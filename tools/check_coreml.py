"""Whether Core ML computes what PyTorch did. Run this on a Mac, with what export_coreml wrote:

    pip install coremltools safetensors numpy
    python tools/check_coreml.py FOLDER

It needs nothing else of this project. Every input in `expected.safetensors` goes through the models
in FOLDER, one at a time; the features are compared with those that PyTorch computed. Exit status 1
if the smallest cosine or the share of same first answers is below its bar.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

INPUTS = {"image": "pixels", "text": "tokens"}
# Half precision has three digits.
SMALLEST_COSINE, AGREEMENT = 0.999, 0.99


def features(folder: Path, tower: str, inputs: np.ndarray) -> np.ndarray:
    """Unit vectors (N, D), as Core ML computes them."""
    import coremltools

    model = coremltools.models.MLModel(str(folder / f"{tower}.mlpackage"))
    name = INPUTS[tower]
    return np.concatenate([model.predict({name: one[None]})["features"] for one in inputs])


def compare(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, float]:
    """The smallest cosine of each tower, and the share of pictures whose first answer is the same.

    Both hold `image_features` (N, D) and `text_features` (M, D), of any length.
    """

    def unit(vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    old, new = ({name: unit(value) for name, value in side.items()} for side in (expected, found))
    numbers = {tower: (old[tower] * new[tower]).sum(1).min().item() for tower in found}
    answers = [(f["image_features"] @ f["text_features"].T).argmax(1) for f in (old, new)]
    return numbers | {"agreement": (answers[0] == answers[1]).mean().item()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what export_coreml wrote")
    folder = parser.parse_args().folder
    if platform.system() != "Darwin":
        print("Core ML runs on Macs only; nothing was checked.", file=sys.stderr)
        return 2
    stored = load_file(folder / "expected.safetensors")
    expected = {f"{tower}_features": stored[f"{tower}_features"] for tower in INPUTS}
    found = {
        f"{tower}_features": features(folder, tower, stored[name]) for tower, name in INPUTS.items()
    }
    numbers = compare(expected, found)
    good = True
    for name, value in numbers.items():
        bar = AGREEMENT if name == "agreement" else SMALLEST_COSINE
        passed = value >= bar  # NaN passes no bar
        good = good and passed
        print(f"{name}: {value:.6f} (at least {bar}): {'passed' if passed else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
