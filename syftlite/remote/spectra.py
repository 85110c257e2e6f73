"""Histograms and spectra, whose parts no pointer can follow: by their formulas.

    histogram      how many elements lie between two edges
    stft           transforms of the overlapping windows of a signal
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.remote.rules import formula_of, rule_of

# -- counts


def _counts(x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor | None, density: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of ``x`` lie in [edges[i], edges[i + 1]), the last one closed."""
    bins = edges.shape[0] - 1
    places = torch.searchsorted(edges, x.flatten(), right=True) - 1
    places = torch.where(x.flatten() == edges[-1], bins - 1, places)
    inside = (x.flatten() >= edges[0]) & (x.flatten() <= edges[-1])
    weights = torch.ones_like(x.flatten()) if weight is None else weight.flatten()
    found = edges.new_zeros(bins + 1).index_add(0, torch.where(inside, places, bins), weights.to(edges.dtype))[:bins]
    return (found / (found.sum() * edges.diff()) if density else found), edges


@formula_of(aten.histogram.bins_tensor)
def _histogram(
    x: torch.Tensor, bins: torch.Tensor, weight: torch.Tensor | None = None, density: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    return _counts(x, bins, weight, density)


@formula_of(aten.histogram.bin_ct)
def _histogram_of(
    x: torch.Tensor, bins: int = 100, range: Sequence[float] | None = None, weight: torch.Tensor | None = None, density: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Without ``range`` from the least to the largest; where these are one, half a unit to both sides."""
    if bins < 1:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins}")
    if range is None and x.numel():
        low, high = x.min(), x.max()
    else:
        low, high = (x.new_full((), end) for end in range or (0.0, 0.0))
    flat = (low == high).to(x.dtype) / 2
    low, high = low - flat, high + flat
    steps = x.new_ones(bins + 1).cumsum(0) - 1
    width = (high - low) / bins
    edges = torch.where(steps < (bins + 1) // 2, low + steps * width, high - (bins - steps) * width)
    return _counts(x, edges, weight, density)


# -- spectra


def _windows(x: torch.Tensor, n_fft: int, hop: int, window: torch.Tensor | None, length: int) -> torch.Tensor:
    """A signal (n, time) in overlapping windows (n, frames, n_fft)."""
    frames = x.unfold(-1, n_fft, hop)
    if window is None:
        window = x.new_ones(length)
    if length < n_fft:
        left = (n_fft - length) // 2
        window = torch.nn.functional.pad(window, (left, n_fft - length - left))
    return frames * window


@rule_of(aten.stft.default)
def _stft(
    func: Any, x: torch.Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: torch.Tensor | None = None, normalized: bool = False, onesided: bool | None = None, return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> torch.Tensor:  # fmt: skip
    length, hop = n_fft if win_length is None else win_length, n_fft // 4 if hop_length is None else hop_length
    if not 0 < length <= n_fft or hop < 1 or align_to_window or (window is not None and tuple(window.shape) != (length,)):
        raise RuntimeError(f"stft: n_fft {n_fft}, hop_length {hop}, win_length {length} and the window do not fit")
    frames = _windows(x, n_fft, hop, window, length)
    real = not frames.is_complex()
    if return_complex is None and real:
        raise RuntimeError("stft requires the return_complex parameter be given for real inputs")
    norm = "ortho" if normalized else "backward"
    spectrum = torch.fft.rfft(frames, norm=norm) if real and onesided is not False else torch.fft.fft(frames, norm=norm)
    spectrum = spectrum.transpose(-2, -1)
    return torch.view_as_real(spectrum) if return_complex is False else spectrum


@rule_of(aten.stft.center)
def _centered(
    func: Any, x: torch.Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: torch.Tensor | None = None, center: bool = True, pad_mode: str = "reflect", *rest: Any, **options: Any,
) -> torch.Tensor:  # fmt: skip
    if center:
        padded = torch.nn.functional.pad(x.reshape(1, -1, x.shape[-1]), (n_fft // 2, n_fft // 2), mode=pad_mode)
        x = padded.reshape(*x.shape[:-1], -1)
    return torch.stft(x, n_fft, hop_length, win_length, window, False, pad_mode, *rest, **options)
