"""Showing a run folder as a page. Reads run folders only, and knows no trainer."""

from steepest.report.page import write

__all__ = ["write"]
