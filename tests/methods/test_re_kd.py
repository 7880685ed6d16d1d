from tutelage.experiments import catalogue
from tutelage.methods.kd import KD
from tutelage.methods.re_kd import re_kd
from tutelage.methods.supervised import Supervised


def test_the_student_teaches_the_teacher(run, make, without_test):
    parts = {"student": [], "teacher": []}

    def maker(kind):
        def build(part):
            network = make(part)
            parts[kind].append(network)
            return network

        return build

    network = re_kd(run, maker("student"), maker("teacher"), without_test, temperature=20.0, alpha=0.6)
    first, second = run.fits
    assert isinstance(first.method, Supervised)
    assert first.method.export() is parts["student"][0]
    assert isinstance(second.method, KD)
    assert second.method.teacher.network is parts["student"][0]
    assert network is parts["teacher"][0]
    assert not any(parameter.requires_grad for parameter in parts["student"][0].parameters())
    assert (second.method.temperature, second.method.weights["kd"]) == (20.0, 0.6)
    assert catalogue.get("re-kd").trains == "teacher"
