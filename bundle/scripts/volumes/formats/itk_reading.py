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

"""What itk reads of NRRD and MetaImage files: the affine, and voxels that are spread over several files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def itk_affine(reader: str, path: Path, places: tuple[int, ...], oriented: bool) -> np.ndarray:
    """
    Return the affine that the header of a file gives.

    itk brings every space to left-posterior-superior (LPS) coordinates; ours are right-anterior-superior (RAS), as
    those of NIfTI and MONAI, so that X and Y change their signs.

    Args:
        reader: itk's class for the format.
        path: file to read.
        places: indices of X, Y and Z among the axes in space.
        oriented: whether the file gives directions of its axes. If not, they are taken as they are.

    Raises:
        OSError: itk does not understand the header.
    """
    import itk  # not before such a file is opened

    with _reason_raised():
        io = getattr(itk, reader).New()
        io.SetFileName(str(path))
        io.ReadImageInformation()
    affine = np.eye(4)
    of_space = sorted(places) if oriented else places  # the axes of the volume may be named anew, not those of space
    for column, place in enumerate(places):
        along = [float(io.GetDirection(place)[row]) for row in of_space] if oriented else np.eye(3)[column]
        affine[:3, column] = np.asarray(along) * float(io.GetSpacing(place))
        affine[column, 3] = float(io.GetOrigin(of_space[column]))
    if oriented:
        affine[:2] *= -1
    return affine


def itk_voxels(path: Path) -> np.ndarray:
    """
    Return the voxels of a volume (x, y, z).

    Raises:
        OSError: itk cannot decode them.
    """
    import itk  # not before such a file is opened

    with _reason_raised():
        voxels: np.ndarray = itk.array_from_image(itk.imread(str(path))).T
        return voxels


@contextmanager
def _reason_raised() -> Iterator[None]:
    """Raise an OSError with the last line of what itk says of a file, of which the first ones are places in its code."""
    try:
        yield
    except TypeError as error:
        raise OSError("itk has no images of this type of voxel") from error
    except RuntimeError as error:
        lines: Any = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise OSError(lines[-1] if lines else "itk cannot read it") from error
