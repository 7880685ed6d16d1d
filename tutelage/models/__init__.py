"""Networks: those of the distillation literature, and any other by name."""

from tutelage.models.catalogue import CATALOGUE, factory, names
from tutelage.models.fresh import fresh
from tutelage.models.loading import load_network
from tutelage.models.normalization import Normalization, Normalized, bare
from tutelage.models.reading import read_weights
from tutelage.models.saving import NetworkMetadata, read_metadata, save_network
from tutelage.models.size import NetworkSize, describe
from tutelage.models.spec import NetworkSpec
from tutelage.models.weights import load_weights
from tutelage.models.zoo.staged import Staged

__all__ = [
    "CATALOGUE",
    "NetworkMetadata",
    "NetworkSize",
    "NetworkSpec",
    "Normalization",
    "Normalized",
    "Staged",
    "bare",
    "describe",
    "factory",
    "fresh",
    "load_network",
    "load_weights",
    "names",
    "read_metadata",
    "read_weights",
    "save_network",
]
