"""The flags of the commands, in groups: names, types, defaults, and the words of the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tutelage.core.teachers.combining import How
from tutelage.training.settings import Switch


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Networks.

    Attributes:
        student: Network to train: a name (resnet20), timm:NAME, torchvision:NAME, package.module:factory,
            file.py:factory or a run's folder; options follow after commas, weights after @. Several, one after the
            other, for methods that train several.
        teacher: Network that teaches, named in the same way. One that comes without weights is trained first. Several
            answer as an ensemble. recording:PATH replays what `tutelage record` wrote, recording:PATH,views=4 the first
            four views of it. http://HOST:PORT/v2/models/NAME asks a server, such as `tutelage serve`, and stores every
            answer. file:answers.parquet takes answers from a table.
        teacher_classes: File that maps the classes of a trained teacher to the data's, if they differ: lines 'class of
            the teacher -> class of the data', by name or number; or JSON, or CSV.
        teachers: How several teachers answer together: mean (of their probabilities), weighted (a weighted mean of
            logits), surest (for each sample the teacher that is surest), or label (the one surest of the sample's
            label). Methods that compare layers compare them with those of each.
        teacher_weights: Weights of the teachers, for --teachers weighted; the same for all by default.
        queries: How many samples the teacher may be asked about in all, if its answers have a price.
        ensemble: How often each teacher is trained, each time from another seed; together they answer as an ensemble.
        trust_code: Run the code that saved networks, recordings and presets name (FILE.py:FACTORY, PACKAGE:FACTORY). It
            is refused unless you named it yourself before.
    """

    student: list[str]
    teacher: list[str] = field(default_factory=list)
    teacher_classes: str | None = None
    teachers: How = "mean"
    teacher_weights: list[str] = field(default_factory=list)
    queries: int | None = None
    ensemble: int = 1
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingDataOptions:
    """Data.

    Attributes:
        data: digits, fashion-mnist, cifar10, cifar100, an image dataset of the Hugging Face hub (owner/name), a folder
            of Parquet files, or a folder of images by class.
        task: What the labels are: classification, multi-label (lists of classes, or rows of 0 and 1), regression
            (numbers), segmentation (masks), depth (maps of depths), language (texts, of which each token is predicted),
            discovery (some classes have labels, others are to be found); or unlabelled, to learn from a teacher alone
            and measure the embedding on labelled test images.
        novel: For --task discovery, the novel classes: their number, or the names of those whose labels are hidden in
            training (cat+dog; the one class called 3 is 3+). With --unlabelled, the number of theirs.
        validation: Share of the training samples that is held out to choose the best epoch.
        subset: Number of training samples to take, the same share of each class; all by default.
        image_size: Height and width in pixels; unchanged by default. Of images with masks or depth maps, the longer
            side.
        augment: What is done to training images, such as crop:4,flip,rotate:15; the dataset's usual by default.
        resident_limit_mib: Up to this size, in MiB, decoded images stay in memory; above, they are decoded when needed.
    """

    data: str
    task: str = "classification"
    novel: str | None = None
    validation: float = 0.1
    subset: int | None = None
    image_size: int | None = None
    augment: str | None = None
    resident_limit_mib: int = 2048


@dataclass(frozen=True, kw_only=True)
class DataOptions(TrainingDataOptions):
    """Data.

    Attributes:
        metric: What chooses the best epoch and compares rows, such as mcc, macro-f1, f1 or balanced-accuracy (classes),
            pearson, spearman or r2 (numbers); further ones that are only measured follow after a plus sign. By default
            the task's own, or GLUE's for its data.
        foreign: Data from elsewhere, named in the same way, to measure how well the networks' uncertainty tells them
            from the test images.
    """

    metric: str | None = None
    foreign: str | None = None


@dataclass(frozen=True, kw_only=True)
class LearningDataOptions(DataOptions):
    """Data.

    Attributes:
        unlabelled: Images without labels, named in the same way, that are trained on beside the labelled ones: the
            teacher teaches them too.
        test_data: Data, named in the same way, whose test split is reported on instead of the data's own, such as real
            ones where the training images were synthesised.
    """

    unlabelled: str | None = None
    test_data: str | None = None


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """Recording.

    Attributes:
        teacher: Trained network that is asked: a run's folder, timm:NAME, NETWORK@weights and so on. Several answer as
            an ensemble.
        out: Folder of the recording.
        teacher_classes: File that maps the classes of the teacher to the data's, as for distill.
        views: Number of views of each training sample, by default 8, or 1 if nothing is augmented; if some are recorded
            already, the others are added.
        keep: What is kept of an answer: full (the logits), hard (the likeliest class), smoothed (its probability too),
            topK or topK-renormalized (the K highest probabilities, such as top5), or none (only layers are recorded).
        values: How logits, probabilities and features are stored.
        layers: Layers of the teacher to record as well, such as layer2+layer3.
        part: Part of the work, such as 1/4 of four processes or machines that share the folder.
        seed: Seed of the views.
        batch_size: Samples that the teacher answers at once.
        precision: auto takes bf16 where the hardware multiplies it natively, else float32.
        channels_last: Memory format of images and convolutions; auto is on.
        compile: Whether to compile the teacher; auto does so where it pays back.
        keep_memory: Whether memory that a batch frees is kept for the next one; auto keeps it on a processor, where the
            C library can.
        threads: Processor threads to compute with; by default as many as there are, and one for tiny networks.
        device: auto, cpu, cuda, mps.
        workers: Processes that decode images, for data that do not stay in memory.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    teacher: list[str]
    out: str
    teacher_classes: str | None = None
    views: int | None = None
    keep: str = "full"
    values: Literal["float32", "float16"] = "float32"
    layers: str | None = None
    part: str | None = None
    seed: int = 0
    batch_size: int = 128
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    keep_memory: Switch = "auto"
    threads: int | None = None
    device: str = "auto"
    workers: int = 2
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Networks.

    Attributes:
        space: Networks to choose from: a network with ranges of options, such as
            resnet_by_stage,stage1=1|3|5,stage2=1..7,stage3=1..7 or timm:vit_tiny_patch16_224,depth=4..12; or s0.
        teacher: Network with which candidates are compared, named as for distill. Its weights are not used, unless the
            score asks for them.
        out: Folder of the search.
        trust_code: Run the code that a saved teacher names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    space: str
    teacher: str | None = None
    out: str = "runs/search"
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Run.

    Attributes:
        out: Folder for checkpoints, weights and the report; runs/METHOD-STUDENT-DATA by default.
        logger: Where every epoch's metrics are logged too: tensorboard, csv, wandb or mlflow, or several of them. What
            is written to files is in OUT/logs.
        seed: Seed of everything.
        teacher_epochs: Epochs of the teacher's training, where it comes untrained; the student's by default.
    """

    out: str | None = None
    logger: list[str] = field(default_factory=list)
    seed: int = 0
    teacher_epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Comparison.

    Attributes:
        seeds: Number of seeds of every row.
        baseline: Row that the others are compared with; supervised where it is among them, else the first.
        out: Folder for everything; runs/compare-DATA by default.
        logger: Where every epoch's metrics are logged too: tensorboard, csv, wandb or mlflow, or several of them. What
            is written to files is in OUT/logs, each row and seed by its name.
        title: Title of the report.
        teacher_epochs: Epochs of the shared teacher's training, where it comes untrained; the student's by default.
    """

    seeds: int = 3
    baseline: str | None = None
    out: str | None = None
    logger: list[str] = field(default_factory=list)
    title: str | None = None
    teacher_epochs: int | None = None


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Demo.

    Attributes:
        seeds: Number of seeds of every row.
        out: Folder for everything.
    """

    seeds: int = 3
    out: str = "runs/demo"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Evaluation.

    Attributes:
        split: train, validation or test.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    split: str = "test"
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serving.

    Attributes:
        data: Data whose classes and images the network has; a saved run's folder says them itself.
        host: Address to listen at; by default only this machine reaches it.
        port: Port to listen at; 0 takes a free one.
        name: Name of the model in its address.
        answers: What it tells of each image: logits, probabilities, labels, or topK, the K likeliest classes.
        batch_size: Images that it answers at once; longer questions are answered in parts.
        device: auto, cpu, cuda, mps.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    data: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    name: str = "network"
    answers: str = "logits"
    batch_size: int = 128
    device: str = "auto"
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Prediction.

    Attributes:
        data: What is asked about, with or without labels: a folder of images in any order, one image, a table of images
            or texts (Parquet, CSV, JSON), or a dataset of the hub.
        out: File of the answers: .csv or .parquet with the probability of each class, or .tsv with the predictions
            alone, as GLUE takes them. For masks, a folder of PNG files.
        split: Of data with splits, the one to answer; test by default.
        task: What is predicted; by default what the run was trained for, or else classification.
        image_size: Height and width in pixels; by default that of the run's images. Of images with masks, the longer
            side; by default they keep their size.
        overwrite: Replace what is at OUT.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    data: str
    out: str
    split: str | None = None
    task: str | None = None
    image_size: int | None = None
    overwrite: bool = False
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export.

    Attributes:
        to: Formats, joined by +: onnx, onnx-int8, openvino, pt2 (torch.export), timm (networks of timm).
        out: Folder to write to; by default export in the run's folder.
        split: The split whose samples the files are checked and scored on.
        trust_code: Run the code that a saved network names (FILE.py:FACTORY, PACKAGE:FACTORY). It is refused unless you
            named it yourself before.
    """

    to: str
    out: str | None = None
    split: str = "test"
    trust_code: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Report.

    Attributes:
        out: File to write; report.html beside the comparison by default.
    """

    out: str | None = None
