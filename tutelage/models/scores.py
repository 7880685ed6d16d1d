"""Whether a network answers with scores, as losses and metrics read them, or with the probabilities made of them."""

from __future__ import annotations

from torch import Tensor

from tutelage.data.task import Task
from tutelage.errors import UserError, notice


def check_scores(answer: Tensor, task: Task, *, who: str) -> None:
    """Refuse to train with answers that are no numbers, or were put through a softmax or a sigmoid already.

    Args:
        answer: The answer to some samples, in the task's shape.
        task: The task of the data.
        who: What the message calls the network.

    Raises:
        UserError: If the values are no scores.
    """
    if bool(answer.isnan().any()):
        raise UserError(
            f"The {who} answers with NaN before anything is trained: look for NaN in its weights and in the first "
            "samples of the data. Weights end so where a training broke down."
        )
    if (what := task.mistaken(answer)) is not None:
        raise UserError(f"The {who} answers with {what}.")


def tell_scores(answer: Tensor, task: Task, *, who: str) -> None:
    """Tell that a network which is only measured answers with something else than scores.

    Args:
        answer: The answer to some samples, in the task's shape.
        task: The task of the data.
        who: What the notice calls the network.
    """
    if (what := task.mistaken(answer)) is not None:
        notice(f"The {who} answers with {what}. Metrics that read probabilities are not right as they are.")
