"""No attack gains anything from the pipeline, and each gains what it is after where nothing defends."""

import os

import pytest

from coursekit.grading.sandbox.probe import probe

from . import box, exhaustion, outcome, outliving, reading, writing
from .corpus import FULL
from .families import ATTACKS, FEW, MODULES
from .not_defended_yet import NOT_DEFENDED_YET

# What the system counts by user, what root's keeper sees that another's may not, and whose files lie about.
OF_THE_MACHINE = ("fork_bomb", "thread_bomb", "memory", "names_of_sockets", "sessions", "stopped_process")
OF_THE_MACHINE += ("tests_in_the_gradebook", "grades_of_everybody", "secrets_sent_by_a_child")

pytestmark = pytest.mark.timeout(900)  # each waits for the others


def harm(name, seen, secrets):
    """What an attack achieved, as sentences; each attack is held to all of them, whatever it was after."""
    attack, found = ATTACKS[name], []
    if seen.score is None:
        found.append("has no grade")
    elif seen.score > attack.honest:
        found.append(f"{seen.score} points of {attack.honest}")
    if outcome.leaks(seen.page, secrets):
        found.append("a secret on the page")
    if outcome.runs_script(seen.page, name):
        found.append("a script on the page")
    if seen.size > outcome.OUTPUT_BYTES:
        found.append(f"{seen.size} bytes to open")
    if outcome.gained(attack, seen, secrets):
        found.append(attack.gain)
    return found


def harms(seen, secrets):
    """A line for each attack that achieved something."""
    every = {name: harm(name, one, secrets) for name, one in seen.items() if name in ATTACKS}
    return [f"{ATTACKS[name].family}: {name}: {', '.join(found)}" for name, found in every.items() if found]


def in_vain(seen, secrets):
    """A line for each attack that did not get what it was after, with what was seen in its stead."""
    failed = [
        name for name in seen if name in ATTACKS and not outcome.gained(ATTACKS[name], seen[name], secrets)
    ]
    return [f"{name}: {seen[name].score} points, {seen[name].page[-200:]!r}" for name in failed]


def check_defended(attack_range, folder, names, **environment):
    names = [name for name in names if name not in NOT_DEFENDED_YET]
    seen = attack_range.defended(folder, names, **environment)
    found = harms(seen, attack_range.secrets)
    assert not found, "\n".join(found)
    neighbour = seen["neighbour"]
    assert neighbour.score == FULL
    assert not neighbour.changed
    assert (neighbour.survivors, neighbour.marks, neighbour.callers) == ([], [], [])


def check_undefended(attack_range, folder, names):
    seen = attack_range.undefended(folder, names)
    assert in_vain(seen, attack_range.secrets) == []
    honest = seen["honest"]
    assert honest.score == 2.0  # so that points beyond the honest part come from the attack
    assert not outcome.leaks(honest.page, attack_range.secrets)
    assert (honest.changed, honest.survivors) == (False, [])


def test_there_are_enough_attacks_in_every_family():
    assert len(ATTACKS) >= 60
    assert all(len(module.ATTACKS) >= 6 for module in MODULES)


def test_a_few_attacks_gain_nothing(attack_range, tmp_path):
    check_defended(attack_range, tmp_path, list(FEW))


def test_the_few_attacks_succeed_without_the_defences(attack_range, tmp_path):
    check_undefended(attack_range, tmp_path, list(FEW))


@pytest.mark.slow
def test_no_attack_gains_anything(attack_range, tmp_path):
    check_defended(attack_range, tmp_path, list(ATTACKS))


@pytest.mark.slow
def test_no_attack_on_the_machine_gains_anything_where_namespaces_are_refused(attack_range, tmp_path):
    if not probe().granted >= {"landlock", "landlock_signals", "system_calls"}:
        pytest.xfail("without namespaces this machine has nothing to defend with; `grade` says so and asks")
    attacks = [attack for module in (reading, writing, exhaustion, outliving) for attack in module.ATTACKS]
    # Without a network of its own a kernel's sockets cannot be told from those of others.
    names = [attack.name for attack in attacks if attack.name != "memory_of_sockets"]
    check_defended(attack_range, tmp_path, names, REFUSE_NAMESPACES="1")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are an ordinary user's here")
@pytest.mark.parametrize("refused", [{}, {"REFUSE_NAMESPACES": "1"}], ids=["namespaces", "none"])
def test_no_attack_gains_anything_from_an_ordinary_user(attack_range, tmp_path, refused):
    if not probe().granted >= {"files", "landlock", "landlock_signals", "system_calls"}:
        pytest.skip("it takes a file system of one's own to show an ordinary user root's interpreter")
    names = [*(attack.name for attack in outliving.ATTACKS), *OF_THE_MACHINE]
    check_defended(attack_range, tmp_path, names, ORDINARY_USER="1", **refused)
    assert (tmp_path / "report.json").stat().st_uid == box.ORDINARY_USER


@pytest.mark.slow
def test_every_attack_succeeds_without_the_defences(attack_range, tmp_path):
    check_undefended(attack_range, tmp_path, list(ATTACKS))
