"""The page answers as Python does, with the base and with each adapter."""

from __future__ import annotations

import base64
import copy
import io

import pytest
import torch
from browser import Browser

import mclip_helpers as mh

PICTURES = 50
# Between the first answer and the second, in cosine. Closer ones are told apart by rounding alone.
TIE = 2e-4
LOOKS = {"base": "twemoji", "thermal": "thermal", "sketch": "sketch", "openmoji": "openmoji"}


def reference(variant: str) -> mh.Clip:
    clip = mh.load_model("nano", device="cpu")
    if variant != "base":
        mh.load_adapter(clip.model, mh.data_folder() / "adapters" / variant)
    return clip


def png(dataset: mh.PictureDataset, i: int) -> str:
    file = io.BytesIO()
    dataset[i][0].save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("variant", LOOKS)
def test_first_answers(page: Browser, variant: str) -> None:
    """Fifty pictures that no adapter was trained on, and the names of all 823 of them as labels."""
    test = mh.emoji_dataset(LOOKS[variant], "test")
    labels = list(dict.fromkeys(test.captions))
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    pictures = test.subset(order[:PICTURES].tolist())
    clip = reference(variant)
    similarity = (
        clip.encode_images([pair.load() for pair in pictures.pairs]) @ clip.encode_texts(labels).T
    )
    found = page.run(
        """
        const { readPicture } = await import("./pictures.js");
        const answers = [];
        for (const data of pictures) {
          const view = model.view(await readPicture(blob(data)));
          answers.push((await model.rank(view, labels, variant))[0]);
        }
        return answers;
        """,
        pictures=[png(pictures, i) for i in range(len(pictures))],
        labels=labels,
        variant=variant,
    )
    first, second = similarity.topk(2).values.T
    clear = (first - second > TIE).tolist()
    expected = [labels[i] for i in similarity.argmax(1).tolist()]
    same = [answer["label"] == label for answer, label in zip(found, expected, strict=True)]
    print(f"{variant}: {sum(same)} of {PICTURES}, {PICTURES - sum(clear)} of them ties")
    assert sum(clear) >= PICTURES - 2
    assert all(s for s, c in zip(same, clear, strict=True) if c)
    shares = (clip.model.logit_scale.exp() * similarity).softmax(1).amax(1).tolist()
    assert [answer["share"] for answer in found] == pytest.approx(shares, abs=0.01)


def test_an_adapter_matters(page: Browser) -> None:
    """Or the test above would pass with a switch that does nothing."""
    vectors = page.run(
        """
        const view = model.view(new ImageData(80, 80));
        const vectors = [];
        for (const variant of variants) vectors.push([...await model.encodeImage(view, variant)]);
        return vectors;
        """,
        variants=list(LOOKS),
    )
    cosines = torch.tensor(vectors) @ torch.tensor(vectors).T
    assert cosines.diagonal() == pytest.approx(torch.ones(len(LOOKS)), abs=1e-5)
    assert (cosines - torch.eye(len(LOOKS))).max() < 0.999


def test_texts_as_in_python(page: Browser) -> None:
    labels = ["a guitar", "guitar", "something that it has never read", "🎸", ""]
    found = page.run(
        "return (await model.encodeTexts(labels, 'sketch')).map((v) => [...v])", labels=labels
    )
    cosines = (torch.tensor(found) * copy.copy(reference("base")).encode_texts(labels)).sum(1)
    assert cosines.min() > 1 - 1e-4


def test_unknown_words_are_found(page: Browser) -> None:
    clip = mh.load_model("nano", device="cpu")
    labels = ["guitar", "red heart", "quixotic", "a xylophone"]
    found = page.run("return labels.map((label) => model.knows(label))", labels=labels)
    assert found == [not clip.unknown_tokens(label) for label in labels]
    assert True in found and False in found
