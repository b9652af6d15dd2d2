"""The arithmetic of training: each formula once, from scalars to a number or to a dict of numbers.

The lowest room, beside `errors` and `units`: `models`, `train`, `parallel` and `plan` all call what stands
here, so no formula is written twice. The arguments are checked by those who call.

The functions keep to a small part of Python, which `coursekit.plan` translates into JavaScript for the
planner's page: assignments, if/elif/else, return, arithmetic, comparisons, and/or/not, min, max,
math.ceil/floor/sqrt/log/exp, dict literals and `parts["name"]`, `total(parts)`, and calls of each other by
position or by keyword. No default values and no loops.
"""
