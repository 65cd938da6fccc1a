# SPDX-License-Identifier: Apache-2.0
"""What a request to the server may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.cli.config_files import config_folder
from scripts.cli.option_help import read_help
from scripts.cli.option_types import OptionType, check_device, listed, parse_type
from scripts.cli.renamed import check_renamed
from scripts.errors import InputError

OPTIONS = ("factor", "input_slices")  # of configs/inference.yaml, in its displayable_configs
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
_TYPES = {  # of parameters that are MONAI Label's own
    "result_extension": OptionType("", "choice", EXTENSIONS),
    "result_dtype": parse_type("uint8 | int16 | uint16 | float32 | float64"),  # that its ITK writes
    "result_compress": parse_type("true or false"),
    "save_label": parse_type("true or false"),
    "label_tag": parse_type("name"),
    "logging": parse_type("DEBUG | INFO | WARNING | ERROR"),
}
_BATCH_TYPES = {
    "multi_gpu": parse_type("true or false"),
    "gpus": parse_type("name"),
    "max_workers": parse_type("whole number, from 0"),
    "max_batch_size": parse_type("whole number, from 0"),
}


def option_types() -> dict[str, OptionType]:
    """Types of the options that clients are offered, as the config says them."""
    options = read_help(config_folder() / "inference.yaml").options
    return {option.name: option.type for option in options if option.name in OPTIONS and option.type is not None}


def check(params: Any, devices: Sequence[str], batch: bool = False) -> None:
    """
    Check the parameters of a request; one that is None, or an option that is empty, counts as not given.

    Args:
        params: as they come from JSON.
        devices: names that MONAI Label offers for the devices of this machine.
        batch: whether a batch is asked for, which takes more of them.

    Raises:
        InputError: they are no mapping, one is unknown or has another name now, or has a value that it cannot have.
    """
    if not isinstance(params, Mapping):
        raise InputError(f'params {params!r}: give a JSON object, such as {{"factor": 8}}')
    options = option_types()
    types = {**options, **_TYPES, **(_BATCH_TYPES if batch else {})}
    for name, value in params.items():
        try:
            if name == "device":
                # "cuda" is what MONAI Label sends by itself; it takes the CPU where there is no GPU
                if value not in (None, "", "cuda", *devices):
                    check_device(name, value)
            elif name not in types:
                check_renamed(name)
                raise InputError(f"{name}: there is no such parameter; there are {listed([*types, 'device'], 'and')}")
            elif value is not None and not (name in options and value == ""):
                types[name].check(name, value)
        except InputError as error:
            raise InputError(plain(error)) from None


def plain(error: BaseException | str) -> str:
    """Return the line of an error without the hyphens of the command line before a name."""
    return " ".join(word[2:] if word[:2] == "--" and word[2:3].isalpha() else word for word in str(error).split())
