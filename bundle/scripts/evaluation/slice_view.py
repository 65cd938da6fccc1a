# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""One slice of a volume on the axes of a figure, in units of length, with a scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib_scalebar.scalebar import ScaleBar
from scipy import ndimage
from scripts.evaluation.tables import SYMBOLS

_LONGEST = 1.5  # sides of a view; of a longer slice the middle is shown


class View(NamedTuple):
    """The rectangle of a slice that is shown, in units of length; rows run downwards.

    Attributes:
        left, right: edges along the columns of the slice.
        top, bottom: edges along its rows.
    """

    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        """Length along the columns."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Length along the rows."""
        return self.bottom - self.top


def draw_slice(ax: Axes, image: np.ndarray, spacing: np.ndarray, view: View, **style: Any) -> Any:
    """Show part of a slice, each voxel as a block of its true size.

    Args:
        ax: to draw on.
        image: slice (rows, columns), with the center of its voxel (0, 0) at the origin.
        spacing: voxel size (along columns, along rows).
        view: what is shown.
        **style: for `matplotlib.axes.Axes.imshow`, such as the color map and its limits.

    Returns:
        Matplotlib's image, which a color bar can be made for.
    """
    rows, columns = image.shape
    extent = (-0.5 * spacing[0], (columns - 0.5) * spacing[0], (rows - 0.5) * spacing[1], -0.5 * spacing[1])
    artist = ax.imshow(image, extent=extent, interpolation="nearest", aspect="equal", **style)
    ax.set(xlim=(view.left, view.right), ylim=(view.bottom, view.top), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return artist


def central_view(shape: Sequence[int], spacing: np.ndarray) -> View:
    """Return the whole of a slice, or its middle where one side is far longer than the other.

    Args:
        shape: of the slice (rows, columns).
        spacing: voxel size (along columns, along rows).
    """
    lengths = np.array([shape[1] * spacing[0], shape[0] * spacing[1]])
    shown = np.minimum(lengths, _LONGEST * lengths.min())
    left, top = (lengths - shown) / 2 - 0.5 * spacing
    return View(float(left), float(left + shown[0]), float(top), float(top + shown[1]))


def detail_view(image: np.ndarray, spacing: np.ndarray, view: View) -> View:
    """Return the square with the most contrast, where volumes are worth comparing.

    Args:
        image: slice (rows, columns).
        spacing: voxel size (along columns, along rows).
        view: to choose the square from; its shorter side is 2.6 times that of the square.
    """
    side = min(view.width, view.height) / 2.6
    window = np.maximum(1, np.rint(side / spacing[::-1])).astype(int)
    variance = ndimage.uniform_filter(image**2, window) - ndimage.uniform_filter(image, window) ** 2
    rows, columns = (np.arange(n) for n in image.shape)
    x, y = columns * spacing[0], rows * spacing[1]
    fits_x = (x - side / 2 >= view.left) & (x + side / 2 <= view.right)
    fits_y = (y - side / 2 >= view.top) & (y + side / 2 <= view.bottom)
    variance[~fits_y] = -np.inf
    variance[:, ~fits_x] = -np.inf
    row, column = np.unravel_index(variance.argmax(), variance.shape)
    left = float(np.clip(x[column] - side / 2, view.left, view.right - side))
    top = float(np.clip(y[row] - side / 2, view.top, view.bottom - side))
    return View(left, left + side, top, top + side)


def add_scale_bar(ax: Axes, unit: str) -> None:
    """Add a bar of a round length in the lower left corner.

    Args:
        ax: with a slice on it.
        unit: of its axes: "micrometer", "nanometer", "millimeter" or "pixel".
    """
    bar = ScaleBar(
        1.0,
        SYMBOLS[unit],
        dimension="pixel-length" if unit == "pixel" else "si-length",
        location="lower left",
        length_fraction=0.3,
        width_fraction=0.02,
        border_pad=0.6,
        pad=0.3,
        color="white",
        box_color="black",
        box_alpha=0.45,
        scale_loc="top",
        font_properties={"size": 10, "weight": "bold"},
    )
    ax.add_artist(bar)
