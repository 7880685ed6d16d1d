"""The first stage of discovery: a network with prototypes learns the known classes from their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from tutelage.core.method import Method, Progress, Update
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.novel import known_only
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.methods.parts.prototypes import attach_prototypes, head_of
from tutelage.training.run import Run


class KnownClasses(Method):
    """Trains a network that ends in prototypes on labels.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.student = FeatureExtractor(network)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the cross-entropy as `ce`, and renormalise the prototypes after the step."""
        yield Update({"ce": batch.loss(self.student(batch.inputs).logits)})
        head_of(self.student.model)[1].renormalise()


class Snapshot(Teacher):
    """A network of the known classes as the first stage left it.

    Args:
        network: The network; it is frozen in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(network)

    def check_answers(self, data: Data) -> None:
        """Check nothing: it answers for the known classes alone, as it should."""

    def forward(self, batch: Batch) -> Output:
        """Return the network's logits."""
        output: Output = self.extractor(batch.inputs)
        return output


def learn_known(
    run: Run, make_student: Callable[[], nn.Module], data: Data, example: Any, *, temperature: float, epochs: int
) -> nn.Module:
    """Return a network that has learned the known classes: the stage `known` of a run.

    Args:
        run: The run.
        make_student: Makes the network.
        data: Data with novel classes, which have no part in this stage.
        example: Inputs for one forward pass.
        temperature: Divides the cosines with the prototypes.
        epochs: Epochs of this stage; 0 for as many as the run has.

    Raises:
        UserError: If a number is out of its range, or the network's classifier cannot be found.
    """
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
    if epochs < 0:
        raise UserError(f"known_epochs={epochs} must be 0 (as many as the run has) or more.")
    network = make_student()
    attach_prototypes(network, example, classes=data.task.known, temperature=temperature)
    return run.fit("known", KnownClasses(network), known_only(data), epochs=epochs or None)
