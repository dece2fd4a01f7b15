"""A dense simplex for the few small linear programs of this package: some ten variables, some thirty rows."""

from __future__ import annotations

from collections.abc import Sequence

NEAR_ZERO = 1e-12


def maximize(
    objective: Sequence[float], rows: Sequence[Sequence[float]], limits: Sequence[float]
) -> tuple[float, list[float]]:
    """The maximum of `objective · x` and an x that attains it, for x >= 0 and `rows · x <= limits`.

    limits: none below 0, so that x = 0 is where the search begins. The maximum must be finite. By Bland's rule the
    pivots never cycle (Bland 1977, New finite pivoting rules for the simplex method).
    """
    num_rows, num_variables = len(rows), len(objective)
    assert all(limit >= 0 for limit in limits), limits
    table = [
        [*map(float, row), *(float(slack == number) for slack in range(num_rows)), float(limits[number])]
        for number, row in enumerate(rows)
    ]
    reduced = [*(-float(value) for value in objective), *[0.0] * (num_rows + 1)]
    basis = [num_variables + number for number in range(num_rows)]
    while (entering := _first_negative(reduced)) is not None:
        ratios = [
            (row[-1] / row[entering], basis[number], number)
            for number, row in enumerate(table)
            if row[entering] > NEAR_ZERO
        ]
        assert ratios, "the program is unbounded"
        leaving = min(ratios)[2]
        pivot = table[leaving] = [value / table[leaving][entering] for value in table[leaving]]
        basis[leaving] = entering
        for number, row in enumerate(table):
            if number != leaving and row[entering]:
                table[number] = _eliminated(row, pivot, entering)
        reduced = _eliminated(reduced, pivot, entering)
    solution = [0.0] * (num_variables + num_rows)
    for number, variable in enumerate(basis):
        solution[variable] = table[number][-1]
    return reduced[-1], solution[:num_variables]


def _first_negative(reduced: Sequence[float]) -> int | None:
    return next((column for column, value in enumerate(reduced[:-1]) if value < -NEAR_ZERO), None)


def _eliminated(row: Sequence[float], pivot: Sequence[float], column: int) -> list[float]:
    factor = row[column]
    return [value - factor * other for value, other in zip(row, pivot, strict=True)]
