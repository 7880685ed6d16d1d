"""Tutelage: knowledge distillation for PyTorch. Any teacher, any student, honest comparisons."""

from tutelage.api import compare, distill, distill_all, evaluate
from tutelage.batch import Batch, Output
from tutelage.data.dataset import Data
from tutelage.data.sources import load_data
from tutelage.driver import Driver
from tutelage.errors import UserError
from tutelage.features import FeatureExtractor
from tutelage.interrupt import Interrupted
from tutelage.method import Method, OptimizerSpec, Progress, TransferSet, Update
from tutelage.models.loading import load_network
from tutelage.models.weights import load_weights
from tutelage.recording.reading import Recording
from tutelage.recording.teacher import RecordedTeacher
from tutelage.recording.writing import record
from tutelage.registry import Paper, cite, register
from tutelage.run import Run
from tutelage.state import Stop
from tutelage.teachers import (
    BlackBoxTeacher,
    EnsembleTeacher,
    FrozenTeacher,
    NoisyTeacher,
    ShuffledTeacher,
    Teacher,
    UniformTeacher,
    VirtualTeacher,
)
from tutelage.training import Training
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
