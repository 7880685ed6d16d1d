"""The command that writes a trained network to files for other libraries."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tutelage.api import export
from tutelage.cli.flags import DataOptions, ExportOptions
from tutelage.cli.parser import parse
from tutelage.cli.requests import data_of
from tutelage.cli.words import asks_for_help, leading
from tutelage.data.task import Task
from tutelage.errors import UserError
from tutelage.exporting.verification import BATCHES, Verified
from tutelage.report.wording import as_value
from tutelage.system.console import screen


def export_command(words: Sequence[str]) -> None:
    """Write a trained network to files that run without Tutelage, checked and scored on real samples.

    Inputs are normalised within the file: give it images in [0, 1]. Batches may have any size.

    Examples:
        tutelage export runs/kd --to onnx --data cifar100
        tutelage export runs/kd --to onnx+onnx-int8+openvino+pt2 --data cifar100
        tutelage export runs/vit --to timm --data path/to/photos --out vit-for-timm
    """
    names = list(leading(words))
    if len(names) != 1 and not asks_for_help(words):
        raise UserError("Name one network: tutelage export runs/kd --to onnx --data DATA.")
    found = parse(export_command, words[len(names) :], ExportOptions, DataOptions, after="NETWORK")
    data = data_of(found)
    exported = export(names[0], to=found.to, data=data, out=found.out, split=found.split, trust_code=found.trust_code)
    screen().print(table(list(exported.values()), data.task))
    place = found.out or f"{names[0]}/export"
    screen().print(f"files    {place}: {', '.join(one.file for one in exported.values())}", soft_wrap=True)


def table(found: Sequence[Verified], task: Task) -> Table:
    """Return a row for each file, and one for the network as PyTorch runs it.

    Args:
        found: What was found out about the files.
        task: The task, whose primary metric is shown.
    """
    metric = task.metrics[task.primary]
    made = Table(box=None, pad_edge=False)
    made.add_column("File")
    for title in (f"{found[0].split} {metric.title}", "largest difference", "equal answers", "size"):
        made.add_column(title, justify="right")
    for size in BATCHES:
        made.add_column(f"ms, batch {size}", justify="right")
    first = found[0]
    score = first.network_scores[task.primary]
    eager = [f"{first.network_latency[size]:.2f}" for size in BATCHES]
    made.add_row("the network", as_value(score, metric.fitted([score])), "", "", "", *eager)
    for one in found:
        score = one.scores[task.primary]
        taken = [f"{one.latency[size]:.2f}" for size in BATCHES]
        numbers = (f"{one.largest_difference:.2g}", f"{100 * one.agreement:.2f} %", f"{one.size / 2**20:.2f} MiB")
        made.add_row(one.file, as_value(score, metric.fitted([score])), *numbers, *taken)
    return made
