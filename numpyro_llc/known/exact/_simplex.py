"""Packing linear programs in exact arithmetic, with the dimension of the dual's optimal face."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

Row = list[Fraction]


class Packing:
    """Maximize ``Σ y`` subject to ``Uᵀ y ≤ b`` and ``y ≥ 0``, by the simplex method in fractions.

    Bland's rule keeps it from cycling, and ``y = 0`` starts it, so every answer is exact. The dual
    is the covering problem ``min b·a`` subject to ``U a ≥ 1`` and ``a ≥ 0``.

    Columns of the tableau are the `rows` variables y, the `columns` slacks, and the right side.
    """

    def __init__(self, matrix: Sequence[Sequence[int]], bounds: Sequence[int]) -> None:
        self.rows, self.columns = len(matrix), len(bounds)
        self.size = self.rows + self.columns
        self.tableau: list[Row] = [
            [Fraction(row[i]) for row in matrix]
            + [Fraction(int(i == j)) for j in range(self.columns)]
            + [Fraction(bounds[i])]
            for i in range(self.columns)
        ]
        self.basis = list(range(self.rows, self.size))
        self.costs = [Fraction(-1)] * self.rows + [Fraction(0)] * (self.columns + 1)
        self._maximize(self.costs, range(self.size))

    @property
    def value(self) -> Fraction:
        """The common optimum of both problems."""
        return self.costs[-1]

    @property
    def packing(self) -> Row:
        """An optimal y."""
        return self._solution()[: self.rows]

    @property
    def cover(self) -> Row:
        """An optimal a of the dual."""
        return self.costs[self.rows : self.size]

    def cover_face_dimension(self, matrix: Sequence[Sequence[int]]) -> int:
        """Return the dimension of the set of optimal covers a.

        By strict complementarity a constraint of the cover holds with equality on the whole set
        exactly where its multiplier is positive in some optimal packing.
        """
        # Optimal packings use only the columns of zero reduced cost.
        allowed = [j for j in range(self.size) if self.costs[j] == 0]
        positive, found = set[int](), self._positive()
        while found - positive:
            positive |= found
            self._maximize(self._costs_of(set(allowed) - positive), allowed)
            found = self._positive()
        tight = [
            [Fraction(entry) for entry in matrix[j]]
            if j < self.rows
            else [Fraction(int(i == j - self.rows)) for i in range(self.columns)]
            for j in sorted(positive)
        ]
        return self.columns - rank(tight)

    def _solution(self) -> Row:
        values = [Fraction(0)] * self.size
        for i, column in enumerate(self.basis):
            values[column] = self.tableau[i][-1]
        return values

    def _costs_of(self, wanted: set[int]) -> Row:
        """Reduced costs of maximizing a sum of variables, from the basis as it stands."""
        costs = [Fraction(-int(j in wanted)) for j in range(self.size + 1)]
        for column, row in zip(self.basis, self.tableau, strict=True):
            if column in wanted:
                costs = [x + y for x, y in zip(costs, row, strict=True)]
        return costs

    def _maximize(self, costs: Row, allowed: Sequence[int]) -> None:
        while (entering := next((j for j in allowed if costs[j] < 0), None)) is not None:
            # Never unbounded: each row of the matrix has a positive entry, and slacks are bounded.
            _, _, leaving = min(self._ratios(entering))
            self._pivot(leaving, entering)
            factor = costs[entering]
            for j, entry in enumerate(self.tableau[leaving]):
                costs[j] -= factor * entry

    def _ratios(self, entering: int) -> Iterator[tuple[Fraction, int, int]]:
        for i, row in enumerate(self.tableau):
            if row[entering] > 0:
                yield row[-1] / row[entering], self.basis[i], i

    def _pivot(self, leaving: int, entering: int) -> None:
        pivot = self.tableau[leaving]
        scale = pivot[entering]
        pivot[:] = [entry / scale for entry in pivot]
        for i, row in enumerate(self.tableau):
            if i != leaving and (factor := row[entering]):
                row[:] = [x - factor * y for x, y in zip(row, pivot, strict=True)]
        self.basis[leaving] = entering

    def _positive(self) -> set[int]:
        return {j for j, value in enumerate(self._solution()) if value > 0}


def rank(rows: list[Row]) -> int:
    """Return the rank of a matrix of fractions."""
    rows, found = [list(row) for row in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for row in rows[found + 1 :]:
            factor = row[column] / rows[found][column]
            row[:] = [x - factor * y for x, y in zip(row, rows[found], strict=True)]
        found += 1
    return found
