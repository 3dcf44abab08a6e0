"""Showing a run folder, as a page or as text. Reads run folders only, and knows no trainer."""

from steepest.report.explanation import explain
from steepest.report.page import write

__all__ = ["explain", "write"]
