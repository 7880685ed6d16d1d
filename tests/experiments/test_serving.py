from typing import get_args

import pytest

from tutelage.data.offers import Offer
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice, parse_choice
from tutelage.experiments.serving import NEEDS, check_serves, left_out, why_not

EVERYTHING = frozenset(get_args(Offer))
MULTI_LABEL = frozenset({"targets", "answers", "sample-answers", "images"})
UNLABELLED = EVERYTHING - {"targets", "labels", "sample-labels"}


def test_every_offer_has_its_words():
    assert set(NEEDS) == EVERYTHING


@pytest.mark.parametrize("method", catalogue.names())
def test_labelled_images_serve_every_method(method):
    check_serves(parse_choice(method), EVERYTHING, data="digits")
    assert left_out(parse_choice(method), EVERYTHING) is None


@pytest.mark.parametrize("method", catalogue.names())
def test_nothing_is_refused_without_a_reason_and_a_way_out(method):
    choice = Choice(catalogue.get(method), {})
    if not choice.reads:
        check_serves(choice, frozenset(), data="mystery")
        return
    with pytest.raises(UserError, match=rf"{method} cannot train on mystery: it needs .*Methods that can: .*\bat\b"):
        check_serves(choice, frozenset(), data="mystery")


def test_the_reason_names_what_is_missing_and_nothing_else():
    with pytest.raises(UserError) as refused:
        check_serves(parse_choice("dkd"), MULTI_LABEL, data="voc (multi-label)")
    text = str(refused.value)
    assert "dkd cannot train on voc (multi-label): it needs scores of classes" in text
    assert "the right class" in text
    assert "targets" not in text
    assert " kd," in text
    assert " dkd," not in text


def test_an_option_may_ask_for_more():
    assert why_not(parse_choice("kd"), MULTI_LABEL) is None
    with pytest.raises(UserError, match=r"kd:standardize=True cannot .* the defaults do not"):
        check_serves(parse_choice("kd:standardize=true"), MULTI_LABEL, data="voc")
    assert why_not(parse_choice("unix"), UNLABELLED) is None
    assert why_not(parse_choice("unix:ce_weight=0.5"), UNLABELLED) == f"it needs {NEEDS['labels']}"
    assert why_not(parse_choice("fitnet"), frozenset()) is None
    assert why_not(parse_choice("fitnet:variant=paper"), frozenset()) == f"it needs {NEEDS['answers']}"


def test_a_wrapper_needs_what_its_method_needs():
    assert why_not(parse_choice("soft-randomization:method=at"), {"images"}) is None
    assert why_not(parse_choice("soft-randomization:method=dkd"), MULTI_LABEL) == why_not(
        parse_choice("dkd"), MULTI_LABEL
    )
    assert parse_choice("fickle-teacher").uses == {"targets"}
    assert parse_choice("messy-collaboration").reads == {"sample-labels", "answers"}


def test_what_is_done_without_is_told():
    told = left_out(parse_choice("kd"), UNLABELLED)
    assert told is not None
    assert "no targets, so kd trains without its supervised loss" in told
    assert left_out(parse_choice("simkd"), UNLABELLED) is None
