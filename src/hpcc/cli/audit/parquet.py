"""Writes rows as a Parquet file. arro3 is an optional extra, because it has 12 MB."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_origin, get_type_hints

from hpcc.audit.base.canonical import AuditDamagedError, row_of
from hpcc.cli.audit.text import TSV_FIELDS
from hpcc.cli.base.chosen_file import chosen_file
from hpcc.config.extras import NO_EXTRA, missing_text
from hpcc.core import CallerError, HpccError
from hpcc.ports import AuditRow

if TYPE_CHECKING:
    from hpcc.audit.base.canonical import Record

# Rows of one row group, which is in memory as a whole.
_GROUP_ROWS: Final = 5000
_LISTS: Final = frozenset({"argv", "injected_flags", "outputs"})


def write_parquet(path: Path, records: Iterable[Record]) -> int:
    """Write rows to `path` atomically; return their number.

    Columns are those of the TSV, then `sequence` and `hash`; `argv` and `injected_flags` are lists
    of texts, `outputs` is a list of texts "DIGEST PATH".

    Raises:
        CallerError: the extra `hpcc[parquet]` is not installed, or the file cannot be written.
        AuditDamagedError: a record is not a row.
    """
    try:
        from arro3.core import RecordBatchReader, Schema
        from arro3.io import write_parquet as write
    except ImportError as error:
        raise CallerError(
            f"{missing_text('parquet', 'Parquet')}, or use --format jsonl, which most readers of"
            " Parquet also accept",
            reason=NO_EXTRA,
        ) from error
    columns = _columns()
    schema = Schema(list(columns.values()))
    rows = _Rows(records)
    reader = RecordBatchReader.from_batches(schema, _batches(schema, columns, rows))
    try:
        with chosen_file(path) as file:
            write(reader, file, compression="zstd(3)")
    except HpccError:
        raise
    except Exception:
        # arro3 puts the error of a record into an `Exception` with other words.
        if rows.damage is not None:
            raise rows.damage from None
        raise
    return rows.count


class _Rows:
    """Decodes records; stores how many, and the error that ended it."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.count = 0
        self.damage: AuditDamagedError | None = None

    def __iter__(self) -> Iterator[tuple[Record, AuditRow]]:
        try:
            for record in self._records:
                row = row_of(record)
                self.count += 1
                yield record, row
        except AuditDamagedError as error:
            self.damage = error
            raise


def _columns() -> dict[str, Any]:  # Any: arro3's types exist only with the extra
    from arro3.core import DataType, Field

    kinds: dict[object, Any] = {
        str: DataType.utf8(),
        float: DataType.float64(),
        int: DataType.int64(),
        tuple: DataType.list(Field("item", DataType.utf8(), nullable=False)),
    }
    hints = get_type_hints(AuditRow)
    columns = {
        name: Field(name, kinds[get_origin(hints[name]) or hints[name]], nullable=False)
        for name in TSV_FIELDS
    }
    columns["sequence"] = Field("sequence", DataType.int64(), nullable=False)
    columns["hash"] = Field("hash", DataType.utf8(), nullable=False)
    return columns


def _batches(
    schema: Any,  # noqa: ANN401 - see _columns
    columns: dict[str, Any],
    rows: _Rows,
) -> Iterator[Any]:
    from arro3.core import Array, RecordBatch

    for group in itertools.batched(rows, _GROUP_ROWS):
        table: dict[str, list[object]] = {name: [] for name in columns}
        for record, row in group:
            for name in TSV_FIELDS:
                table[name].append(_value(name, getattr(row, name)))
            table["sequence"].append(record.sequence)
            table["hash"].append(record.hash)
        arrays = [
            _lists(table[name], field) if name in _LISTS else Array(table[name], type=field.type)
            for name, field in columns.items()
        ]
        yield RecordBatch.from_arrays(arrays, schema=schema)


def _lists(values: list[Any], field: Any) -> Any:  # noqa: ANN401 - see _columns
    from arro3.core import Array, DataType, list_array

    ends = [0, *itertools.accumulate(len(texts) for texts in values)]
    flat = Array([text for texts in values for text in texts], type=DataType.utf8())
    return list_array(Array(ends, type=DataType.int32()), flat, type=field)


def _value(name: str, value: object) -> object:
    if name == "outputs" and isinstance(value, tuple):
        return [_text(f"{digest} {path}") for path, digest in value]
    if isinstance(value, tuple):
        return [_text(text) for text in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Replace what Parquet cannot hold: half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
