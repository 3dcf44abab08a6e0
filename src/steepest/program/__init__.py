"""A run as a program of plain PyTorch: what `Run.code` prints."""

from steepest.program.gather import facts
from steepest.program.text import write

__all__ = ["facts", "write"]
