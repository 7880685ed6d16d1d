"""Two networks for tests and demonstrations, small enough to train on a laptop within a short time."""

from __future__ import annotations

from functools import partial

from torch import nn

from tutelage.models.zoo.resnet import cifar_resnet
from tutelage.models.zoo.staged import Staged, kaiming_fan_out
from tutelage.models.zoo.units import conv_norm
from tutelage.system.values import Count


def tiny_cnn(num_classes: Count, *, in_channels: Count = 3, width: Count = 12) -> Staged:
    """Return a stem and three convolutions, each with batch norm; about 15,000 parameters.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        width: Channels of the stem and the first stage; the others have two and four times as many.
    """
    stages = [
        conv_norm(width, width, 3),
        conv_norm(width, 2 * width, 3, stride=2),
        conv_norm(2 * width, 4 * width, 3, stride=2),
    ]
    classifier = nn.Linear(4 * width, num_classes)
    return Staged(conv_norm(in_channels, width, 3), stages, classifier, initialize=kaiming_fan_out)


tiny_resnet = partial(cifar_resnet, depth=8, stem=8, width=8)
