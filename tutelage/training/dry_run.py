"""A run that trains nothing and writes nothing: it visits a recipe's stages one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tutelage.core.method import Method
from tutelage.data.dataset import Data
from tutelage.models.copies import copy_of
from tutelage.system import chance
from tutelage.training.run import Keep, Run, check_predictions, check_teachers, replayed
from tutelage.training.settings import Course, Training
from tutelage.training.state import Stop

T = TypeVar("T")


class DryRun(Run):
    """Builds the methods and networks of a recipe, and returns the networks untrained.

    Args:
        training: The settings.
    """

    def __init__(self, training: Training) -> None:
        # The folder is never used, because nothing is written.
        super().__init__(Path(), training)

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Look at a method that a real run would train now. Does nothing; subclasses override it."""

    def fit(
        self,
        name: str,
        method: Method,
        data: Data,
        *,
        epochs: int | None = None,
        stop: Stop | None = None,
        keep: Keep | None = None,
        schedule: Course | None = None,
    ) -> nn.Module:
        """Check the method, pass it to `meet`, and return its network.

        Raises:
            UserError: If a network's answers do not have the shape that the data's task asks for.
        """
        method = self.wrap(method)
        check_teachers(method, data)
        check_predictions(method, data)
        if epochs != 0:
            self.meet(name, method, replayed(method, data), epochs=epochs, stop=stop)
        # A copy, because the next stage may freeze or train it.
        return copy_of(method.to("cpu").export()).eval()

    def stage(self, name: str, make: Callable[[], T], *, rehearse: Callable[[], T] | None = None, **identity: Any) -> T:
        """Make an artefact without storing it; `rehearse`, if given, makes a quick substitute."""
        chance.seed_everything(self.seed_of(name))
        return (rehearse or make)()

    def evaluate(self, name: str, network: nn.Module, data: Data, *, split: str = "test") -> dict[str, float]:
        """Return no scores: nothing was trained, so there is nothing to measure."""
        return {}
