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

"""Numbers that a network's weights were trained with, stored beside the weights and compared when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import nn

# By the names of 0.6 and before, which the files of those versions have.
_RENAMED = {"gap_range": "train_factors", "upsampling": "prior_factor", "steps": "timesteps"}


class TrainedSettings(nn.Module):
    """Named numbers kept as buffers, so that they travel in any plain state dict and in TorchScript files.

    Loading weights whose numbers differ is an error: pictures made with the wrong intensity range or noise level look
    plausible and are wrong.

    Args:
        values: name -> number or sequence of numbers.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        self.register_load_state_dict_pre_hook(_compare)


def trained_settings(network: nn.Module | None) -> dict[str, Any]:
    """The numbers that a network was trained with, by name: a float, or a list of them.

    Args:
        network: with an attribute ``settings``; None has none.
    """
    settings: Any = getattr(network, "settings", None)
    return {} if settings is None else {name: plain(value) for name, value in settings.named_buffers()}


def current_name(name: str) -> str:
    """The name that an entry of a state dict has today, such as "settings.timesteps" for "settings.steps"."""
    section, _, setting = name.rpartition(".")
    return f"{section}.{_RENAMED.get(setting, setting)}" if section == "settings" else name


def plain(value: torch.Tensor) -> Any:
    """Numbers of single precision as those that were meant: 0.1, not 0.10000000149."""
    numbers = [float(str(number)) for number in value.detach().cpu().float().flatten().numpy()]
    return numbers if value.ndim else numbers[0]


def agree(stored: Any, own: Any) -> bool:
    """Whether two settings, numbers or sequences of numbers, are the same up to the digits of single precision."""
    try:
        first, second = np.asarray(stored, dtype=np.float64), np.asarray(own, dtype=np.float64)
    except (TypeError, ValueError):  # a word
        return False
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-8)


def _compare(
    module: nn.Module,
    state_dict: MutableMapping[str, torch.Tensor],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    for name in [
        name for name in state_dict if current_name(name) != name
    ]:  # also where a file is loaded by torch alone
        state_dict[current_name(name)] = state_dict.pop(name)
    for name, value in module.named_buffers():
        stored = state_dict.get(prefix + name)
        if stored is None:
            # Also in a load that is not strict, which would go on with whatever weights fit by name, or none.
            error_msgs.append(f"the weights have no {prefix}{name}: they belong to another network")
            continue
        found, own = plain(stored), plain(value)
        if not agree(found, own):
            error_msgs.append(f"the weights were trained with {name} = {found}, the configuration says {own}")
