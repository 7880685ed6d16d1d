"""How often the networks run while a method is built: once for all questions, and once more where they are checked."""

from collections import Counter

import pytest
from torch import nn

from tutelage.experiments import catalogue
from tutelage.testing.toys import STUDENT_WIDTH, TEACHER_WIDTH, ToyNetwork, methods_of, toy_experiment

# Passes of all students: the first is to see whether a network takes the data, the second whether it can learn (in
# training mode, with a gradient), and the last whether it answers as the task asks for. And passes of the teacher, one
# of them for each training that reads its answers, to see whether they are what the task asks for.
PASSES = {
    "kd": (3, 1),
    **dict.fromkeys(("at", "sp", "vid", "fitnet", "srrl", "crd"), (4, 1)),
    "semckd": (4, 2),
    # What the teacher's maps are like is looked at, and it answers in both trainings.
    "ksanc": (4, 4),
    # The codebook takes one pass of the training images.
    "quest": (4, 2),
    # A copy with the projector is tried, and what came of the student is looked at.
    "simkd": (6, 1),
    # The exit is compared, as a network of its own that ends there, with what the whole network says there.
    "byot": (6, 0),
    "msd": (6, 0),
    # Three networks.
    "afd": (12, 0),
}


@pytest.fixture
def passes():
    """How often networks of each width ran."""
    count = Counter()

    def note(module, _):
        if isinstance(module, ToyNetwork):
            count[len(next(module.parameters()))] += 1

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    yield count
    handle.remove()


@pytest.mark.parametrize("name", PASSES)
def test_each_network_runs_once_for_all_that_is_asked_of_it(name, passes):
    methods_of(catalogue.get(name), toy_experiment())
    teacher = passes.pop(TEACHER_WIDTH, 0)
    assert (passes.total(), teacher) == PASSES[name]


def test_fsp_looks_once_at_each_of_two_networks_of_one_width(passes):
    methods_of(catalogue.get("fsp"), toy_experiment(teacher_width=STUDENT_WIDTH))
    # Student checked in both modes, both traced, the student with gradients, which say what lies below the sections,
    # and the answers of its two trainings looked at.
    assert passes == {STUDENT_WIDTH: 7}
