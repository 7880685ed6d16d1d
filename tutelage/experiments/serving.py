"""Which methods can train on which data, and the messages that refuse the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import get_args

from tutelage.data.offers import Offer
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice

NEEDS: Mapping[Offer, str] = {
    "targets": "labels or other targets to learn from",
    "answers": "answers of two networks that can be compared",
    "sample-answers": "one answer for each whole sample, not a map of answers",
    "maps": "an answer at each place of an image",
    "next-tokens": "an answer at each token of a text",
    "classes": "scores of classes that a softmax turns into probabilities",
    "labels": "the right class of each sample or place",
    "sample-labels": "one class for each whole sample",
    "images": "images",
    "tokens": "texts",
    "novel": "unlabelled samples of novel classes beside labelled ones (--task discovery)",
}
"""Each offer's words in a sentence that begins with "it needs"."""


def why_not(choice: Choice, offers: Collection[Offer]) -> str | None:
    """Return why a method cannot train on data with these offers, as half a sentence; None if it can."""
    # What a method only uses where it is there does not count.
    lacking = choice.reads - set(offers)
    return needing(lacking) if lacking else None


def needing(offers: Collection[Offer]) -> str:
    """Return half a sentence that says that a method needs some offers."""
    return f"it needs {'; and '.join(NEEDS[offer] for offer in get_args(Offer) if offer in offers)}"


def check_serves(choice: Choice, offers: Collection[Offer], *, data: str) -> None:
    """Refuse a method that needs something that the data do not offer.

    Args:
        choice: The method and its hyper-parameters.
        offers: The offers of the data.
        data: The data's name in messages, such as `voc (multi-label)`.

    Raises:
        UserError: If something is missing. The message names it, and the methods that can train on such data.
    """
    why = why_not(choice, offers)
    if why is None:
        return
    others = [entry.name for entry in catalogue.entries() if why_not(Choice(entry, {}), offers) is None]
    # With its default options, the method may need less.
    hint = " Its options ask for that: the defaults do not." if choice.entry.name in others else ""
    instead = f" Methods that can: {', '.join(others)}." if others else ""
    raise UserError(f"{choice.label} cannot train on {data}: {why}, which these data do not have.{hint}{instead}")


def left_out(choice: Choice, offers: Collection[Offer]) -> str | None:
    """Return a sentence about a loss that a method leaves out on data with these offers; None if it leaves out none."""
    if choice.inner is not None:
        return left_out(choice.inner, offers)
    if "targets" not in choice.entry.uses - set(offers):
        return None
    return f"The data have no targets, so {choice.label} trains without its supervised loss: on the teacher alone."
