"""The methods: one paper, one file. Importing this package registers them all.

Recipes are functions with the names of their files. Here such a name is the module: `tutelage.methods.fsp.fsp`.
"""

from tutelage.methods import (
    active_mixup,
    cr_kd,
    de_kd,
    fickle_teacher,
    fsp,
    internal,
    kmeans,
    messy_collaboration,
    re_kd,
    soft_randomization,
    uno,
)
from tutelage.methods.afd import AFD
from tutelage.methods.at import AT
from tutelage.methods.born_again import BornAgain
from tutelage.methods.byot import BYOT
from tutelage.methods.confidence_penalty import ConfidencePenalty
from tutelage.methods.crd import CRD
from tutelage.methods.cs_kd import CSKD
from tutelage.methods.cwd import CWD
from tutelage.methods.data_free import DataFree
from tutelage.methods.dist import DIST
from tutelage.methods.dkd import DKD
from tutelage.methods.dml import DML
from tutelage.methods.end import EnD
from tutelage.methods.endd import EnDD
from tutelage.methods.features import Features
from tutelage.methods.ferkd import FerKD
from tutelage.methods.fitnet import FitNet
from tutelage.methods.fkd import FKD
from tutelage.methods.kd import KD, kd_shuffled_teacher, kd_uniform_teacher
from tutelage.methods.ksanc import KSANC
from tutelage.methods.label_smoothing import LabelSmoothing, matched_label_smoothing
from tutelage.methods.mlld import MLLD
from tutelage.methods.msd import MSD
from tutelage.methods.ofa import OFA
from tutelage.methods.quest import Quest
from tutelage.methods.reviewkd import ReviewKD
from tutelage.methods.rkd import RKD
from tutelage.methods.semckd import SemCKD
from tutelage.methods.simkd import SimKD
from tutelage.methods.sp import SP
from tutelage.methods.srrl import SRRL
from tutelage.methods.structured import Structured
from tutelage.methods.supervised import Supervised, supervised_teacher
from tutelage.methods.tf_kd_reg import TfKDReg
from tutelage.methods.tf_kd_self import double_training
from tutelage.methods.token import Token
from tutelage.methods.token_kd import TokenKD
from tutelage.methods.tolerant_teacher import TolerantTeacher
from tutelage.methods.ttm import TTM, WTTM
from tutelage.methods.unix import UNIX
from tutelage.methods.vid import VID
from tutelage.methods.wkd import WKD

__all__ = [
    "AFD",
    "AT",
    "BYOT",
    "CRD",
    "CSKD",
    "CWD",
    "DIST",
    "DKD",
    "DML",
    "FKD",
    "KD",
    "KSANC",
    "MLLD",
    "MSD",
    "OFA",
    "RKD",
    "SP",
    "SRRL",
    "TTM",
    "UNIX",
    "VID",
    "WKD",
    "WTTM",
    "BornAgain",
    "ConfidencePenalty",
    "DataFree",
    "EnD",
    "EnDD",
    "Features",
    "FerKD",
    "FitNet",
    "LabelSmoothing",
    "Quest",
    "ReviewKD",
    "SemCKD",
    "SimKD",
    "Structured",
    "Supervised",
    "TfKDReg",
    "Token",
    "TokenKD",
    "TolerantTeacher",
    "active_mixup",
    "cr_kd",
    "de_kd",
    "double_training",
    "fickle_teacher",
    "fsp",
    "internal",
    "kd_shuffled_teacher",
    "kd_uniform_teacher",
    "kmeans",
    "matched_label_smoothing",
    "messy_collaboration",
    "re_kd",
    "soft_randomization",
    "supervised_teacher",
    "uno",
]
