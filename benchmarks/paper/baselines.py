# SPDX-License-Identifier: Apache-2.0
"""Interpolations that are scored beside the networks; those of published code are labeled as what they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F

ALIGNED = ("aligned linear", "aligned cubic")
"""Those of ``scripts.transforms.axial_interpolate``; the better one is what a gain is over."""


def misaligned_interpolation(volume: torch.Tensor, factor: int, mode: str = "bicubic") -> torch.Tensor:
    """Interpolation along Z with ``torch.nn.functional.interpolate(align_corners=False)``, as comparisons in papers use
    it.

    That function takes slices for windows: it puts the center of slice i at plane factor * i + (factor - 1) / 2, where
    a volume made by keeping every factor-th slice has it at plane factor * i. The result is (factor - 1) / 2 planes
    off, 3.5 at a factor of 8, and its scores against the truth are those of the shift. Not to be used for anything
    else.

    Args:
        volume: slices (C, X, Y, K).
        factor: whole number.
        mode: "bicubic", in XZ planes (with torch's own cubic, a = -0.75), or "trilinear"; both leave X and Y as they
            are.

    Returns:
        (C, X, Y, factor * K). The first (K - 1) * factor + 1 planes are those that a truth of that depth is compared
        with.

    Raises:
        ValueError: for another mode.
    """
    slices = volume.shape[-1]
    if mode == "bicubic":
        planes = volume.transpose(1, 2)  # (C, Y, X, K): XZ planes are images
        size = (planes.shape[2], slices * factor)
        return F.interpolate(planes, size=size, mode=mode, align_corners=False).transpose(1, 2)
    if mode == "trilinear":
        size = (*volume.shape[1:3], slices * factor)
        return F.interpolate(volume[None], size=size, mode=mode, align_corners=False)[0]
    raise ValueError(f"mode {mode}: bicubic or trilinear")
