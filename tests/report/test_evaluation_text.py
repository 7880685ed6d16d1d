from tutelage.data.task import Metric, task_named
from tutelage.evaluation.scores import Evaluation
from tutelage.report.evaluation import evaluation_text


def test_every_score_has_a_line_with_its_title_and_unit():
    metrics = task_named("classification").metrics
    scores = {"accuracy": 0.5, "nll": 1.25, "total_uncertainty": 0.75}
    assert evaluation_text(Evaluation(scores=scores, metrics=metrics)).splitlines() == [
        "  accuracy            50.00 %",
        "  NLL                 1.250 nats",
        "  total uncertainty   0.7500 nats",
    ]


def test_a_score_against_foreign_data_names_them():
    metrics = {"foreign_auroc_total": Metric(title="AUROC by total uncertainty", unit="share", digits=1)}
    found = Evaluation(scores={"foreign_auroc_total": 0.91}, metrics=metrics)
    assert evaluation_text(found, "cifar100") == "  AUROC by total uncertainty, cifar100   91.0 %"
    assert evaluation_text(found) == "  AUROC by total uncertainty, foreign data   91.0 %"


def test_an_error_is_written_in_its_unit_and_lacks_none_of_its_digits():
    metrics = {"mae": Metric(title="mean absolute error", unit="metres", higher_is_better=False, digits=3)}
    assert evaluation_text(Evaluation(scores={"mae": 2.5}, metrics=metrics)) == "  mean absolute error   2.500 metres"


def test_a_score_that_nothing_describes_is_shown_by_its_name():
    assert evaluation_text(Evaluation(scores={"new_score": 0.5}, metrics={})) == "  new score   0.5000"


def test_without_scores_nothing_is_said():
    assert evaluation_text(Evaluation(scores={}, metrics={})) == ""
