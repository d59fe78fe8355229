"""Each check of a recorded link is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

LINKS = "tests/integration/builds/test_links_same.py::"
COMMANDS = "tests/unit/cache/links/test_command.py::"
FILE, COMMAND = "cache/links/links.py", "cache/links/command.py"

CASES = {
    "environment": Case(FILE, " or refusal_of(env, arguments)", "",
                        LINKS + "test_a_variable_that_edits_the_command_keeps_it"),
    "pipe": Case(FILE, "return None if has_pipe else command", "return command", LINKS + "test_a_pipe_is_read_once"),
    "place": Case(FILE, 'b"-Xlinker", word, *request.argv[1:])', '*request.argv[1:], b"-Xlinker", word)',
                  LINKS + "test_a_last_word_without_its_value_takes_the_word_that_it_took"),
    "output": Case(FILE, "            return  # a script named another file", "            pass",
                   LINKS + "test_an_output_that_a_script_names_is_not_recorded_as_another"),
    "way": Case(FILE, "    except UncacheableError:\n        return False\n", "    except UncacheableError:\n        pass\n",
                LINKS + "test_a_name_that_led_elsewhere_has_no_digest"),
    "words": Case(COMMAND, "|-[oy].*|", "|", COMMANDS + "test_any_other_command_runs_as_it_is"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
