"""Ranks and retrieval against their definition, embedding of datasets, zero-shot classification."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mclip_helpers as mh
from mclip_helpers import progress_bar
from mclip_helpers.evaluation import Retrieval, ranks
from mclip_helpers.loss import NotFiniteError

SLOW_IS_FINE = settings(deadline=None)  # tests run on busy machines


@pytest.fixture(scope="module")
def nano() -> mh.Clip:
    return mh.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def emoji() -> mh.PictureDataset:
    return mh.emoji_dataset("twemoji", "val").subset(range(10))


# ----------------------------------------------------------------------- retrieval, by definition


def rank_by_hand(similarity: np.ndarray, groups: list[int], query: int) -> int:
    """Sort the whole gallery by hand and look for the first good answer.

    The order: the most similar first, and of equally similar ones the wrong answers first. What
    is not a number is good for nothing: a wrong answer with it comes first, a good one last.
    """

    def place(answer: int) -> tuple[float, bool]:
        good = groups[answer] == groups[query]
        value = similarity[query, answer]
        if math.isnan(value):
            value = -math.inf if good else math.inf
        return -value, good

    order = sorted(range(len(groups)), key=place)
    return 1 + next(at for at, answer in enumerate(order) if groups[answer] == groups[query])


# Vectors of four signs have length 2 before and exact coordinates ±½ after normalisation, so their
# similarities are exact, and most of them are tied.
SIGNS = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)
NO_NUMBERS = st.just([math.nan] * 4)


@st.composite
def cases(draw, *, broken: bool = False) -> tuple[np.ndarray, np.ndarray, list[int]]:
    n = draw(st.integers(1, 8))
    row = st.one_of(SIGNS, SIGNS, SIGNS, NO_NUMBERS) if broken else SIGNS
    rows = st.lists(row, min_size=n, max_size=n)
    groups = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    return np.array(draw(rows)), np.array(draw(rows)), groups


@SLOW_IS_FINE
@given(cases(), st.integers(1, 15), st.integers(0, 1000))
def test_retrieval_agrees_with_sorting_the_whole_gallery_by_hand(case, chunk, seed):
    images, texts, groups = case
    # Features may come unnormalised; powers of two are exact.
    scales = 2.0 ** np.random.default_rng(seed).integers(-3, 4, (2, len(groups), 1))
    found = mh.retrieval(
        torch.tensor(images * scales[0]),
        torch.tensor(texts * scales[1]),
        ks=(1, 2, 5),
        groups=groups,
        chunk=chunk,
    )
    similarity = images @ texts.T
    for recall, median, matrix in (
        (found.image_to_text, found.image_median_rank, similarity),
        (found.text_to_image, found.text_median_rank, similarity.T),
    ):
        by_hand = np.array([rank_by_hand(matrix, groups, i) for i in range(len(groups))])
        assert recall == {k: pytest.approx(np.mean(by_hand <= k)) for k in (1, 2, 5)}
        assert median == np.median(by_hand)
    assert found.pictures == found.texts == len(groups)


@SLOW_IS_FINE
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 1000))
def test_the_chunk_size_changes_nothing(n, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randint(0, 2, (2, n, 16), generator=generator) * 2.0 - 1  # exact
    groups = torch.randint(0, n, (n,), generator=generator)
    whole = mh.retrieval(images, texts, groups=groups, chunk=n)
    assert mh.retrieval(images, texts, groups=groups, chunk=chunk) == whole


@SLOW_IS_FINE
@given(st.integers(2, 30), st.integers(0, 1000))
def test_the_order_of_the_pairs_changes_nothing(n, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randint(0, 2, (2, n, 16), generator=generator) * 2.0 - 1  # exact
    groups = torch.randint(0, n, (n,), generator=generator)
    p = torch.randperm(n, generator=generator)
    assert mh.retrieval(images[p], texts[p], groups=groups[p]) == mh.retrieval(
        images, texts, groups=groups
    )


def test_pairs_that_find_each_other_score_one():
    found = mh.retrieval(torch.eye(20), 3 * torch.eye(20))
    assert found.image_to_text == found.text_to_image == {1: 1.0, 5: 1.0, 10: 1.0}
    assert found.image_median_rank == found.text_median_rank == 1


def test_the_two_directions_are_not_the_same():
    # Both pictures are nearest to the first text; each text is nearest to its own picture.
    images = torch.tensor([[1.0, 0.0], [0.9, 0.5]])
    texts = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
    found = mh.retrieval(images, texts, ks=(1,))
    assert found.image_to_text == {1: 0.5}
    assert found.text_to_image == {1: 1.0}


def test_a_model_that_gives_every_pair_the_same_number_finds_nothing():
    same = torch.ones(50, 4)
    found = mh.retrieval(same, same)
    assert found.image_to_text == found.text_to_image == {1: 0.0, 5: 0.0, 10: 0.0}
    assert found.image_median_rank == found.text_median_rank == 50


def test_one_tie_with_a_wrong_answer_costs_one_rank():
    texts = torch.eye(4)
    texts[1] = texts[0]
    found = mh.retrieval(torch.eye(4), texts, ks=(1, 2))
    assert found.image_to_text == {1: 0.5, 2: 0.75}  # picture 1 is orthogonal to every text


def test_equally_good_pairs_are_hits_for_each_other():
    images, texts = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    assert mh.retrieval(images, texts, ks=(1,)).image_to_text == {1: pytest.approx(1 / 3)}
    assert mh.retrieval(images, texts, ks=(1,), groups=[7, 7, 8]).image_to_text == {1: 1.0}
    assert mh.retrieval(images, texts, ks=(1,), groups=[7, 8, 8]).image_to_text == {
        1: pytest.approx(1 / 3)
    }


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_refused_with_their_rows(side: int, value: float):
    """A share of them would be a number about nothing."""
    both = [torch.randn(30, 4), torch.randn(30, 4)]
    both[side][[3, 7], 1] = value
    name = ("image_features", "text_features")[side]
    with pytest.raises(NotFiniteError, match=rf"^{name} has .* in 2 of 30 rows \(3, 7\)"):
        mh.retrieval(*both)


# ------------------------------------------------------------------------------------------ ranks


@SLOW_IS_FINE
@given(cases(broken=True))
def test_a_rank_is_the_place_of_the_best_good_answer_in_the_sorted_gallery(case):
    images, texts, groups = case
    similarity, group = images @ texts.T, np.array(groups)
    found = ranks(torch.tensor(similarity), torch.tensor(group[:, None] == group[None, :]))
    assert found.tolist() == [rank_by_hand(similarity, groups, i) for i in range(len(groups))]


def test_ties_count_against_the_good_answer_and_only_wrong_answers_count():
    good = torch.tensor([[True, True, False, False]])
    for similarity, rank in (
        ([0.9, 0.8, 0.7, 0.6], 1),
        ([0.1, 0.8, 0.7, 0.6], 1),  # the best good answer decides
        ([0.1, 0.8, 0.8, 0.6], 2),
        ([0.5, 0.5, 0.5, 0.5], 3),
        ([0.1, 0.2, 0.7, 0.6], 3),
    ):
        assert ranks(torch.tensor([similarity]), good).tolist() == [rank]


def test_nan_counts_as_wrong_on_either_side():
    good = torch.tensor([[True, False, False]])
    for similarity, rank in (
        ([0.5, math.nan, 0.1], 2),
        ([math.nan, 0.5, 0.1], 3),
        ([math.nan, -math.inf, 0.1], 3),
        ([math.nan, math.nan, math.nan], 3),
    ):
        assert ranks(torch.tensor([similarity]), good).tolist() == [rank]


# --------------------------------------------------------------------------- retrieval, its limits


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


@pytest.mark.parametrize("chunk", [1, 16, 400])
def test_memory_grows_with_chunk_times_n_and_not_with_n_squared(chunk):
    n = 400
    features = torch.randn(n, 2)
    with LargestTensor() as seen:
        mh.retrieval(features, features, groups=list(range(n)), chunk=chunk)
    assert seen.largest == max(chunk * n, 2 * n)


@pytest.mark.parametrize(
    ("images", "texts"), [((3, 4), (3, 5)), ((4,), (4,)), ((1, 3, 4), (1, 3, 4)), ((3, 4), (3,))]
)
def test_features_of_other_shapes_are_refused_with_both_shapes(images, texts):
    with pytest.raises(ValueError, match=r"shapes \(N, D\) and \(M, D\)") as caught:
        mh.retrieval(torch.zeros(images), torch.zeros(texts))
    assert str(images) in str(caught.value)
    assert str(texts) in str(caught.value)


def test_groups_of_another_length_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="2 groups for 3 pictures"):
        mh.retrieval(torch.eye(3), torch.eye(3), groups=[0, 1])
    with pytest.raises(ValueError, match="3 groups for 3 pictures, 2 for 3 texts"):
        mh.retrieval(torch.eye(3), torch.eye(3), groups=[0, 1, 2], text_groups=[0, 1])


@pytest.mark.parametrize("given", [{}, {"groups": [0, 1, 2]}, {"text_groups": [0, 1, 2, 2]}])
def test_more_texts_than_pictures_need_both_groups(given):
    with pytest.raises(ValueError, match="3 pictures and 4 texts: give both"):
        mh.retrieval(torch.eye(3), torch.eye(4)[:, :3], **given)


@pytest.mark.parametrize(
    ("groups", "text_groups"), [([0, 7], [0, 0]), ([0, 0], [0, 7])], ids=["picture", "text"]
)
def test_a_picture_or_a_text_without_any_good_answer_is_refused(groups, text_groups):
    with pytest.raises(ValueError, match="group 7 has"):
        mh.retrieval(torch.eye(2), torch.eye(2), groups=groups, text_groups=text_groups)


@st.composite
def several(draw) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Pictures and texts, not as many of each, and groups that all have both."""
    groups = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    known = st.sampled_from(sorted(set(groups)))
    text_groups = sorted(set(groups)) + draw(st.lists(known, max_size=6))
    text_groups = draw(st.permutations(text_groups))
    images, texts = (
        draw(st.lists(SIGNS, min_size=len(g), max_size=len(g))) for g in (groups, text_groups)
    )
    return np.array(images), np.array(texts), groups, text_groups


def rank_among(similarity: np.ndarray, good: np.ndarray) -> int:
    """One more than the wrong answers that are as similar as the best good one, or more."""
    return 1 + int((similarity[~good] >= similarity[good].max()).sum())


@SLOW_IS_FINE
@given(several(), st.integers(1, 9))
def test_each_text_is_a_query_and_a_picture_is_found_by_any_of_its_texts(case, chunk):
    images, texts, groups, text_groups = case
    found = mh.retrieval(
        torch.tensor(images),
        torch.tensor(texts),
        ks=(1, 2, 5),
        groups=groups,
        text_groups=text_groups,
        chunk=chunk,
    )
    similarity = images @ texts.T
    good = np.array(groups)[:, None] == np.array(text_groups)[None]
    of_images = np.array([rank_among(*rows) for rows in zip(similarity, good, strict=True)])
    of_texts = np.array([rank_among(*rows) for rows in zip(similarity.T, good.T, strict=True)])
    assert found.image_to_text == {k: pytest.approx(np.mean(of_images <= k)) for k in (1, 2, 5)}
    assert found.text_to_image == {k: pytest.approx(np.mean(of_texts <= k)) for k in (1, 2, 5)}
    assert found.image_median_rank == np.median(of_images)
    assert found.text_median_rank == np.median(of_texts)
    assert (found.pictures, found.texts) == (len(groups), len(text_groups))


def test_retrieval_prints_every_share_and_both_medians_of_how_many():
    text = str(Retrieval({1: 0.125, 5: 0.5}, {1: 0.25, 5: 1.0}, 2.5, 7, 80, 200))
    there, back = text.splitlines()
    assert there.startswith("picture → text")
    assert back.startswith("text → picture")
    assert all(part in there for part in ("R@1  12.5%", "R@5  50.0%", "2.5 of 200"))
    assert all(part in back for part in ("R@1  25.0%", "R@5 100.0%", "7 of 80"))


# --------------------------------------------------------------------------------- with a model


def test_embed_gives_what_encode_images_and_encode_texts_give(nano, emoji):
    images, texts = mh.embed(nano, emoji, batch_size=4)
    assert torch.allclose(images, nano.encode_images([p for p, _ in emoji]), atol=1e-5)
    assert torch.allclose(texts, nano.encode_texts(emoji.captions), atol=1e-5)
    for features in (images, texts):
        assert features.device.type == "cpu"
        assert features.dtype == torch.float32
        assert not features.requires_grad
        assert torch.allclose(features.norm(dim=1), torch.ones(len(emoji)), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_embed_works_in_eval_mode_and_puts_the_models_mode_back(nano, emoji, training):
    expected = mh.embed(nano, emoji)
    state = {name: value.clone() for name, value in nano.model.state_dict().items()}
    nano.model.train(training)
    try:
        found = mh.embed(nano, emoji)
        assert all(module.training == training for module in nano.model.modules())
    finally:
        nano.model.eval()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for name, value in nano.model.state_dict().items():
        assert torch.equal(value, state[name]), "batch norm's statistics stay"


def test_embed_leaves_each_module_in_the_mode_it_was_in(nano, emoji, monkeypatch):
    norms = [m for m in nano.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    nano.model.train()
    for module in norms[::2]:
        module.eval()
    before = [module.training for module in nano.model.modules()]
    try:
        mh.embed(nano, emoji)
        assert [module.training for module in nano.model.modules()] == before
        monkeypatch.setattr(nano.model, "encode_text", None)  # it breaks off on the way
        with pytest.raises(TypeError):
            mh.embed(nano, emoji)
        assert [module.training for module in nano.model.modules()] == before
    finally:
        nano.model.eval()


def captioned_twice(dataset: mh.PictureDataset) -> mh.PictureDataset:
    """Every second picture gets another caption: the first one, "drawn"."""
    pairs = [
        dataclasses.replace(p, captions=(*p.captions, f"{p.captions[0]}, drawn")[: 1 + i % 2])
        for i, p in enumerate(dataset.pairs)
    ]
    return mh.PictureDataset(pairs)


def test_embed_gives_a_vector_for_every_caption_and_evaluate_counts_them_all(nano, emoji):
    several = captioned_twice(emoji)
    images, texts = mh.embed(nano, several, batch_size=4)
    assert torch.allclose(images, nano.encode_images([p for p, _ in emoji]), atol=1e-5)
    assert torch.allclose(texts, nano.encode_texts(several.all_captions), atol=1e-5)
    assert len(texts) == 15
    found = mh.evaluate(nano, several)
    assert (found.pictures, found.texts) == (10, 15)
    by_hand = [
        rank_among((image @ texts.T).numpy(), np.array(several.caption_groups) == group)
        for image, group in zip(images, several.groups, strict=True)
    ]
    assert found.image_to_text[1] == pytest.approx(np.mean(np.array(by_hand) == 1))


def test_evaluate_is_retrieval_among_the_embedded_pairs_with_their_groups(nano):
    whole = mh.emoji_dataset("twemoji")
    twins = whole.find("family man boy", "family woman girl", "family adult child", "tiger")
    assert len(set(twins.groups)) == 2
    found = mh.evaluate(nano, twins, batch_size=3)
    assert found == mh.retrieval(*mh.embed(nano, twins), groups=twins.groups)
    # Three of the four pictures are the same: at most one of them could rank its own text first.
    assert mh.retrieval(*mh.embed(nano, twins)).image_to_text[1] <= 0.5
    assert found.pictures == found.texts == 4


# -------------------------------------------------------------------------------------- progress


def test_what_is_done_in_a_moment_shows_no_bar(nano, emoji, capfd):
    mh.evaluate(nano, emoji, 2)
    mh.retrieval(torch.eye(20), torch.eye(20), chunk=1)
    assert capfd.readouterr() == ("", "")


def test_what_takes_longer_says_how_far_it_is_unless_asked_not_to(nano, emoji, capfd, monkeypatch):
    monkeypatch.setattr(progress_bar, "QUIET", 0.0)
    for shown in (True, False):
        mh.evaluate(nano, emoji, 2, progress=shown)
        text, errors = capfd.readouterr()
        assert errors == ""
        for title in ("embedding pictures", "embedding captions", "ranking texts"):
            assert (title in text) == shown


# -------------------------------------------------------------------------------------- zero-shot

LABELS = ("a cat", "a dog", "a tree")


def test_the_probabilities_of_each_picture_sum_to_one(nano, emoji):
    pictures = [picture for picture, _ in emoji]
    found = mh.zero_shot(nano, pictures, LABELS, ("{}", "a picture of {}"))
    assert found.shape == (len(pictures), 3)
    assert found.device.type == "cpu"
    assert not found.requires_grad
    assert (found >= 0).all()
    assert torch.allclose(found.sum(dim=1), torch.ones(len(pictures)))


def test_without_templates_it_is_the_softmax_of_scaled_cosines(nano, emoji):
    pictures = [picture for picture, _ in emoji]
    cosines = nano.encode_images(pictures) @ nano.encode_texts(LABELS).T
    expected = (nano.model.logit_scale.exp() * cosines).softmax(dim=1)
    assert torch.allclose(mh.zero_shot(nano, pictures, LABELS), expected, atol=1e-5)


def test_the_unit_vectors_of_the_templates_are_averaged_label_by_label(nano, emoji):
    pictures = [picture for picture, _ in emoji][:3]
    templates = ("{}", "an emoji of {}", "{}, drawn")
    centres = []
    for label in LABELS:
        texts = [template.format(label) for template in templates]
        vectors = F.normalize(nano.model.encode_text(nano.tokenizer(texts)), dim=1)
        centres.append(F.normalize(vectors.mean(dim=0), dim=0))
    cosines = nano.encode_images(pictures) @ torch.stack(centres).T
    expected = (nano.model.logit_scale.exp() * cosines).softmax(dim=1)
    found = mh.zero_shot(nano, pictures, LABELS, templates)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, mh.zero_shot(nano, pictures, LABELS), atol=1e-3)


def test_the_order_of_the_labels_is_the_order_of_the_columns(nano, emoji):
    pictures = [picture for picture, _ in emoji][:3]
    found = mh.zero_shot(nano, pictures, LABELS)
    turned = mh.zero_shot(nano, pictures, LABELS[::-1])
    assert torch.allclose(found, turned.flip(1), atol=1e-5)
    assert len(found.unique(dim=1)[0]) == 3


def test_a_label_may_hold_braces(nano, emoji):
    assert mh.zero_shot(nano, [emoji[0][0]], ["a {b}", "{}"], ["see {}"]).shape == (1, 2)


@pytest.mark.parametrize("labels", [[], ["a cat"]])
def test_fewer_than_two_labels_are_refused(nano, emoji, labels):
    with pytest.raises(ValueError, match="at least two labels"):
        mh.zero_shot(nano, [emoji[0][0]], labels)


def test_a_template_without_a_place_for_the_label_is_refused_by_name(nano, emoji):
    with pytest.raises(ValueError, match="'a picture'"):
        mh.zero_shot(nano, [emoji[0][0]], LABELS, ["{}", "a picture"])
