"""UNO: the baseline of CR-KD. Its losses: parts/test_open_losses.py."""

from tutelage.experiments import catalogue
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import met


def test_it_has_the_options_of_cr_kd_without_those_of_the_relation():
    uno, cr_kd = (catalogue.get(name).hyper_parameters for name in ("uno", "cr-kd"))
    assert cr_kd == {"alpha": 0.1, "relation_temperature": 4.0, **uno}


def test_it_asks_no_snapshot():
    method = met(catalogue.get("uno"), KINDS["discovery"].experiment(), {"hidden": 8}).methods["distill"]
    assert method.snapshot is None
    assert method.weights == {}
