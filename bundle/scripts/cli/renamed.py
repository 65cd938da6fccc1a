# SPDX-License-Identifier: Apache-2.0
"""Names of options that were once others, and names of MONAI's that do nothing here, each with what to give in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scripts.errors import InputError

RENAMED = {  # in 0.7; to be forgotten in the version after it
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
}

# Nested names that MONAI's engines and loaders know: what they are in the configs, and what to give instead.
WITHOUT_EFFECT = {
    **{
        f"{engine}#amp": ((None, False, "@amp"), "give --amp")
        for engine in ("evaluator", "validate#evaluator", "train#trainer")
    },
    **{
        f"{part}dataloader#batch_size": ((None, 1), advice)
        for part, advice in (
            (
                "",
                "blocks of a volume have several sizes, one at a time; --tile changes them, in generate.yaml --batch_size",
            ),
            ("train#", "one volume gives a whole batch; --batch_size changes it"),
            ("validate#", "one volume gives a whole batch of patches"),
        )
    },
}


def check_renamed(name: str) -> None:
    """
    Check that the last part of an option's name is none that it had before.

    Args:
        name: as it was given, perhaps nested: ``inferer#kept_slices``.

    Raises:
        InputError: it is; the line names the new one.
    """
    before, separator, last = _normalized(name).rpartition("#")
    if last in RENAMED:
        now, values = RENAMED[last]
        raise InputError(f"--{name} is now --{before}{separator}{now}" + (f" ({values})" if values else ""))


def check_effect(given: Mapping[str, Any] | Callable[[str], Any]) -> None:
    """
    Check that nothing is set which would have no effect.

    Args:
        given: values by nested name, or what returns the value of one, None for a name that is not there.

    Raises:
        InputError: there is such a value.
    """
    value_of = given if callable(given) else {_normalized(name): value for name, value in given.items()}.get
    for name, (accepted, advice) in WITHOUT_EFFECT.items():
        value = value_of(name)
        if value not in accepted:
            raise InputError(f"--{name} {value}: would have no effect: {advice}")


def _normalized(name: str) -> str:
    return name.replace("::", "#")
