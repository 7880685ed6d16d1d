"""Teachers, one file for each kind. Training and reports learn everything about a teacher through `Teacher`."""

from tutelage.core.teachers.altered import NoisyTeacher, ShuffledTeacher
from tutelage.core.teachers.black_box import BlackBoxTeacher
from tutelage.core.teachers.combining import Together
from tutelage.core.teachers.ensemble import EnsembleTeacher
from tutelage.core.teachers.network import FrozenTeacher
from tutelage.core.teachers.table import TableTeacher
from tutelage.core.teachers.teacher import Teacher
from tutelage.core.teachers.virtual import UniformTeacher, VirtualTeacher

__all__ = [
    "BlackBoxTeacher",
    "EnsembleTeacher",
    "FrozenTeacher",
    "NoisyTeacher",
    "ShuffledTeacher",
    "TableTeacher",
    "Teacher",
    "Together",
    "UniformTeacher",
    "VirtualTeacher",
]
