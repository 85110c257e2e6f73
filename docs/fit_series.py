"""Prints the coefficients of syftlite/mpc/series.py: `python docs/fit_series.py`. A test checks that the table there is what this fits.

Trigonometric series on part of a period: outside that part a series may do what it likes, so it converges though the function does not
repeat (Huybrechs, "On the Fourier extension of nonperiodic functions", 2010). Least squares with weights drawn towards the worst places
(Lawson, 1961), and a small ridge that keeps coefficients small: they multiply the rounding errors of what is dealt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

POINTS, TURNS, RIDGE = 4000, 40, 1e-10
Function = Callable[[np.ndarray], np.ndarray]


class Fit(NamedTuple):
    """What to fit: on (low, high), ``terms`` harmonics of ``period``, odd ones or all; cosines ("c"), sines ("s") or both; the relative
    error counts, or the absolute one."""

    name: str
    function: Function
    low: float
    high: float
    period: int
    terms: int
    odd: bool
    parts: str
    relative: bool


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


def _density(t: np.ndarray) -> np.ndarray:
    return np.exp(-t * t / 2) / math.sqrt(2 * math.pi)


_normal = np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2)))

CURVES: dict[str, tuple[Function, str, float, int, int]] = {
    "sigmoid": (_sigmoid, "s", 12, 64, 16),
    "sigmoid'": (lambda t: _sigmoid(t) * _sigmoid(-t), "c", 12, 64, 16),
    "silu'": (lambda t: _sigmoid(t) * (1 + t * _sigmoid(-t)), "s", 12, 64, 16),
    "normal": (_normal, "s", 5.5, 32, 10),
    "gelu'": (lambda t: _normal(t) + t * _density(t), "s", 5.5, 32, 10),
}
ROOTS: dict[str, Function] = {"reciprocal": lambda t: 1 / t, "rsqrt": lambda t: t**-0.5, "sqrt": np.sqrt, "log": np.log}
FITS = [
    *[Fit(name, f, -end, end, period, terms, True, parts, False) for name, (f, parts, end, period, terms) in CURVES.items()],
    *[Fit(f"{name} 4", f, 1, 4, 8, 6, False, "cs", name != "log") for name, f in ROOTS.items()],
    *[Fit(f"{name} 16", ROOTS[name], 1, 16, 32, 14, False, "cs", name != "log") for name in ("reciprocal", "log")],
]


def coefficients(fit: Fit) -> tuple[np.ndarray, float]:
    """([constant, cosine 1, sine 1, cosine 2, ...], the largest error)."""
    t = fit.low + (fit.high - fit.low) * (1 - np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)) / 2
    wave = 2 * np.pi / fit.period * t
    harmonics = [2 * i + 1 if fit.odd else i + 1 for i in range(fit.terms)]
    basis = np.stack([np.ones_like(t)] + [part(k * wave) for k in harmonics for part in (np.cos, np.sin)], 1)
    unused = [i for i in range(1, basis.shape[1]) if "sc"[i % 2] not in fit.parts]
    basis[:, unused] = 0
    wanted = fit.function(t)
    scale = 1 / np.abs(wanted) if fit.relative else np.ones_like(t)
    basis, wanted = basis * scale[:, None], wanted * scale
    weights = np.ones_like(t)
    for _ in range(TURNS):
        part = basis * np.sqrt(weights)[:, None]
        found = np.linalg.solve(part.T @ part + RIDGE * POINTS * np.eye(basis.shape[1]), part.T @ (wanted * np.sqrt(weights)))
        error = np.abs(basis @ found - wanted)
        weights = weights * np.sqrt(error / error.max() + 0.02)
        weights /= weights.mean()
    return found, float(error.max())


def table() -> str:
    """The table as it stands in series.py."""
    lines = []
    for fit in FITS:
        found, error = coefficients(fit)
        rounded = [round(float(v), 9) + 0.0 for v in found]
        lines.append(f'    "{fit.name}": (  # to within {error:.1e}\n        {rounded[0]},')
        for part, start in (("c", 1), ("s", 2)):
            row = rounded[start::2] if part in fit.parts else []
            rows = ["            " + ", ".join(map(str, row[i : i + 8])) + "," for i in range(0, len(row), 8)]
            lines += ["        (", *rows, "        ),"] if rows else ["        (),"]
        lines.append("    ),")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
