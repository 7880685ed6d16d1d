"""Tutelage: knowledge distillation for PyTorch. Any teacher, any student, honest comparisons."""

from typing import TYPE_CHECKING

from tutelage.system.lazy import lazy
from tutelage.version import VERSION as __version__

if TYPE_CHECKING:
    from tutelage.api import compare, distill, distill_all, evaluate, export, predict, search, synthesize
    from tutelage.core.method import Method, OptimizerSpec, Progress, TransferSet, Update
    from tutelage.core.registry import Paper, register
    from tutelage.core.teachers import (
        BlackBoxTeacher,
        EnsembleTeacher,
        FrozenTeacher,
        NoisyTeacher,
        ShuffledTeacher,
        Teacher,
        UniformTeacher,
        VirtualTeacher,
    )
    from tutelage.data.batch import Batch, Output
    from tutelage.data.dataset import Data
    from tutelage.data.sources import load_data
    from tutelage.errors import UserError
    from tutelage.experiments.catalogue import cite
    from tutelage.features.extractor import FeatureExtractor
    from tutelage.models.loading import load_network
    from tutelage.models.weights import load_weights
    from tutelage.recording.reading import Recording
    from tutelage.recording.teacher import RecordedTeacher
    from tutelage.recording.writing import record
    from tutelage.synthesis.similarity import similarity
    from tutelage.system.interrupt import Interrupted
    from tutelage.training.driver import Driver
    from tutelage.training.run import Run
    from tutelage.training.settings import Training
    from tutelage.training.state import Stop

# For type checkers the names are imported above; when the program runs, each is imported when it is first used.
_HOMES = {
    "tutelage.api": ["compare", "distill", "distill_all", "evaluate", "export", "predict", "search", "synthesize"],
    "tutelage.core.method": ["Method", "OptimizerSpec", "Progress", "TransferSet", "Update"],
    "tutelage.core.registry": ["Paper", "register"],
    "tutelage.core.teachers": [
        "BlackBoxTeacher",
        "EnsembleTeacher",
        "FrozenTeacher",
        "NoisyTeacher",
        "ShuffledTeacher",
        "Teacher",
        "UniformTeacher",
        "VirtualTeacher",
    ],
    "tutelage.data.batch": ["Batch", "Output"],
    "tutelage.data.dataset": ["Data"],
    "tutelage.data.sources": ["load_data"],
    "tutelage.errors": ["UserError"],
    "tutelage.experiments.catalogue": ["cite"],
    "tutelage.features.extractor": ["FeatureExtractor"],
    "tutelage.models.loading": ["load_network"],
    "tutelage.models.weights": ["load_weights"],
    "tutelage.recording.reading": ["Recording"],
    "tutelage.recording.teacher": ["RecordedTeacher"],
    "tutelage.recording.writing": ["record"],
    "tutelage.synthesis.similarity": ["similarity"],
    "tutelage.system.interrupt": ["Interrupted"],
    "tutelage.training.driver": ["Driver"],
    "tutelage.training.run": ["Run"],
    "tutelage.training.settings": ["Training"],
    "tutelage.training.state": ["Stop"],
}

__all__ = [
    "Batch",
    "BlackBoxTeacher",
    "Data",
    "Driver",
    "EnsembleTeacher",
    "FeatureExtractor",
    "FrozenTeacher",
    "Interrupted",
    "Method",
    "NoisyTeacher",
    "OptimizerSpec",
    "Output",
    "Paper",
    "Progress",
    "RecordedTeacher",
    "Recording",
    "Run",
    "ShuffledTeacher",
    "Stop",
    "Teacher",
    "Training",
    "TransferSet",
    "UniformTeacher",
    "Update",
    "UserError",
    "VirtualTeacher",
    "__version__",
    "cite",
    "compare",
    "distill",
    "distill_all",
    "evaluate",
    "export",
    "load_data",
    "load_network",
    "load_weights",
    "predict",
    "record",
    "register",
    "search",
    "similarity",
    "synthesize",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
