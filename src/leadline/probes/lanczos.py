"""Lanczos iterations on operators that are only known by their products: eigenvalues and singular values.

Both keep their whole basis and orthogonalise against it twice, so that they repeat no value through rounding
(Golub & Van Loan, Matrix Computations, 4th edition, sections 10.3 and 10.4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tridiagonal:
    """The matrix T of a symmetric operator on the space that k steps have reached, and what leads out of it."""

    diagonal: Floats  # k
    off_diagonal: Floats  # k - 1
    rest: float  # norm of the vector that would come next
    basis: Tensor  # k x length, orthonormal: the rows of Q'

    def eigen(self) -> tuple[Floats, Floats]:
        """Return eigenvalues in ascending order (k) and eigenvectors as columns (k x k); NaN where T is not finite."""
        matrix = np.diag(self.diagonal) + np.diag(self.off_diagonal, 1) + np.diag(self.off_diagonal, -1)
        if not np.isfinite(matrix).all():
            return np.full(len(matrix), np.nan), np.full(matrix.shape, np.nan)
        values, vectors = np.linalg.eigh(matrix)
        return values, vectors

    def ritz(self) -> tuple[Floats, Floats]:
        """Return approximate eigenvalues in ascending order, and how far at most each is from an eigenvalue."""
        values, vectors = self.eigen()
        return values, np.abs(self.rest * vectors[-1])


def lanczos(
    product: Product,
    start: Tensor,
    steps: int,
    redraw: Callable[[], Tensor] | None = None,
    enough: Callable[[Tridiagonal], bool] | None = None,
) -> Tridiagonal:
    """Tridiagonalise a symmetric operator from a start vector: T = Q' A Q with the start as Q's first column.

    Memory: steps + 2 vectors.

    Args:
        product: v -> A v, for vectors like `start`.
        start: any vector but zero.
        steps: maximum number of products; never more than the vector is long.
        redraw: gives a fresh vector where the space is exhausted early, which finds eigenvalues that are repeated.
            None: stop there; the values found so far are then exact.
        enough: asked after every step whether to stop.
    """
    steps = min(steps, start.numel())
    basis = start.new_empty(steps, start.numel())
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    q = start / _norm(start)
    while True:
        k = len(diagonal)
        basis[k] = q
        w = product(q)
        diagonal.append(_dot(q, w))
        w = orthogonal(w, basis[: k + 1])
        rest = float(_norm(w))
        done = Tridiagonal(np.array(diagonal), np.array(off_diagonal), rest, basis[: k + 1])
        # rounding leaves this much of a vector of which nothing should be left
        exhausted = not rest > 10 * torch.finfo(w.dtype).eps * max(map(abs, [*diagonal, *off_diagonal]))
        if k + 1 == steps or not np.isfinite(rest) or (enough is not None and enough(done)):
            return done
        if exhausted:
            if redraw is None:
                return done
            w, rest = orthogonal(redraw(), basis[: k + 1]), 0.0
        off_diagonal.append(rest)
        q = w / _norm(w)


def singular_values(
    forward: Product,
    adjoint: Product,
    shape: tuple[int, int],
    steps: int,
    draw: Callable[[int], Tensor],
) -> tuple[Floats, Floats]:
    """Approximate singular values of many matrices at once by Golub-Kahan-Lanczos bidiagonalisation.

    With the smaller side's dimension as the number of steps the values are exact. With fewer, the largest is never
    above the true one, and the smallest never below it. Memory: steps x (rows + columns) numbers of each matrix.

    Args:
        forward: A v, from (matrices, columns) to (matrices, rows).
        adjoint: A' u, from (matrices, rows) to (matrices, columns).
        shape: rows and columns.
        steps: maximum number of products with each; never more than the smaller side.
        draw: given a length, gives random vectors (matrices, length).

    Returns:
        Values, descending (matrices, k), and how far at most each is from a singular value. NaN for a matrix that is
        not finite.
    """
    rows, columns = shape
    if rows > columns:
        forward, adjoint, rows, columns = adjoint, forward, columns, rows
    steps = min(steps, rows)
    u = _unit(draw(rows))
    matrices = len(u)
    left, right = u.new_empty(matrices, steps, rows), u.new_empty(matrices, steps, columns)
    alphas, betas = u.new_zeros(matrices, steps), u.new_zeros(matrices, steps)
    scale = u.new_zeros(matrices)
    for k in range(steps):
        left[:, k] = u
        v, alphas[:, k] = _next(adjoint(u), right[:, :k], scale, draw)
        right[:, k] = v
        scale = torch.maximum(scale, alphas[:, k])
        w = forward(v)
        if k + 1 < rows:
            u, betas[:, k] = _next(w, left[:, : k + 1], scale, draw)
            scale = torch.maximum(scale, betas[:, k])
    bidiagonal = np.zeros((matrices, steps, steps))
    inside = np.arange(steps)
    bidiagonal[:, inside, inside] = _array(alphas)
    bidiagonal[:, inside[1:], inside[:-1]] = _array(betas[:, :-1])
    values, errors = np.full((2, matrices, steps), np.nan)
    finite = np.isfinite(bidiagonal).all((1, 2)) & np.isfinite(_array(betas)).all(1)
    if finite.any():
        _, values[finite], right_vectors = np.linalg.svd(bidiagonal[finite])
        # the last column is not part of the matrix: it is what leads out of the space
        errors[finite] = np.abs(_array(betas)[finite, -1:] * right_vectors[:, :, -1])
    return values, errors


def _next(w: Tensor, basis: Tensor, scale: Tensor, draw: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
    """Return each matrix's next basis vector and its coefficient: a fresh vector and 0 where the space is exhausted."""
    w = _orthogonal_each(w, basis)
    norm = _norm(w)
    exhausted = norm <= 10 * torch.finfo(w.dtype).eps * scale
    if exhausted.any():
        fresh = _orthogonal_each(_unit(draw(w.shape[1])), basis)
        w = torch.where(exhausted[:, None], fresh, w)
        return _unit(w), torch.where(exhausted, 0, norm)
    return _unit(w), norm


def orthogonal(w: Tensor, basis: Tensor) -> Tensor:
    """Return what is left of a vector (n) outside the space of orthonormal rows (k x n)."""
    for _ in range(2):
        w = w - basis.T @ (basis @ w)
    return w


def _orthogonal_each(w: Tensor, basis: Tensor) -> Tensor:
    for _ in range(2):
        w = w - torch.einsum("bkn,bk->bn", basis, torch.einsum("bkn,bn->bk", basis, w))
    return w


def _norm(w: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(w, dim=-1)
    return norm


def _unit(w: Tensor) -> Tensor:
    return w / _norm(w)[:, None]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b))


def _array(tensor: Tensor) -> Floats:
    return tensor.cpu().double().numpy()
