"""Exercises of notebook 00: what eight pictures say, and what an adapter belongs to."""

from __future__ import annotations

from .questions import Question, Wrong

EIGHT = Question(
    id="00.1",
    title="Other pictures",
    difficulty=1,
    minutes=3,
    asks="""
Take another seed in the cell that shows both looks (section 4), run the notebook again from
there, and
compare the picture of the answers with the table. The picture shows eight pictures. In steps of how
many percentage points can the share of right answers among them change?
""",
    stub="answer = None  # a number",
    right=12.5,
    hint_text="One picture more or less is right. Which share of all of them is that?",
    remark="""
The picture of the answers changes from seed to seed, and so does the impression that it gives. The
table does not change at all: it uses every picture of the split. Believe the table.
""",
    mistakes=(
        Wrong("a share instead of points", "That is the share. Asked are points.", 0.125),
        Wrong("the number of pictures", "That is how many pictures there are.", 8),
        Wrong("one point", "One point is one picture of a hundred. There are eight here.", 1),
        Wrong("ten points", "That would be one picture of ten.", 10),
        Wrong("two pictures", "That is two pictures of eight. What does one make?", 25),
        Wrong("half a picture", "That is half a picture.", 6.25),
        Wrong(
            "the whole split", "That is one picture of the whole split. Asked are eight.", 100 / 823
        ),
    ),
)

STRANGER = Question(
    id="00.2",
    title="The wrong model",
    difficulty=1,
    minutes=5,
    asks="""
An adapter is a *correction* to particular weights. Find out what happens when you load this one
into each of these models. `stranger = mh.load_model(MODEL, pretrained="random")` builds the same
layers with random weights. A loader that checks shapes only is PEFT's own:
`PeftModel.from_pretrained(stranger.model, adapter)`, after `from peft import PeftModel`; what it
reads then, `mh.evaluate(stranger, new)` says.
""",
    stub="""
answer = {
    "the model that it was made for": "?",
    "the same layers, random weights": "?",
    "the same layers, random weights, by a loader that checks shapes only": "?",
}
""",
    right={
        "the model that it was made for": "works",
        "the same layers, random weights": "refused",
        "the same layers, random weights, by a loader that checks shapes only": "nonsense",
    },
    choices={
        "works": "it loads, and reads the new look",
        "refused": "it is not loaded, and the error says why",
        "nonsense": "it loads without an error, and its answers mean nothing",
        "no effect": "it loads, and the model is as before",
    },
    hint_text="""
`mh.load_adapter(stranger.model, adapter)` is the loader of this series. Build the stranger anew
before you try the other one. What would the shapes alone say?
""",
    remark="""
The adapter's folder holds the name of the model that it was made for and a fingerprint of its
weights, and the loader compares them. Without that check all shapes would fit.
""",
    mistakes=(
        Wrong(
            "the right model thought to refuse",
            "This notebook does it: look at section 4.",
            "refused",
            "the model that it was made for",
        ),
        Wrong(
            "the right model thought to be unchanged",
            "The table of section 4 has two columns, before and after.",
            "no effect",
            "the model that it was made for",
        ),
        Wrong(
            "the stranger thought to work",
            "Try it: the loader looks at more than shapes.",
            "works",
            "the same layers, random weights",
        ),
        Wrong(
            "the stranger thought to give nonsense",
            "It would, if it were loaded. Try it.",
            "nonsense",
            "the same layers, random weights",
        ),
        Wrong(
            "the stranger thought to be unchanged",
            "As before it would be if the call returned. Does it?",
            "no effect",
            "the same layers, random weights",
        ),
        Wrong(
            "shapes thought to be enough",
            "The correction fits in shape. Was it made for these weights?",
            "works",
            "the same layers, random weights, by a loader that checks shapes only",
        ),
        Wrong(
            "shapes thought to tell weights apart",
            "All shapes are the same here. What would such a loader notice?",
            "refused",
            "the same layers, random weights, by a loader that checks shapes only",
        ),
        Wrong(
            "a correction thought to vanish",
            "The correction is added to whatever weights are there. Is that nothing?",
            "no effect",
            "the same layers, random weights, by a loader that checks shapes only",
        ),
    ),
)

EXERCISES = (EIGHT, STRANGER)
