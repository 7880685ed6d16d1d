"""Data: sources, augmentation as recorded views, loaders that resume, metrics."""

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.loader import Loader, ResidentLoader, StreamedLoader, make_loader
from tutelage.data.own import OwnLoader, OwnSamples
from tutelage.data.samplers import BatchSampler, ShuffledBatches
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data

__all__ = [
    "Augmentation",
    "BatchSampler",
    "Data",
    "Loader",
    "OwnLoader",
    "OwnSamples",
    "ResidentImages",
    "ResidentLoader",
    "ShuffledBatches",
    "StreamedImages",
    "StreamedLoader",
    "as_data",
    "load_data",
    "make_loader",
]
