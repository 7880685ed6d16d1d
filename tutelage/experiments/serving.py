"""Which methods serve which data, and in which words the others are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import get_args

from tutelage.data.task import Offer
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice

NEEDS: Mapping[Offer, str] = {
    "targets": "targets to learn from",
    "answers": "answers of two networks that can be compared",
    "sample-answers": "one answer for each whole sample, not a map of answers",
    "classes": "scores of classes, of which a softmax makes probabilities",
    "labels": "the right class of each sample or place",
    "sample-labels": "one class for each whole sample",
    "images": "images",
}
"""What each offer is called in a sentence that begins with "it needs"."""


def why_not(choice: Choice, offers: Collection[Offer]) -> str | None:
    """Return why a method cannot train on data that offer this much, as half a sentence; None if it can."""
    lacking = choice.reads - set(offers)
    return needing(lacking) if lacking else None


def needing(offers: Collection[Offer]) -> str:
    """Return that a method needs some offers, as half a sentence."""
    return f"it needs {'; and '.join(NEEDS[offer] for offer in get_args(Offer) if offer in offers)}"


def check_serves(choice: Choice, offers: Collection[Offer], *, data: str) -> None:
    """Refuse a method that reads what the data do not offer.

    Args:
        choice: The method and its hyper-parameters.
        offers: What the data offer.
        data: What a message calls the data, such as `voc (multi-label)`.

    Raises:
        UserError: If it does, with what is missing and the methods that can train on such data.
    """
    why = why_not(choice, offers)
    if why is None:
        return
    others = [entry.name for entry in catalogue.entries() if why_not(Choice(entry, {}), offers) is None]
    # With its defaults it may need less.
    hint = " Its options ask for that: the defaults do not." if choice.entry.name in others else ""
    instead = f" Methods that can: {', '.join(others)}." if others else ""
    raise UserError(f"{choice.label} cannot train on {data}: {why}, which these data do not have.{hint}{instead}")


def left_out(choice: Choice, offers: Collection[Offer]) -> str | None:
    """Return what a method does without on data that offer this much, as a sentence; None if it misses nothing."""
    if choice.inner is not None:
        return left_out(choice.inner, offers)
    if "targets" not in choice.entry.uses - set(offers):
        return None
    return f"The data have no targets, so {choice.label} trains without its supervised loss: on the teacher alone."
