"""A comparison in words: what to begin with, and how sure that is."""

from __future__ import annotations

from .result import Comparison, recommend


def advice(comparison: Comparison) -> str:
    """Which way to take, with the differences that say so and their intervals of 95 %."""
    found, pictures = recommend(comparison), len(comparison.base.new)
    best, way = found.best, found.way
    if way is None:
        width = max(100 * (found.gain.high - found.gain.low) / 2, 100 / pictures)
        return (
            f"Keep the model as it is for now: none of these ways is surely better. The best, "
            f"{best}, is at {found.gain} beside it, and a test of {pictures} pictures can't see "
            f"less than about {width:.0f} points. Look at your pictures first (notebook 06), and "
            f"collect more of them."
        )
    lines = [f"Begin with: {way}. R@1 {comparison.gain(way)} more than the base, which is sure."]
    if way != best:
        lines.append(
            f"{best} did best in this test, by {comparison.gain(best, way)}: zero is in that "
            f"interval, so {pictures} pictures can't tell the two apart, and {way} costs less."
        )
    free = "batch norm"
    if way != free and free in comparison.runs and (alone := comparison.gain(free)).low > 0:
        lines.append(f"{free} alone, without any training, is worth {alone}.")
    worse = [w for w in comparison.runs if comparison.gain(way, w).low > 0]
    if worse:
        lines.append(f"Surely worse than {way}: {'; '.join(worse)}.")
    if comparison.base.kept:
        lost = comparison.loss_of_old(way)
        lines.append(
            f"With {way} the model forgets {lost} of what it knew"
            + ("." if lost.is_sure else ", if any.")
        )
    else:
        lines.append("No known pictures were given, so nothing tells what it forgets.")
    return "\n".join(lines)
