"""A run: a folder of stages, each of which is done once, and training that can be resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.teachers.teacher import Teacher, teachers_in
from tutelage.data.batch import Batch
from tutelage.data.criterion import Density
from tutelage.data.sources import Data
from tutelage.evaluation.predictions import score_method
from tutelage.evaluation.scores import measure_network
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalized
from tutelage.models.saving import save_network
from tutelage.models.scores import check_scores
from tutelage.models.size import size_for
from tutelage.models.weights import load_weights
from tutelage.system import chance, digests, processes
from tutelage.system.console import Reporter, Silent
from tutelage.system.devices import device_type
from tutelage.system.files import read_json, write_json
from tutelage.training import checkpoint, fingerprint
from tutelage.training.driver import Driver
from tutelage.training.settings import Course, Training
from tutelage.training.state import State, Stop

T = TypeVar("T")
Wrap = Callable[[Method], Method]
Keep = Literal["best", "last"]
Measured = tuple[dict[Keep, dict[str, float]], dict[str, Any]]
MEMBERS, WEIGHTS = "members", "student.safetensors"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The results of a training stage, beside its weights.

    Attributes:
        name: Name of the stage.
        epochs: Epochs trained.
        best_epoch: Epoch of the best validation score, counted from one; 0 where none was measured.
        seconds: Time that training took.
        images_per_second: Training samples per second, validation included.
        history: Metrics, one value an epoch.
        scores: Scores by `best` and `last` weights, then by split and metric: `scores["best"]["test_accuracy"]`.
        members: The other networks that can ship, by the name of their prediction: spec, parameters, multiply-adds.
        pictures: Data for the report's pictures of the kept weights' answers, by the picture's name.
        density: How logits are read: `categorical` by their softmax, `dirichlet` as logarithms of concentrations.
    """

    name: str
    epochs: int
    best_epoch: int
    seconds: float
    images_per_second: float
    history: dict[str, list[float]]
    scores: dict[Keep, dict[str, float]]
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    density: Density = "categorical"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the results that `asdict` made plain, in this version or an earlier one."""
        known = {name.name for name in fields(cls)}
        # Earlier versions stored each picture as a field of its own. Empty ones showed nothing and are dropped.
        others = {name: value for name, value in content.items() if name not in known and value}
        own = {name: value for name, value in content.items() if name in known}
        return cls(**{**own, "pictures": content.get("pictures", {}) | others})


class Run:
    """One seeded piece of work in a folder of its own. Recipes are functions over it.

    Args:
        folder: Where everything goes.
        training: The settings of every training stage.
        seed: Seed from which each stage derives its own, by name.
        reporter: Shows the progress.
        title: The run's name while progress is shown.

    Attributes:
        fitted: The results of the training stages, in the order of the calls of `fit`.
        members: The other trained networks of the last training, beside the one it returned, by the name of their
            prediction.
        notes: Facts that a recipe wants in the report, by name.
    """

    def __init__(
        self, folder: Path, training: Training, *, seed: int = 0, reporter: Reporter | None = None, title: str = ""
    ) -> None:
        self.folder, self.training, self.seed = Path(folder), training, seed
        self.reporter, self.title = reporter or Silent(), title
        self.fitted: list[Fitted] = []
        self.members: dict[str, nn.Module] = {}
        self.notes: dict[str, Any] = {}
        self.wrap: Wrap = _as_it_is

    def wrapping(self, wrap: Wrap) -> Self:
        """Return a run that wraps every method before training it. It shares folder, stages and notes with this run.

        Args:
            wrap: Takes the method to train, and returns the one that is trained instead.
        """
        twin, before = copy.copy(self), self.wrap
        # A recipe inside another wraps first, so its wrapping is the innermost.
        twin.wrap = lambda method: before(wrap(method))
        return twin

    def seed_of(self, name: str) -> int:
        """Return the seed of a named piece of work."""
        return digests.seed_of(self.seed, name)

    def stage(self, name: str, make: Callable[[], T], *, rehearse: Callable[[], T] | None = None, **identity: Any) -> T:
        """Make an artefact once; later calls, in this process or another, return what was stored.

        Args:
            name: Name of the stage, and of its folder.
            make: Makes the artefact: tensors and plain values, in dictionaries, lists or tuples. All random generators
                are seeded from the stage's name first.
            rehearse: Makes a similar artefact quickly, for a dry run; `make` by default.
            **identity: Everything that the artefact depends on, as plain values.

        Raises:
            UserError: If the stored artefact was made with another identity.
        """
        folder = self.folder / name
        self._claim(folder, {"seed": self.seed, **identity})
        file = folder / "artefact.pt"
        if not file.exists():
            chance.seed_everything(self.seed_of(name))
            checkpoint.save(file, {"artefact": make()})
        # Read back even if just made, so that a resumed run goes on with exactly the same values.
        artefact: T = checkpoint.load(file)["artefact"]
        self._seed_what_follows(name)
        return artefact

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
        """Train a method as a stage, resumable in its middle, and return the exported network in eval mode.

        Args:
            name: Name of the stage, and of its folder.
            method: The method, freshly made.
            data: The data.
            epochs: Length of the schedule; the settings' by default. With 0 nothing is trained: the network is measured
                and kept as it is.
            stop: When to end before the schedule does; never by default.
            keep: Which weights to return; the settings' choice by default.
            schedule: Course of the learning rate after the warm-up; the settings' by default.

        Raises:
            UserError: If the folder holds a different stage, the samples are not the recorded ones, or a network's
                answers do not have the shape that the data's task asks for.
            Interrupted: If a signal came; everything is saved.
        """
        method = self.wrap(method)
        # Checked before the folder is claimed, so that a refused method leaves nothing behind.
        check_teachers(method, data)
        check_predictions(method, data)
        data = replayed(method, data)
        folder, keep = self.folder / name, keep or self.training.keep
        training = replace(self.training, schedule=schedule or self.training.schedule)
        if data.recording is not None and (begun := _begun(folder).get("recording")) is not None:
            data.recording.check_goes_on(begun, folder)
        self._claim(folder, self._identity(method, data, training, epochs, stop, keep))
        # The result is written last, so its presence says that the stage is finished.
        if not (folder / "result.json").exists():
            driver = Driver(training, seed=self.seed_of(name), reporter=self.reporter)
            title = f"{self.title} {name}".strip()
            file = folder / "checkpoint.pt"
            state = State()
            if epochs != 0:
                state = driver.fit(method, data, title=title, epochs=epochs, stop=stop, checkpoint_file=file)
            # All processes measure, and the first one writes.
            measured = _measure(method, data, state, keep)
            if processes.is_first():
                self._finish(folder, name, method, data, state, measured)
                file.unlink(missing_ok=True)
            processes.wait()
            # Laid out as a network that is read from the folder: it then computes the same, to the last bit.
            method.to("cpu").to(memory_format=torch.contiguous_format)
        # Its weights are read from the folder in any case: a stage that ran now returns what one that ran earlier does.
        network = method.export()
        load_weights(network, folder / WEIGHTS)
        # In place, because a run made by `wrapping` shares this dictionary.
        self.members.clear()
        for member, other in method.members().items():
            load_weights(other, folder / MEMBERS / member / WEIGHTS)
            self.members[member] = other.eval()
        self.fitted.append(Fitted.from_json(read_json(folder / "result.json")))
        self._seed_what_follows(name)
        return network.eval()

    def evaluate(self, name: str, network: nn.Module, data: Data, *, split: str = "test") -> dict[str, float]:
        """Return a network's scores on a split by the names of the task's metrics, measured once as a stage."""

        def measure() -> dict[str, float]:
            scores = measure_network(network, data, split, device=device_type(self.training.device)).compute()
            # A task may give numpy's numbers, which could be saved and not be read again.
            return {metric: float(value) for metric, value in scores.items()}

        weights = digests.of_tensors(network.state_dict())
        return self.stage(name, measure, weights=weights, data=data.fingerprint, split=split)

    def member_folders(self) -> dict[str, Path]:
        """Return the folders of the last training's other networks, beside the deployed one, by name."""
        return {name: self.folder / self.fitted[-1].name / MEMBERS / name for name in self.members}

    def note(self, **facts: Any) -> None:
        """Keep facts for the report, such as the accuracy of a teacher that a recipe made."""
        self.notes |= facts

    def _seed_what_follows(self, name: str) -> None:
        """Seed the generators so that a recipe's next draws do not depend on whether this stage ran now or earlier."""
        chance.seed_everything(self.seed_of(f"after {name}"))

    def _identity(
        self, method: Method, data: Data, training: Training, epochs: int | None, stop: Stop | None, keep: Keep
    ) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "epochs": self.training.epochs if epochs is None else epochs,
            "stop": (stop or Stop()).identity(),
            "keep": keep,
            # Without `keep`: the stage's own choice is above, and may differ from the settings'.
            "training": {name: value for name, value in training.identity().items() if name != "keep"},
            "data": data.fingerprint,
            "augmentation": str(data.augmentation),
            # Absent where there is none, so that fingerprints of runs without them stay what they were.
            **({} if data.foreign is None else {"foreign": data.foreign.fingerprint}),
            **({} if data.recording is None else {"recording": data.recording.identity()}),
            **fingerprint.of_method(method),
        }

    def _claim(self, folder: Path, identity: Mapping[str, Any]) -> None:
        file = folder / "fingerprint.json"
        fingerprint.check(file, identity)
        # Written before the work starts, so that an interrupted stage is recognised as well.
        if not file.exists():
            write_json(file, identity)

    def _finish(self, folder: Path, name: str, method: Method, data: Data, state: State, measured: Measured) -> None:
        scores, pictures = measured
        self._save(folder, method.export(), data, method.density)
        members = {
            member: self._member(folder / MEMBERS / member, network, data, method.density)
            for member, network in method.members().items()
        }
        result = Fitted(
            name=name,
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            seconds=state.seconds,
            images_per_second=state.samples / max(state.seconds, 1e-9),
            history=state.history,
            scores=scores,
            members=members,
            pictures=pictures,
            density=method.density,
        )
        write_json(folder / "result.json", asdict(result))

    def _member(self, folder: Path, network: nn.Module, data: Data, density: Density) -> dict[str, Any]:
        self._save(folder, network, data, density)
        spec = network.spec if isinstance(network, Normalized) else None
        return {"spec": spec, **asdict(size_for(network, data))}

    def _save(self, folder: Path, network: nn.Module, data: Data, density: Density) -> None:
        save_network(
            folder,
            network,
            spec=network.spec if isinstance(network, Normalized) else None,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            class_names=data.class_names,
            input_size=data.image_size,
            density=density,
            task=data.task.name,
        )


def replayed(method: Method, data: Data) -> Data:
    """Return the data with their recording, if any, restricted to the layers that the method's teachers read.

    Raises:
        UserError: If the recording belongs to other samples, or lacks samples or views that the method trains on.
    """
    if data.recording is None:
        return data
    data.recording.check(data)
    method.transfer_set(data.train).check(data)
    teachers = [module for module in method.modules() if isinstance(module, Teacher)]
    read = {layer for teacher in teachers for layer in teacher.reads()}
    return replace(data, recording=data.recording.only(read))


def check_predictions(method: Method, data: Data) -> None:
    """Refuse a method whose predictions are not what the data's task asks for.

    Raises:
        UserError: If a prediction has another shape, such as scores of another number of classes, or is no scores.
    """
    example = data.example(2)
    with evaluating(method), torch.no_grad():
        predictions = method(example)
    for name, prediction in predictions.items():
        shape, samples = tuple(prediction.shape), len(Batch(inputs=example))
        data.task.check_answer(shape, samples, data.num_classes, who=name, data=data.name)
        check_scores(prediction, data.task, who=name)


def check_teachers(method: Method, data: Data) -> None:
    """Refuse teachers whose logits the method reads although they do not answer for the data's classes.

    Raises:
        UserError: If there is such a teacher. One whose answers have a price is checked at its first answer instead.
    """
    for teacher in teachers_in(method):
        teacher.check_answers(data)


def _measure(method: Method, data: Data, state: State, keep: Keep) -> Measured:
    """Return the scores of the best and of the last weights, and the pictures of the kept ones, which stay loaded."""
    states: dict[Keep, dict[str, Tensor]] = {"last": checkpoint.snapshot(method)}
    # Without validation, no epoch was the best.
    states["best"] = state.best or states["last"]
    # The kept weights come last, so that the method ends with them loaded and the pictures show them.
    order: list[Keep] = ["last", "best"] if keep == "best" else ["best", "last"]
    scores: dict[Keep, dict[str, float]] = {}
    for which in order:
        checkpoint.load_student_state(method, states[which])
        found = score_method(method, data)
        scores[which] = found.scores
    return scores, found.pictures


def _begun(folder: Path) -> dict[str, Any]:
    """Return the fingerprint with which a stage was begun; empty if it was not begun."""
    file = folder / "fingerprint.json"
    return read_json(file) if file.exists() else {}


def _as_it_is(method: Method) -> Method:
    return method
