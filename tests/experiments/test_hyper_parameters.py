from jsonargparse import ArgumentParser

from tutelage.experiments import catalogue
from tutelage.experiments.hyper_parameters import add_hyper_parameters


def test_flags_show_hyper_parameters_and_no_fixture():
    parser = ArgumentParser(exit_on_error=False)
    add_hyper_parameters(parser, catalogue.get("tf-kd-reg"))
    text = parser.format_help()
    assert "hyper-parameters of tf-kd-reg" in text
    assert "--temperature" in text
    assert "--student" not in text
    assert "--num_classes" not in text
