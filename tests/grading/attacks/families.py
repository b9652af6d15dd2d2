"""All attacks, and the few that stand for them where time is short."""

from __future__ import annotations

from . import (
    exhaustion,
    files,
    html,
    killing,
    lying,
    outliving,
    patching,
    poisoned,
    protocol,
    reading,
    shell,
    structure,
    writing,
)
from .corpus import Attack

MODULES = (
    shell,
    patching,
    lying,
    outliving,
    reading,
    writing,
    exhaustion,
    killing,
    protocol,
    poisoned,
    structure,
    files,
    html,
)
ATTACKS: dict[str, Attack] = {attack.name: attack for module in MODULES for attack in module.ATTACKS}
assert len(ATTACKS) == sum(len(module.ATTACKS) for module in MODULES), "two attacks of one name"
FEW = (
    "ast_transformer_empties_tests",
    "code_of_expect_close_is_exchanged",
    "integer_that_equals_everything",
    "daemon_by_two_forks",
    "tests_in_the_gradebook",
    "grades_of_everybody",
    "secrets_sent_by_a_child",
    "hard_exit",
    "errors_are_dropped",
    "second_copies_of_tests",
    "link_to_anothers_notebook",
    "html_representation",
)
