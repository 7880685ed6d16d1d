"""Data from what a user passes: a name or path, a dataset or loader, or `Data` themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from tutelage.data.dataset import Data
from tutelage.data.joined import with_unlabelled
from tutelage.data.judging import judged
from tutelage.data.novel import TASK, Novel, with_novel
from tutelage.data.ood import foreign_data
from tutelage.data.sources import load_data
from tutelage.data.tested import with_test
from tutelage.data.wrap import as_data
from tutelage.errors import UserError

DataSource = str | Data | Dataset[Any] | DataLoader[Any]


def resolve_data(
    data: DataSource,
    *,
    validation: DataSource | float | None = None,
    test: DataSource | None = None,
    task: str = "classification",
    metric: str | None = None,
    foreign: DataSource | None = None,
    unlabelled: DataSource | None = None,
    novel: Novel | None = None,
    augment: str | None = None,
    **options: Any,
) -> Data:
    """Return data by name, path or object, with their splits.

    Args:
        data: Data to train on.
        validation: Validation data, or the share of the training data to hold out for validation.
        test: Test data. Beside data by name it is a name or `Data` too, whose test split is taken.
        task: The task's name, which says how targets are read. Ignored for `Data`, which have a task already.
        metric: The metric that chooses the epoch and compares rows, such as `mcc`; further ones to measure follow after
            `+`. None for the usual one of the task, or of the data where they are known.
        foreign: Data of another dataset, which the network's uncertainty should distinguish from the test images.
        unlabelled: Images without labels that are trained on beside the labelled ones.
        novel: The number of novel classes, or their names, for the task `discovery`: see `with_novel`.
        augment: The augmentation of training images; None for the usual one, which is none for datasets and loaders.
        **options: Further arguments of `tutelage.data.sources.load_data`, used if `data` is a name or path.

    Raises:
        UserError: If splits or an augmentation are given beside data that bring their own, or it is not said which
            classes are novel.
    """
    if isinstance(data, Data) and augment is not None:
        raise UserError("These data are already loaded, with their augmentation: pass augment= to load_data instead.")
    is_ready = isinstance(data, Data) and data.task.known > 0 and novel is None
    if (task == TASK or novel is not None) and not is_ready:
        if foreign is not None or metric is not None:
            raise UserError(f"The task {TASK} has neither foreign data nor other metrics: leave out both options.")
        options |= {"task": task, "test": test, "augment": augment}
        return _discovered(data, novel, validation, unlabelled, options)
    found = _own_data(data, validation, test, {"augment": augment, "task": task, "metric": metric, **options})
    if metric is not None and not isinstance(data, str):
        found = judged(found, metric)
    found = found if unlabelled is None else with_unlabelled(found, unlabelled)
    return found if foreign is None else replace(found, foreign=foreign_data(foreign, found))


def _own_data(
    data: DataSource, validation: DataSource | float | None, test: DataSource | None, options: dict[str, Any]
) -> Data:
    # A number is a share of the training data; anything else is data.
    is_share = isinstance(validation, int | float)
    if isinstance(data, str) and isinstance(test, str | Data) and (is_share or validation is None):
        # Nothing is held out for a test that others are for.
        own = _own_data(data, validation, None, {**options, "hold_out_test": False})
        return with_test(own, test)
    if isinstance(data, str | Data) and (test is not None or not (is_share or validation is None)):
        raise UserError(
            "validation= and test= take datasets only beside a dataset or loader; data given by name have splits of "
            "their own, and test= names data with a test split."
        )
    if isinstance(validation, int | float):
        return _with_share(data, validation, test, options)
    if isinstance(data, str | Data):
        return data if isinstance(data, Data) else load_data(data, **options)
    return as_data(data, validation, test, task=options["task"], augment=options["augment"])


def _with_share(data: DataSource, share: float, test: DataSource | None, options: dict[str, Any]) -> Data:
    if isinstance(data, Data | DataLoader):
        kind = "data that are already split" if isinstance(data, Data) else "a DataLoader"
        raise UserError(f"validation={share:g} cannot be held out of {kind}: pass validation data.")
    if isinstance(data, str):
        return load_data(data, validation=share, **options)
    return as_data(data, None, test, hold_out=share, task=options["task"], augment=options["augment"])


def _discovered(
    data: DataSource,
    novel: Novel | None,
    validation: DataSource | float | None,
    unlabelled: DataSource | None,
    options: dict[str, Any],
) -> Data:
    """Return data with known and novel classes."""
    if options["task"] not in (TASK, "classification"):
        raise UserError(
            f"Novel classes are for the task {TASK}, and the task is {options['task']}: choose --task {TASK}, or leave "
            "out --novel."
        )
    if novel is None:
        raise UserError(
            f"The task {TASK} looks for novel classes: say how many there are, or which labels to hide (--novel 5, "
            "--novel cat+dog)."
        )
    is_share = isinstance(validation, int | float)
    share = options.pop("validation", validation if is_share else 0.1)
    test, given = options.pop("test"), None if is_share else validation
    if isinstance(data, str | Data):
        if test is not None or given is not None:
            raise UserError("validation= and test= take data only beside a dataset; data given by name have their own.")
        # The labels are read as those of a classification. Validation samples are chosen later, by known classes alone.
        options |= {"task": "classification", "validation": 0}
        found = data if isinstance(data, Data) else load_data(data, **options)
    else:
        found = as_data(data, given, test, hold_out=0, task=TASK, augment=options["augment"])
    found = found if unlabelled is None else with_unlabelled(found, unlabelled)
    return with_novel(found, novel, validation=share, seed=options.get("split_seed", 0))
