"""Both parsers of the launcher protocol agree on every input in the corpus."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.wire import launcher as wire
from hpcc_testkit.cache.launcher import build_tool

CORPUS = Path(__file__).parent / "corpus"
REQUESTS = sorted((CORPUS / "launcher_request").iterdir())
REPLIES = sorted((CORPUS / "launcher_reply").iterdir())


@pytest.mark.parametrize("path", REQUESTS + REPLIES, ids=lambda p: p.name)
def test_the_daemons_parser_answers_each_input_with_a_value_or_its_one_error(path: Path) -> None:
    data = path.read_bytes()
    for decode in (
        lambda: wire.parse_header(data),
        lambda: wire.decode_request(data[wire.HEADER_BYTES :]),
        lambda: wire.decode_report(data[wire.HEADER_BYTES :]),
        lambda: wire.decode_run(data[wire.HEADER_BYTES :]),
        lambda: wire.decode_done(data[wire.HEADER_BYTES :]),
    ):
        try:
            decode()
        except CallerError as error:
            assert error.reason == "malformed-frame"


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_launchers_parser_reads_no_byte_too_many(tmp_path: Path) -> None:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DCORPUS_MAIN"]
    program = build_tool("fuzz_reply.c", tmp_path / "corpus", *flags)
    done = subprocess.run(
        [program, *REPLIES, *REQUESTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
