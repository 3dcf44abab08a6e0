"""The format of run folders: which one is written, and which are read."""

from __future__ import annotations

FORMAT = 2
READ = (1, 2)
"""The formats that this version reads; train/format_1.py says what became of what earlier ones held."""
