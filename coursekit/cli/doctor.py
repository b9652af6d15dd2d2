"""The `coursekit doctor` command."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    grading: Annotated[bool, typer.Option("--grading", help="What keeps students' code in its box.")] = False,
) -> None:
    """Say what this machine protects while students' code is graded; exit status 1 if not enough."""
    from coursekit.errors import InputError
    from coursekit.grading.sandbox.probe import PROTECTS, probe

    if not grading:
        raise InputError("nothing to look at", fix="run: coursekit doctor --grading")
    protection = probe()
    for name, what in PROTECTS.items():
        why = protection.refused.get(name)
        typer.echo(
            f"{'no ' if why else 'yes'}  {name:<13} {what}" + (f"\n     refused: {why}" if why else "")
        )
    if "network" in protection.refused and "system_calls" in protection.granted:
        typer.echo(
            "note: no network at all in the box; exercises that start several processes cannot run in it"
        )
    if protection.missing:
        typer.echo(
            f"NOT PROTECTED: {', '.join(protection.missing)}; `coursekit grade` will ask before it goes on"
        )
        raise typer.Exit(1)
    typer.echo("graded code is kept from the grader's files, from the network and from other processes")
