"""The boxes to type in: what they show, and that they follow what is typed."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from shown import HOSTILE, pictures_in, words, xml

import mclip_helpers as mh
from mclip_helpers.data import pairs as data


def captions_in(shown: str) -> list[str]:
    """What stands on the cards, in their order."""
    return re.findall(r"</b><br/?>([^<]*)</div>", shown)


def test_the_search_box_shows_the_pictures_that_fit_its_text_and_follows_it(nano, twemoji):
    widget = mh.widgets.search_box(nano, twemoji, query=twemoji.captions[0], top=3)
    box, shown = widget.children
    features, _ = mh.embed(nano, twemoji)
    seen = set()
    for query in (twemoji.captions[0], *twemoji.captions[1:5]):
        box.value = query
        cosines = features @ nano.encode_texts([query])[0]
        best = cosines.argsort(descending=True)[:3].tolist()
        assert captions_in(shown.value) == [twemoji.captions[i] for i in best]
        assert re.findall(r"<b>(.*?)</b>", shown.value) == [f"{cosines[i]:.2f}" for i in best]
        assert len(pictures_in(shown.value)) == 3
        assert twemoji.credit in words(xml(f"<div>{shown.value}</div>"))
        seen.add(shown.value)
    assert len(seen) > 1


def test_the_search_box_shows_a_result_before_anybody_typed(nano, twemoji):
    _, shown = mh.widgets.search_box(nano, twemoji, query="a cat", top=2).children
    assert len(pictures_in(shown.value)) == 2
    _, shown = mh.widgets.search_box(nano, twemoji).children
    assert pictures_in(shown.value) == []
    assert "Type something" in shown.value


def test_the_search_box_asks_for_words_when_there_are_none(nano, twemoji):
    box, shown = mh.widgets.search_box(nano, twemoji, query="a cat").children
    box.value = "   "
    assert pictures_in(shown.value) == []
    assert "Type something" in shown.value


def test_the_search_box_names_the_words_that_the_model_has_never_seen(nano, twemoji):
    box, shown = mh.widgets.search_box(nano, twemoji, query="a cat").children
    assert "never seen" not in shown.value
    box.value = "a cat doing photosynthesis"
    unknown = nano.unknown_tokens(box.value)
    assert unknown
    said = words(xml(f"<div>{shown.value}</div>"))
    assert f"nano has never seen in training: {', '.join(unknown)}" in said


def test_the_search_box_of_a_small_dataset_shows_all_of_it(nano, twemoji):
    _, shown = mh.widgets.search_box(nano, twemoji.subset([1, 2]), query="a cat").children
    assert set(captions_in(shown.value)) == set(twemoji.captions[1:3])


def test_the_search_box_escapes_captions_and_credit(nano, hostile):
    _, shown = mh.widgets.search_box(nano, hostile, query=HOSTILE).children
    said = words(xml(f"<div>{shown.value}</div>"))
    assert all(caption in said for caption in hostile.captions)
    assert said.endswith(HOSTILE)
    assert HOSTILE not in shown.value


def test_any_object_with_the_parts_of_a_clip_will_do_for_a_search(twemoji):
    """The widget needs no more of a model than Clip promises: a person may bring another one."""
    n, pieces = len(twemoji), iter(range(10**6))
    clip = SimpleNamespace(
        model=torch.nn.Identity(),
        name="toy",
        encode_images=lambda images: torch.eye(n)[[next(pieces) for _ in images]],
        encode_texts=lambda texts: torch.eye(n)[[7]],
        unknown_tokens=lambda text: [],
    )
    _, shown = mh.widgets.search_box(clip, twemoji, query="anything", top=1).children
    assert captions_in(shown.value) == [twemoji.captions[7]]


def shares_in(shown: str) -> dict[str, str]:
    found = re.findall(r'text-align:right">(.*?)</span>.*?([\d.]+%)</div>', shown)
    return dict(found)


def test_the_classify_box_shows_the_probabilities_and_follows_picture_and_labels(nano, twemoji):
    chooser, box, shown = mh.widgets.classify_box(nano, twemoji, labels="a cat, a dog").children
    assert [index for _, index in chooser.options] == list(range(len(twemoji)))
    assert all(c in name for c, (name, _) in zip(twemoji.captions, chooser.options, strict=True))
    seen = set()
    for index, labels in ((0, "a cat, a dog"), (3, "a cat, a dog"), (3, "red ,, green,blue")):
        chooser.value, box.value = index, labels
        wanted = [label.strip() for label in labels.split(",") if label.strip()]
        shares = mh.zero_shot(nano, [twemoji[index][0]], wanted)[0].tolist()
        assert shares_in(shown.value) == {
            label: f"{share:.1%}" for label, share in zip(wanted, shares, strict=True)
        }
        [picture] = pictures_in(shown.value)
        assert picture.convert("RGB").tobytes() == twemoji[index][0].tobytes()
        seen.add(shown.value)
    assert len(seen) == 3


@pytest.mark.parametrize("labels", ["", "a cat", " , a cat,"])
def test_the_classify_box_asks_for_two_labels(nano, twemoji, labels):
    _, box, shown = mh.widgets.classify_box(nano, twemoji).children
    box.value = labels
    assert "Give two labels or more" in shown.value
    assert shares_in(shown.value) == {}
    assert len(pictures_in(shown.value)) == 1


def test_the_classify_box_escapes_labels(nano, hostile):
    _, box, shown = mh.widgets.classify_box(nano, hostile).children
    box.value = "<script>x</script>, b"
    assert "<script>" not in shown.value
    assert "<script>x</script>" in words(xml(f"<div>{shown.value}</div>"))


def test_widgets_leave_the_pictures_of_the_dataset_as_they_were(nano):
    large = Image.effect_noise((500, 300), 50).convert("RGB")
    before = large.tobytes()
    pairs = [data.Pair(name, (name,), name, lambda: large) for name in "ab"]
    _, shown = mh.widgets.search_box(nano, mh.PictureDataset(pairs), query="a").children
    assert all(max(picture.size) <= 128 for picture in pictures_in(shown.value))
    assert large.tobytes() == before
