"""Each check that keeps a unit with imports here is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

FARM = "tests/integration/cache/test_modules_on_a_farm.py::"
STAYS = FARM + "test_what_could_give_another_object_stays_here"
PLAN, PCH = "cache/imports/plan.py", "cache/imports/precompiled.py"
USERS = "tests/integration/cache/test_precompiled_on_a_farm.py::"

CASES = {
    "alike": Case(PLAN, "        if not self._host.is_alike(job.prepared, image, is_cancelled):\n", "        if False:\n",
                  STAYS + "[other headers]"),
    "known": Case("cache/remote/host_parity.py", "        if not any(name in toolchain.names for toolchain in image or ()):\n            return False\n",
                  "        if image is None:\n            return True\n", STAYS + "[unknown]"),
    "compared": Case(PLAN, "    if not are_compared(others, compared):\n", "    if False:\n", STAYS + "[not compared]"),
    "link": Case(PLAN, "            if os.path.realpath(path) != normal:\n", "            if False:\n", STAYS + "[link]"),
    "flag": Case(PLAN, "        if not is_proved_in_guests(form):\n", "        if False:\n",
                 STAYS + "[flag]"),
    "sources": Case(PLAN, "        every = dict(files.closure.files) | dict(made.files)\n", "        every = dict(files.closure.files)\n",
                    FARM + "test_an_edit_of_a_source_that_no_list_names_is_a_miss"),
    "table": Case(PLAN, "external-contents", "external-content", FARM + "test_a_unit_that_imports_travels"),
    "names": Case(PLAN, "guest = replace(guest_map(prepared, root), shown=root.path)", "guest = guest_map(prepared, root)",
                  FARM + "test_an_object_of_a_shared_project_has_the_names_of_its_interfaces"),
    "texts": Case(PCH, "            found += [] if is_list else [path]\n", "            found += []\n",
                  USERS + "test_what_could_give_another_object_stays_here[clock]"),
    "stale": Case(PCH, "            if self._memo.digest(name) != its:\n", "            if False:\n",
                  USERS + "test_a_unit_with_a_precompiled_header_travels"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
