# SPDX-License-Identifier: Apache-2.0
"""Numbers that a network's weights were trained with, stored beside the weights and compared when they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Settings(nn.Module):
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


def _compare(
    module: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    for name, own in module.named_buffers():
        stored = state_dict.get(prefix + name)
        if stored is None:
            # Also in a load that is not strict, which would go on with whatever weights fit by name, or none.
            error_msgs.append(f"the weights have no {prefix}{name}: they belong to another network")
            continue
        if stored.shape != own.shape or not torch.allclose(stored.float().cpu(), own.cpu(), rtol=1e-4):
            error_msgs.append(
                f"the weights were trained with {name} = {_number(stored)}, the configuration says {_number(own)}"
            )


def _number(value: torch.Tensor) -> Any:
    return [round(v, 6) for v in value.flatten().tolist()] if value.ndim else round(float(value), 6)
