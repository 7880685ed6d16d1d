"""Data: sources, augmentation as recorded views, loaders that resume, metrics."""

from typing import TYPE_CHECKING

from tutelage.system.lazy import lazy

if TYPE_CHECKING:
    from tutelage.data.augment import Augmentation
    from tutelage.data.dataset import Data
    from tutelage.data.images import ResidentImages, StreamedImages
    from tutelage.data.loader import Loader, ResidentLoader, StreamedLoader, make_loader
    from tutelage.data.own import OwnLoader, OwnSamples
    from tutelage.data.samplers import BatchSampler, ShuffledBatches
    from tutelage.data.sources import load_data
    from tutelage.data.wrap import as_data

# The registry of methods reads one file of this package, and must not import torch for it.
_HOMES = {
    "tutelage.data.augment": ["Augmentation"],
    "tutelage.data.dataset": ["Data"],
    "tutelage.data.images": ["ResidentImages", "StreamedImages"],
    "tutelage.data.loader": ["Loader", "ResidentLoader", "StreamedLoader", "make_loader"],
    "tutelage.data.own": ["OwnLoader", "OwnSamples"],
    "tutelage.data.samplers": ["BatchSampler", "ShuffledBatches"],
    "tutelage.data.sources": ["load_data"],
    "tutelage.data.wrap": ["as_data"],
}

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
