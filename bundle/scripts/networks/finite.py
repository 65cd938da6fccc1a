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

"""Finds numbers that are NaN or infinite in weights, in the state of a training and in what a network puts out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from scripts.errors import InputError
from scripts.volumes.background import to_host


def first_not_finite(values: Any, name: str = "") -> str | None:
    """Where the first number stands that is NaN or infinite: names and indices joined by dots, or None.

    Args:
        values: tensors and numbers in mappings and sequences, as in a state dict. A GPU is waited for once.
        name: of ``values``.
    """
    found = list(_numbers(values, name))
    flags = [torch.as_tensor(value).isfinite().all() for _, value in found]
    on_gpu = [flag for flag in flags if flag.device.type != "cpu"]
    if on_gpu and bool(torch.stack(on_gpu).all()):
        flags = [flag if flag.device.type == "cpu" else torch.tensor(True) for flag in flags]
    return next((place for (place, _), flag in zip(found, flags) if not flag), None)


def _numbers(values: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Floating-point tensors and numbers, each with its place."""
    if isinstance(values, Mapping):
        items: Any = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    else:
        if isinstance(values, float) or (isinstance(values, torch.Tensor) and values.is_floating_point()):
            yield name, values
        return
    for key, value in items:
        yield from _numbers(value, f"{name}.{key}" if name else str(key))


def finite_output(values: torch.Tensor, what: str) -> Callable[[], None]:
    """Begin to check what a network put out; what is returned waits for the result.

    Clipping and rounding would make black, white or gray of it in silence.

    Args:
        values: of any shape.
        what: they are, for the message.

    Raises:
        InputError: by what is returned, if a value is NaN or infinite.
    """
    finite = to_host(values.isfinite().all())

    def check() -> None:
        if not finite():
            raise InputError(
                f"{what} came out of the network as NaN or infinite: try --amp false; if it stays so, the weights do "
                "not suit "
                "this volume, train on it or give other --weights"
            )

    return check
