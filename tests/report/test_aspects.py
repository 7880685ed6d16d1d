"""Single aspects of a comparison as tables."""

from tutelage.report.aspects import answer_costs
from tutelage.report.charts.classification import uncertainties


def summary(**metrics):
    return {key: {"mean": value, "std": 0.01, "n": 3} for key, value in metrics.items()}


def comparison():
    exits = {"name": "exit-1", "multiply_adds": 5e6, "best": summary(test_accuracy=0.4, test_nll=2.0), "last": {}}
    byot = {"best": summary(test_accuracy=0.6, test_nll=1.0), "members": [exits]}
    endd = {"best": summary(test_accuracy=0.7, test_knowledge_uncertainty=0.25, foreign_auroc_total=0.8)}
    rows = [
        {"label": "byot", "multiply_adds": 2e7, "summary": byot, "runs": [{}]},
        {"label": "endd", "multiply_adds": 2e7, "summary": endd, "runs": [{}]},
    ]
    teacher = {"test_accuracy": 0.75, "foreign_auroc_knowledge": 0.9}
    return {"rows": rows, "baseline": "byot", "teacher": teacher}


def test_every_network_has_its_cost():
    lines = answer_costs(comparison(), others=["nll"]).splitlines()
    assert lines[0] == "| Network | Multiply-adds | Accuracy % | NLL (nats) |"
    assert "| `byot` deployed | 20 M | 60.00 ± 1.00 | 1.000 |" in lines
    assert "| `byot` exit-1 | 5 M | 40.00 ± 1.00 | 2.000 |" in lines
    assert "| `endd` | 20 M | 70.00 ± 1.00 | – |" in lines


def test_uncertainty_of_rows_and_of_the_ensemble_that_taught_them():
    lines = uncertainties(comparison()).splitlines()
    assert lines[2] == "| the teachers' ensemble | 25.00 | – | – | – | – | – | 0.900 |"
    assert lines[4] == "| `endd` | 30.00 | – | – | 0.250 | – | 0.800 | – |"
