"""The version, as installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("tutelage")
except PackageNotFoundError:
    VERSION = "unknown"
