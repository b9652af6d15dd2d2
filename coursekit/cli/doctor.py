"""The `coursekit doctor` command."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    grading: Annotated[bool, typer.Option("--grading", help="What keeps students' code in its box.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what this machine has for training and what to mend; exit status 1 if it is not enough."""
    if grading:
        _grading(as_json)
    else:
        _training(as_json)


def _training(as_json: bool) -> None:
    import dataclasses
    import json

    from coursekit.models import preset
    from coursekit.plan import check_machine, suggest_settings, this_machine

    machine = this_machine()
    checks, settings = check_machine(machine), suggest_settings(machine, preset("gpt2"))
    if as_json:
        report = {
            "machine": dataclasses.asdict(machine),
            "checks": [dataclasses.asdict(check) for check in checks],
            "settings": dataclasses.asdict(settings),
        }
        typer.echo(json.dumps(report, indent=1))
    else:
        _print(machine, checks, settings)
    if any(check.verdict == "short" for check in checks):
        raise typer.Exit(1)


def _print(machine, checks, settings) -> None:
    colours = {"ok": "green", "enough": "yellow", "short": "red"}
    for check in checks:
        lines = _lines(f"{check.topic}: {check.found}", indent=7)
        lines += _lines(f"asks for {check.minimum}; better {check.recommended}", indent=7)
        if check.mend:
            lines += _lines(f"-> {check.mend}", indent=7)
        mark = typer.style(f"{check.verdict:<7}", fg=colours[check.verdict])
        typer.echo("\n".join([mark + lines[0][7:], *lines[1:]]))
    for source in machine.bound_by:
        typer.echo("\n".join(_lines(f"note: the {source} allows no more", indent=0)))
    typer.echo("\nto begin with, for GPT-2 (124 M):")
    for name, reason in settings.reasons.items():
        typer.echo("\n".join(_lines(f"{name} {getattr(settings, name)}: {reason}", indent=2)))


def _lines(text: str, *, indent: int) -> list[str]:
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, 100)
    spaces = " " * indent
    return textwrap.wrap(text, width, initial_indent=spaces, subsequent_indent=spaces)


def _grading(as_json: bool) -> None:
    from coursekit.errors import InputError
    from coursekit.grading.sandbox.probe import PROTECTS, probe

    if as_json:
        raise InputError("no JSON of what protects grading", fix="leave out --json or --grading")
    protection = probe()
    for name, what in PROTECTS.items():
        why = protection.refused.get(name)
        _say(f"{name}: {what}" + (f"; refused: {why}" if why else ""), mark="no" if why else "yes")
    if "network" in protection.refused and "system_calls" in protection.granted:
        _say("note: no network at all in the box; exercises that start several processes cannot run in it")
    if protection.missing:
        _say(f"NOT PROTECTED: {', '.join(protection.missing)}; `coursekit grade` will ask before it goes on")
        raise typer.Exit(1)
    _say("graded code is kept from the grader's files, from the network and from other processes")


def _say(text: str, *, mark: str = "") -> None:
    """Print a text in the terminal's width, indented behind its mark."""
    lines = _lines(text, indent=5 if mark else 0)
    typer.echo("\n".join([f"{mark:<5}" * bool(mark) + lines[0].lstrip(), *lines[1:]]))
