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

"""Weights files: plain state dicts of tensors, loadable with ``torch.load(weights_only=True)``.

A file is all that is needed to use a network again: its shapes say how large the network is (``architecture.py``), and
the numbers that it was trained with stand beside the weights (``trained_settings.py``). ``factory.py`` builds the
network of a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from scripts.errors import InputError
from scripts.networks.finite import first_not_finite
from scripts.networks.tensor_file import check_zip, write_tensors
from scripts.networks.trained_settings import current_name
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

# What was read to build a network, for the load that follows: to read and check a file twice takes twice as long.
_read_before: WeakKeyDictionary[nn.Module, tuple[Any, dict[str, torch.Tensor]]] = WeakKeyDictionary()
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict of ``network``, parameters in half precision; nothing half-written is left under ``path``.

    Half precision is finer than the bfloat16 that a GPU computes in, and halves the file. Settings keep their digits.

    Raises:
        InputError: if the file cannot be written, or a number is NaN, infinite or beyond the range of half precision,
            which no network that was trained well comes near. A file that is there stays as it is.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    state.update({name: state[name].half() for name, _ in network.named_parameters()})
    wrong = first_not_finite(state)
    if wrong is not None:
        raise InputError(
            f"{path}: not written, for {wrong} is not finite in half precision: the training diverged; lower "
            "--learning_rate "
            "and begin anew in another --output_dir"
        )
    write_tensors(path, state)


def read_weights(path: str | Path, option: str = "--weights") -> dict[str, torch.Tensor]:
    """The tensors of a weights file, each in single precision and finite.

    Args:
        path: of a file that :func:`save_weights` or ``torch.save`` of a state dict wrote.
        option: that named it.

    Raises:
        InputError: it is missing, no weights file, damaged anywhere, or has numbers that are not finite.
    """
    path = Path(str(path))
    try:
        if not path.is_file():
            other = " (a folder has that name)" if path.is_dir() else " (a device or pipe has that name)"
            other = other if path.exists() else ""
            raise InputError(
                f"{option} {path}: no such file{other}; train it first or point {option} to a weights file"
            )
        with path.open("rb") as file:
            check_zip(file)
            file.seek(0)
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
        size = path.stat().st_size
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read ({error.strerror}); give a file that can be") from error
    except Exception as error:  # torch and zipfile raise a dozen types for files that are not their own
        raise InputError(
            f"{option} {path}: not a weights file of tensors (or truncated or damaged); give one saved by this "
            "bundle, or a "
            "fresh copy"
        ) from error
    # Strides and shared storage can make tensors of terabytes out of a small file.
    plain_tensors = isinstance(state, dict) and all(map(_is_plain, state, state.values()))
    if not plain_tensors or sum(value.nbytes for value in state.values()) > size:
        raise InputError(f"{option} {path}: not a plain state dict of tensors; give a file saved by this bundle")
    state = {current_name(name): value.detach().float() for name, value in state.items()}
    wrong = first_not_finite(state)
    if wrong is not None:
        raise InputError(
            f"{option} {path}: {wrong} is not finite (NaN or infinite), as after a training that diverged; give "
            "other weights"
        )
    return state


def load_weights(network: Network, path: str | Path, option: str = "--weights") -> Network:
    """Load a weights file into ``network`` and return it in evaluation mode.

    Args:
        network: of the file's shapes and settings, such as :func:`scripts.networks.factory.network_of` builds.
        path: of the file.
        option: that named it.

    Raises:
        InputError: see :func:`read_weights`; or it belongs to another network or was trained with other settings.
    """
    version, state = _read_before.pop(network, (None, {}))
    if version is None or version != _version(path):
        state = read_weights(path, option)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{option} {path}: weights of another network: {_first_difference(error)}") from error
    return network.eval()


def keep_for_load(network: nn.Module, path: str | Path, state: dict[str, torch.Tensor]) -> None:
    """Keep what was read from ``path`` for :func:`load_weights` of this network, unless the file changes meanwhile."""
    version = _version(path)
    if version is not None:
        _read_before[network] = version, state


def _version(path: str | Path) -> tuple[int, ...] | None:
    """What changes when a file does; None for one that is gone."""
    try:
        status = Path(str(path)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_plain(name: Any, value: Any) -> bool:
    """Whether an entry of a file is an ordinary tensor of floating-point numbers under a name."""
    return (
        isinstance(name, str)
        and type(value) in (torch.Tensor, nn.Parameter)
        and value.layout == torch.strided
        and value.dtype in _FLOATS
        and value.device.type == "cpu"
    )


def _first_difference(error: RuntimeError) -> str:
    """The part of torch's many-line message a user can act on."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    settings = [line for line in lines if line.startswith(("the weights were trained with", "the weights have no"))]
    line = (settings or lines or [str(error)])[0]
    line = line if len(line) <= 200 else line[:197] + "..."
    return f"{line}; use the configuration it was trained with"
