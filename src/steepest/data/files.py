"""Files of data: tables through polars, .npz through NumPy without pickles."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from steepest.data.kinds.date import TIMES
from steepest.data.tables import check_names
from steepest.optim.errors import UserError, did_you_mean

MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?"]
"""What stands for a missing value in a text file."""

LOOKED_AT = 10_000
"""Rows that tell the types of columns; where a later row disproves them, all rows are looked at."""


def read(path: Path) -> pl.DataFrame | dict[str, np.ndarray]:
    """The table, or the named arrays, of a file."""
    if path.is_dir():
        raise UserError(
            f"{path} is a folder. Folders of pictures are not read yet: give a .npz or a torch Dataset."
        )
    if not path.exists():
        near = did_you_mean(path.name, _neighbours(path))
        raise UserError(f"There is no file {path}.{near}")
    if path.suffix.lower() not in READERS:
        raise UserError(f"Cannot read {path.name}: files may be {', '.join(sorted(READERS))}.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes). Give a file with a header line and rows.")
    return READERS[path.suffix.lower()](path)


def _table(reader: Callable[[Path], pl.DataFrame]) -> Callable[[Path], pl.DataFrame]:
    """`reader` with its errors as sentences, and with text that is numbers or dates read as such."""

    def read_table(path: Path) -> pl.DataFrame:
        try:
            frame = reader(path)
        except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"{path} cannot be read as {path.suffix}: {first}. Is it complete, and UTF-8?"
            ) from error
        frame = frame.rename({name: name.strip() for name in frame.columns})
        return frame.with_columns(_plainest(column) for column in frame if column.dtype == pl.String)

    return read_table


def _plainest(column: pl.Series) -> pl.Series:
    """A column of text as numbers or times, where every value is one."""
    readers: list[Callable[[pl.Series], pl.Series]] = [
        lambda text: text.str.strip_chars().cast(pl.Float64, strict=False),
        *(lambda text, form=form: text.str.to_datetime(form, strict=False) for form in TIMES),
    ]
    if column.null_count() == len(column):
        return column
    for reader in readers:
        if _reads_all(reader, column.head(100)) and _reads_all(reader, column):
            return reader(column)
    return column


def _reads_all(reader: Callable[[pl.Series], pl.Series], column: pl.Series) -> bool:
    return reader(column).null_count() == column.null_count()


def _csv(path: Path) -> pl.DataFrame:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    read = partial(pl.read_csv, path, separator=max(",;\t", key=header.count), null_values=MISSING)
    _check_header(path, read(has_header=False, n_rows=1, infer_schema=False))
    try:
        return read(infer_schema_length=LOOKED_AT)
    except pl.exceptions.ComputeError:
        return read(infer_schema_length=None)


def _check_header(path: Path, first: pl.DataFrame) -> None:
    """polars would give a second column of one name another name, and go on."""
    names = [(name or "").strip() for name in (first.row(0) if len(first) else ())]
    check_names(names, path.name)


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of the archive; first its sizes are held against its headers and this machine's memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_member(path, archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except UserError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        raise UserError(f"{path} is not a readable .npz: {error}. Write it anew with numpy.savez.") from error


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
    if dtype.hasobject:
        raise UserError(
            f"{path} holds Python objects in {member.filename!r}; loading them could run code. "
            "Save plain numbers or text (an array with a numeric or fixed-length text dtype)."
        )
    declared = dtype.itemsize * int(np.prod(shape, dtype=object))
    memory = _memory()
    if declared > member.file_size or member.file_size > memory:
        raise UserError(
            f"{path}: {member.filename!r} claims {declared:,} bytes; the archive holds {member.file_size:,} "
            "and "
            f"this machine has {memory:,}. The file is damaged, or too large to be held in memory."
        )


def _memory() -> int:
    """Bytes of memory of this machine; where the system does not say, a terabyte."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else 1 << 40


def _neighbours(path: Path) -> list[str]:
    folder = path.parent
    return [entry.name for entry in folder.iterdir() if entry.suffix in READERS] if folder.is_dir() else []


READERS: dict[str, Callable[[Path], pl.DataFrame | dict[str, np.ndarray]]] = {
    ".csv": _table(_csv),
    ".tsv": _table(_csv),
    ".parquet": _table(pl.read_parquet),
    ".json": _table(pl.read_json),
    ".jsonl": _table(pl.read_ndjson),
    ".npz": _npz,
}
