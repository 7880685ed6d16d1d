"""Tutelage: knowledge distillation for PyTorch. Any teacher, any student, honest comparisons."""

from tutelage.api import compare, distill, distill_all, evaluate
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
from tutelage.system.interrupt import Interrupted
from tutelage.training.driver import Driver
from tutelage.training.run import Run
from tutelage.training.settings import Training
from tutelage.training.state import Stop
from tutelage.version import VERSION as __version__

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
    "load_data",
    "load_network",
    "load_weights",
    "record",
    "register",
]
