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

"""Former names of options, and MONAI options without effect in this bundle, each with what to give instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scripts.errors import InputError

RENAMED = {  # in 0.7; remove in the version after it
    "kept_slices": ("input_slices", "copy or predict"),
    "ensemble": ("tta", ""),
    "gap_range": ("train_factors", ""),
    "val_gap": ("val_factor", ""),
    "reconstruction_factor": ("input_factor", ""),
    "upsampling": ("prior_factor", ""),
    "evaluations": ("num_steps", ""),
    "val_evaluations": ("val_num_steps", ""),
    "downsampling": ("pixel_unshuffle", ""),
    "kept_probability": ("input_slice_probability", ""),
    "depths": ("num_targets", ""),
}

# Values of --network before 0.7; network is now the module, as in the model zoo.
_NOW_ARCHITECTURE = ("aenet", "srunet")

# Arguments of MONAI's engines and loaders: their values in the configs, and what to give instead of another one.
WITHOUT_EFFECT = {
    **{
        f"{engine}#amp": ((None, False, "@amp"), "give --amp")
        for engine in ("evaluator", "validate#evaluator", "train#trainer")
    },
    "dataloader#batch_size": ((None, 1), "blocks of a volume have several sizes, one at a time; --tile changes them"),
}


def check_renamed(name: str) -> None:
    """
    Refuse a former name of an option.

    Args:
        name: as it was given, perhaps nested: ``inferer#kept_slices``.

    Raises:
        InputError: the last part of the name is one; the line gives the new name.
    """
    before, separator, last = _normalized(name).rpartition("#")
    if last in RENAMED:
        now, values = RENAMED[last]
        raise InputError(f"--{name} is now --{before}{separator}{now}" + (f" ({values})" if values else ""))


def check_effect(given: Mapping[str, Any] | Callable[[str], Any]) -> None:
    """
    Refuse settings that would have no effect, and an architecture under its former name.

    Args:
        given: values by nested name, or a function that returns the value of a name, None for an unknown one.

    Raises:
        InputError: there is such a value.
    """
    value_of = given if callable(given) else {_normalized(name): value for name, value in given.items()}.get
    if value_of("network") in _NOW_ARCHITECTURE:
        raise InputError(f"--network {value_of('network')} is now --architecture {value_of('network')}")
    for name, (accepted, advice) in WITHOUT_EFFECT.items():
        value = value_of(name)
        if value not in accepted:
            raise InputError(f"--{name} {value}: would have no effect: {advice}")


def _normalized(name: str) -> str:
    return name.replace("::", "#")
