"""What an export holds does nothing in the program that an auditor opens it with."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from hpcc.cli.audit.text import TSV_FIELDS, tsv
from hpcc.ports import AuditRow
from hpcc_testkit.farm.audit_rows import row


def cells(**changes: object) -> dict[str, str]:
    """Return a row's cells, as a spreadsheet reads them: it takes quotes off."""
    header, line = tsv([row(0, **changes)])
    (read,) = csv.reader([line], delimiter="\t")
    return dict(zip(header.split("\t"), read, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "=cmd|' /C calc'!A0",
        '=HYPERLINK("http://x/"&A1,"open")',
        "+1",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1+1",
        "'=1",
    ],
)
def test_a_name_that_is_a_formula_is_a_text_in_a_spreadsheet(name: str) -> None:
    found = cells(build_id=name, working_directory=name, argv=(name,), outputs=((name, "ab/1"),))
    for field in ("build_id", "working_directory"):
        assert found[field].startswith("'")
    # A list is JSON, and no formula begins with a bracket.
    assert found["argv"][0] == found["outputs"][0] == "["


def test_numbers_and_other_texts_are_exported_as_they_are() -> None:
    found = cells(exit_code=-1, build_id="release-7", principal="ann@example.org")
    assert (found["exit_code"], found["build_id"]) == ("-1", "release-7")
    assert found["principal"] == "ann@example.org"


def test_an_export_has_every_field_of_a_row() -> None:
    assert sorted(TSV_FIELDS) == sorted(field.name for field in dataclasses.fields(AuditRow))
