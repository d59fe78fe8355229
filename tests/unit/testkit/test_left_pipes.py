"""A test that leaves a pipe open fails itself, and not the test that comes after it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_LEAVES = """
    import asyncio, os

    kept = []

    async def opened(cancels):
        loop = asyncio.get_running_loop()
        if not cancels:
            read, write = os.pipe()
            kept.append(await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0)))
            return
        start = asyncio.create_subprocess_exec("sleep", "60", stdout=asyncio.subprocess.PIPE)
        task = loop.create_task(start)
        while not any("connect_pipes" in str(t) for t in asyncio.all_tasks()):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    def test_one():
        asyncio.run(opened({cancels}))

    def test_two():
        import gc
        kept.clear()
        gc.collect()
"""


@pytest.mark.parametrize(("cancels", "failed"), [(False, 1), (True, 0)])
def test_the_test_that_left_it_is_named(
    pytester: pytest.Pytester, cancels: bool, failed: int
) -> None:
    pytester.makepyfile(_LEAVES.replace("{cancels}", str(cancels)))
    result = pytester.runpytest_subprocess(
        "-p", "hpcc_testkit.suite.pipes", "-p", "no:asyncio", "-W", "error"
    )
    counts = result.parseoutcomes()
    assert counts.get("passed") == 2
    assert (counts.get("errors", 0), counts.get("failed", 0)) == (failed, 0)
    if failed:
        result.stdout.fnmatch_lines(["*test_one left open: *_UnixReadPipeTransport*"])
