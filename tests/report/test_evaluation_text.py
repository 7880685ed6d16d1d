from tutelage.evaluation.scores import Evaluation
from tutelage.report.evaluation import evaluation_text


def test_a_single_network_says_what_it_can():
    found = evaluation_text(Evaluation(accuracy=0.5, nll=1.25, ece=0.1, uncertainty={"total": 0.75}))
    assert "accuracy 50.00 %   NLL 1.2500   calibration error 10.00 %" in found
    assert "total 0.7500" in found
    assert "knowledge" not in found
    assert "rejection" not in found
    assert "AUROC" not in found


def test_an_ensemble_and_foreign_data_say_more():
    kinds = {"total": 0.75, "data": 0.5, "knowledge": 0.25}
    areas = {"total": 0.91, "data": 0.9, "knowledge": 0.925}
    found = Evaluation(accuracy=1, nll=0, ece=0, uncertainty=kinds, rejection=0.845, foreign_auroc=areas)
    text = evaluation_text(found, "cifar100")
    assert "total 0.7500   data 0.5000   knowledge 0.2500" in text
    assert "84.5 %" in text
    assert "cifar100 told apart (AUROC)   total 91.0 %   data 90.0 %   knowledge 92.5 %" in text
    assert "foreign data told apart" in evaluation_text(found)
