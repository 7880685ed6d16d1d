"""Published accuracies of trained students, by which a score can be judged without training."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from tutelage.models.spec import NetworkSpec

_FILE = Path(__file__).with_name("s0.csv")


@dataclass(frozen=True)
class Published:
    """A trained student of a paper.

    Attributes:
        network: Its architecture.
        supervised: Its test accuracy in per cent, trained on the labels alone.
        kd: Its test accuracy in per cent, trained with a teacher.
    """

    network: NetworkSpec
    supervised: float
    kd: float


def s0() -> tuple[Published, ...]:
    """Return the 64 networks of the space `s0` with the CIFAR-100 accuracies that DisWOT's authors publish.

    Trained for 240 epochs; the teacher was a ResNet-110 (Dong et al. 2023, arXiv 2303.15678, its repository).
    """
    with _FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Published(
                NetworkSpec(target="resnet_by_stage", options={f"stage{n}": int(row[f"stage{n}"]) for n in (1, 2, 3)}),
                float(row["supervised"]),
                float(row["kd"]),
            )
            for row in csv.DictReader(file)
        )
