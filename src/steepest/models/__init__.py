"""Networks that come with the house, a way to bring one's own, and how their weights start."""

from steepest.models.import_path import load, made
from steepest.models.presets import PRESETS, build

__all__ = ["PRESETS", "build", "load", "made"]
