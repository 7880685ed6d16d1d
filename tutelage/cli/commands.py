"""The command line, generated from typed signatures and their docstrings. Nothing imports it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from tutelage.api import compare_into, distill_into, evaluate, predict, search_into
from tutelage.cli import flags as groups
from tutelage.cli import parser as arguments
from tutelage.cli.demo import demo_comparison
from tutelage.cli.flags import DataOptions, LearningDataOptions, NetworkOptions
from tutelage.cli.parser import parse
from tutelage.cli.requests import comparison_of, data_of, experiment_from
from tutelage.cli.words import asks_for_help, leading
from tutelage.core.registry import Entry
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.assembly import baseline_of, seeds_of
from tutelage.experiments.choice import Choice, check_options, parse_choice, without_flags
from tutelage.experiments.comparison import Comparison
from tutelage.experiments.doctor.page import examine
from tutelage.recording.planning import in_views
from tutelage.recording.writing import SETTINGS
from tutelage.recording.writing import record as recorded
from tutelage.report.console import render_table
from tutelage.report.evaluation import evaluation_text
from tutelage.report.html import write_report
from tutelage.report.reading import load as load_comparison
from tutelage.report.search import search_summary, search_table
from tutelage.report.verdict import verdict
from tutelage.searching.search import Search
from tutelage.searching.settings import SearchSettings
from tutelage.system.console import Terminal, screen
from tutelage.system.grammar import read
from tutelage.training.loggers import logged
from tutelage.training.run import MEMBERS
from tutelage.training.settings import Training

T = TypeVar("T")
Command = Callable[[Sequence[str]], None]


def demo(words: Sequence[str]) -> None:
    """See distillation at work: five methods, three seeds, real digits, two minutes.

    Trains a teacher on scikit-learn's 1,797 handwritten digits, then compares the plain student, label smoothing, KD
    and both Tf-KDs. Nothing is downloaded.

    Examples:
        tutelage demo
        tutelage demo --seeds 5 --out runs/my-demo
    """
    options = parse(demo, words, groups.DemoOptions)
    _compare(demo_comparison(Path(options.out), seeds=options.seeds, command=_typed("demo", words)))


def distill(words: Sequence[str]) -> None:
    """Train a student by one method, and save its weights and a report.

    Examples:
        tutelage distill kd --teacher timm:resnet34 --student resnet20 --data path/to/photos --epochs 30
        tutelage distill tf-kd-reg --student resnet20 --data cifar100 --temperature 20 --alpha 0.1
        tutelage distill kd --teacher runs/teacher --student tiny_cnn,width=16 --data digits --out runs/kd
        tutelage distill dml --student resnet20 mobilenetv2 --data cifar100
        tutelage distill at --teacher runs/vit --student resnet20 --data cifar10 --layers layer3:blocks.11
    """
    entry, rest = _method(distill, words)
    flags = (NetworkOptions, LearningDataOptions, groups.DistillOptions, Training)
    found = parse(distill, rest, *flags, entry=entry, after=entry.name, presets=True)
    choice = Choice(entry, check_options(entry, found.changed(entry.hyper_parameters)))
    training = found.make(Training)
    # The name alone, without options, folder and module: it becomes a part of a folder's name.
    student = found.student[0].partition(",")[0].rpartition("/")[2].rpartition(":")[2]
    default = f"runs/{entry.name}-{student}-{_place(found.data)}"
    comparison = comparison_of(found, [choice], training, folder=Path(found.out or default), seeds=[found.seed])
    title = f"{entry.title}: {found.data}"
    # Strict: if the only row fails, the command fails.
    comparison = replace(comparison, title=title, command=_typed("distill", words), strict=True)
    console, terminal = screen(), Terminal()
    reporter = logged(terminal, found.logger, comparison.folder)
    _drawing(terminal, lambda: distill_into(comparison, reporter))
    # Read back from the file that `distill_into` wrote.
    content = load_comparison(comparison.folder / "comparison.json")
    console.print(render_table(content, width=console.width))
    console.print(f"weights  {comparison.folder / 'student.safetensors'}", soft_wrap=True)
    for member in sorted((comparison.folder / MEMBERS).glob("*/student.safetensors")):
        console.print(f"         {member}", soft_wrap=True)
    console.print(f"report   {comparison.folder / 'report.html'}", soft_wrap=True)


def compare(words: Sequence[str]) -> None:
    """Compare methods over several seeds, with the plain student beside them.

    A row is a method, with options of its own if wanted. An interrupted comparison continues where it stopped; finished
    rows are never run again.

    Examples:
        tutelage compare supervised label-smoothing kd tf-kd-reg --student resnet20 --teacher runs/teacher --data cifar100 --seeds 3
        tutelage compare supervised de-kd:teacher_epochs=1 de-kd:teacher_epochs=5 --student resnet8 --teacher resnet20 --data fashion-mnist
        tutelage compare supervised supervised:loss_scale=0.0595 kd:temperature=20,alpha=0.95 --student resnet8 --teacher resnet20 --data cifar100
    """  # noqa: E501
    # Rows come before the flags, and the parser sees only what follows.
    rows = list(leading(words))
    flags = (NetworkOptions, LearningDataOptions, groups.CompareOptions, Training)
    found = parse(compare, words[len(rows) :], *flags, after="ROW...", presets=True)
    choices = [parse_choice(row) for row in rows]
    baseline = baseline_of(choices, found.baseline)
    training = found.make(Training)
    folder = Path(found.out or f"runs/compare-{_place(found.data)}")
    comparison = comparison_of(found, choices, training, folder=folder, seeds=seeds_of(found.seeds))
    _compare(
        replace(
            comparison,
            baseline=baseline,
            command=_typed("compare", words),
            flags=without_flags(
                words[len(rows) :],
                # `distill`, which repeats a row, has none of these flags but this one.
                (field.name for field in fields(groups.CompareOptions) if field.name != "teacher_epochs"),
            ),
            title=found.title or f"Distillation methods on {found.data}",
        ),
        found.logger,
    )


def evaluate_command(words: Sequence[str]) -> None:
    """Measure a network, or several as an ensemble, on a dataset: accuracy, likelihood, calibration, uncertainty.

    Examples:
        tutelage evaluate runs/kd --data cifar100
        tutelage evaluate runs/a runs/b runs/c --data cifar10 --foreign cifar100
        tutelage evaluate timm:resnet18.a1_in1k --data path/to/imagenet --split validation
        tutelage evaluate "nets.py:ResNet,depth=56,normalize=imagenet@weights.safetensors" --data cifar10
    """
    names = list(leading(words))
    if not names and not asks_for_help(words):
        raise UserError("Name a network, or several as an ensemble: tutelage evaluate NETWORK... --data DATA.")
    found = parse(evaluate_command, words[len(names) :], groups.EvaluateOptions, DataOptions, after="NETWORK...")
    scores = evaluate(names, data=data_of(found), split=found.split, trust_code=found.trust_code)
    text = f"{' + '.join(names)} on {found.data}, {found.split}:\n{evaluation_text(scores, found.foreign)}"
    screen().print(text, soft_wrap=True)


def predict_command(words: Sequence[str]) -> None:
    """Write what a network, or several as an ensemble, answers to images or texts without labels.

    Examples:
        tutelage predict runs/kd --data path/to/new-photos --out answers.csv
        tutelage predict runs/bert --data glue/cola --out CoLA.tsv
        tutelage predict runs/bert --data glue/mnli --split test-mismatched --out MNLI-mm.tsv
        tutelage predict runs/a runs/b runs/c --data path/to/reviews.csv,text=review --out answers.parquet
        tutelage predict runs/psp --data path/to/street --out masks
    """
    names = list(leading(words))
    if not names and not asks_for_help(words):
        raise UserError("Name a network, or several as an ensemble: tutelage predict NETWORK... --data DATA --out OUT.")
    found = parse(predict_command, words[len(names) :], groups.PredictOptions, after="NETWORK...")
    options = {name: getattr(found, name) for name in ("split", "task", "image_size", "overwrite", "trust_code")}
    answers = predict(names, data=found.data, out=found.out, **options)
    count = len(next(iter(answers.values())))
    screen().print(f"answers  {found.out}  ({count:,} samples)", soft_wrap=True)


def record(words: Sequence[str]) -> None:
    """Record a teacher's answers to views of the training images, to train later without the teacher.

    The same command continues after an interruption, repairs damaged parts, and adds views if --views is larger.

    Examples:
        tutelage record --teacher runs/teacher --data cifar100 --views 30 --out runs/recording
        tutelage record --teacher runs/one --data cifar10 --layers layer2+layer3 --values float16 --out runs/recording
        tutelage record --teacher timm:resnet50.a1_in1k --data path/to/imagenet --image-size 224 --augment resized-crop,flip --views 100 --keep top5 --part 1/4 --out runs/recording
        tutelage distill kd --teacher recording:runs/recording --student resnet20 --data cifar100
    """  # noqa: E501
    found = parse(record, words, groups.RecordOptions, groups.TrainingDataOptions)
    options = {
        name: getattr(found, name)
        for name in ("out", "teacher_classes", "views", "keep", "values", "part", "seed", "trust_code", *SETTINGS)
    }
    layers = found.layers.split("+") if found.layers else []
    recording = recorded(found.teacher, data=data_of(found, groups.TrainingDataOptions), layers=layers, **options)
    views = (
        "no view is finished: other parts are still to be recorded" if recording is None else in_views(recording.views)
    )
    screen().print(f"recording  {found.out}  ({views})", soft_wrap=True)


def search(words: Sequence[str]) -> None:
    """Look for a student in a space of networks, by scores that need no training.

    Leaves the best networks with their scores; found:OUT names the best one, and trains like any other.

    Examples:
        tutelage search --teacher resnet110 --data cifar100 --space s0 --limit params=0.5M,multiply_adds=70M --out runs/search
        tutelage search --teacher timm:vit_small_patch16_224 --data path/to/photos --image-size 224 --space "timm:vit_tiny_patch16_224,depth=4..12,embed_dim=96|192" --score diswot:variant=paper --out runs/vits
        tutelage search --data digits --space "nets.py:Net,width=8|16|32,depth=2..6" --score parameters --limit params=100k
        tutelage distill kd --teacher runs/teacher --student found:runs/search --data cifar100
    """  # noqa: E501
    found = parse(search, words, groups.SearchOptions, SearchSettings, groups.TrainingDataOptions)
    wanted = Search.of(
        found.space,
        found.teacher,
        data_of(found, groups.TrainingDataOptions),
        found.make(SearchSettings),
        folder=Path(found.out),
        command=_typed("search", words),
        trust_code=found.trust_code,
    )
    terminal, console = Terminal(), screen()
    content = _drawing(terminal, lambda: search_into(wanted, terminal))
    console.print(search_table(content))
    console.print(search_summary(content), soft_wrap=True)
    console.print(f"page     {wanted.folder / 'search.html'}", soft_wrap=True)
    console.print(f"student  found:{wanted.folder}", soft_wrap=True)


def report(words: Sequence[str]) -> None:
    """Write the HTML report of a comparison or a run again.

    Examples:
        tutelage report runs/demo
        tutelage report runs/demo --out demo.html
    """
    names = list(leading(words))
    found = parse(report, words[len(names) :], groups.ReportOptions, after="FOLDER")
    if len(names) != 1:
        raise UserError("Name one folder or comparison.json: tutelage report runs/demo.")
    source = Path(names[0])
    file = source / "comparison.json" if source.is_dir() else source
    if not file.exists():
        raise UserError(f"There is no comparison at {file}. Name the folder that `tutelage compare` wrote.")
    print(write_report(load_comparison(file), Path(found.out or file.with_name("report.html"))))


def doctor(words: Sequence[str]) -> None:
    """Find problems before hours are spent: teacher, shapes, loss scales, time, memory.

    Examples:
        tutelage doctor kd --teacher runs/teacher --student resnet20 --data cifar100 --epochs 200
    """
    entry, rest = _method(doctor, words)
    found = parse(
        doctor, rest, NetworkOptions, LearningDataOptions, Training, entry=entry, after=entry.name, presets=True
    )
    choice = Choice(entry, check_options(entry, found.changed(entry.hyper_parameters)))
    screen().print(examine(choice, experiment_from(found), found.make(Training)))


def _compare(comparison: Comparison, loggers: Sequence[str] = ()) -> None:
    # For a bar over all cells.
    terminal = Terminal(plan=len(comparison.choices) * len(comparison.seeds))
    reporter = logged(terminal, loggers, comparison.folder)
    content = _drawing(terminal, lambda: compare_into(comparison, reporter))
    console = screen()
    console.print(render_table(content, width=console.width))
    console.print(verdict(content))
    console.print(f"report  {comparison.folder / 'report.html'}", soft_wrap=True)


def _place(data: str) -> str:
    """Return the last part of where data are, for the name of a folder."""
    return Path(read(data, kind="data", is_place=True).name).name


def _drawing(terminal: Terminal, work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        terminal.close()


def _method(command: Command, words: Sequence[str]) -> tuple[Entry, Sequence[str]]:
    names = list(leading(words))
    if not names:
        if not asks_for_help(words):
            raise UserError(f"Name a method first, one of: {', '.join(catalogue.names())}.")
        print(arguments.help_of(command, after="METHOD"))
        print(f"\nMethods: {', '.join(catalogue.names())}.\nFlags: tutelage {command.__name__} kd --help")
        # The help of a command without a method: flags depend on the method, so none are listed.
        raise SystemExit(0)
    return catalogue.get(names[0]), words[1:]


def _typed(command: str, words: Sequence[str]) -> str:
    return shlex.join(["tutelage", command, *words])
