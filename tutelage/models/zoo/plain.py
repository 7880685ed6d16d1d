"""The Tf-KD paper's networks without shortcuts: its plain five-layer CNN and the AlexNet for CIFAR."""

from __future__ import annotations

from torch import nn

from tutelage.models.zoo.staged import Staged
from tutelage.system.values import Count, Share


def tfkd_cnn(num_classes: Count, *, in_channels: Count = 3, width: Count = 32, dropout: Share = 0.5) -> Staged:
    """Return the plain CNN: three convolutions, each with batch norm, max-pool and ReLU, and two linear layers.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
        width: Channels of the first convolution; the others have two and four times as many.
        dropout: Probability of dropping a unit before the classifier.
    """
    channels, blocks = in_channels, []
    for out_channels in (width, 2 * width, 4 * width):
        convolution = nn.Conv2d(channels, out_channels, 3, padding=1)
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.MaxPool2d(2), nn.ReLU()))
        channels = out_channels
    tail = nn.Sequential(
        # After three pools, images of 32 pixels are 4x4 already; other sizes are brought to it.
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * channels, channels),
        nn.BatchNorm1d(channels),
        nn.ReLU(),
        nn.Dropout(dropout),
    )
    return Staged(blocks[0], blocks[1:], nn.Linear(channels, num_classes), tail=tail, pool=nn.Identity())


def tfkd_alexnet(num_classes: Count, *, in_channels: Count = 3) -> Staged:
    """Return the AlexNet for CIFAR: five convolutions and one linear layer, for images of 28 pixels and more.

    Args:
        num_classes: Classes K.
        in_channels: Channels of the images.
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, 64, 11, stride=4, padding=5), nn.ReLU())
    stages = [
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
    return Staged(stem, stages, nn.Linear(256, num_classes), pool=nn.AdaptiveMaxPool2d(1))
