# SPDX-License-Identifier: Apache-2.0
"""Weights files: plain state dicts of tensors, loadable with ``torch.load(weights_only=True)``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from scripts.errors import InputError
from scripts.io.tensors import write_tensors

Network = TypeVar("Network", bound=nn.Module)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict of ``network``, parameters in half precision; nothing half-written is left under ``path``.

    Half precision is finer than the bfloat16 that a GPU computes in, and halves the file. Settings keep their digits.

    Raises:
        InputError: if the file cannot be written.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    state.update({name: state[name].half() for name, _ in network.named_parameters()})
    write_tensors(path, state)


def load_weights(network: Network, path: str | Path, option: str = "--weights") -> Network:
    """Load a weights file into ``network`` and return it in evaluation mode.

    Raises:
        InputError: if the file is missing, is no weights file, belongs to another network or was trained with other settings.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file; train it first or point {option} to a weights file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for files that are not its own
        raise InputError(
            f"{option} {path}: not a weights file of tensors (or truncated); give one saved by this bundle"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{option} {path}: not a plain state dict of tensors; give a file saved by this bundle")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{option} {path}: weights of another network: {_first_difference(error)}") from error
    return network.eval()


def _first_difference(error: RuntimeError) -> str:
    """The part of torch's many-line message a user can act on."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    settings = [line for line in lines if line.startswith(("the weights were trained with", "the weights have no"))]
    line = (settings or lines or [str(error)])[0]
    line = line if len(line) <= 200 else line[:197] + "..."
    return f"{line}; use the configuration it was trained with"
