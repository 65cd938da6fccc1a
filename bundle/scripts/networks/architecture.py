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

"""What network the tensors of a weights file belong to, read from their names and shapes.

The shapes are the only description of a network's size, so that nothing beside them can contradict them, and files of
every version have it. What shapes cannot tell (intensity percentiles, factors, noise level) are numbers beside the
weights, see ``trained_settings.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scripts.errors import InputError, one_line
from scripts.networks.aenet import AENet
from scripts.networks.cell_average import POOL_CELL
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.srunet import LARGEST_FACTOR, SRUNet
from scripts.networks.trained_settings import plain
from torch import nn

_SETTINGS = "settings."

Numbers = Sequence[float]


class Architecture(NamedTuple):
    """A network without its weights.

    Attributes:
        network: "aenet", "srunet" or "nafnet".
        sizes: arguments of its class that decide on its shapes.
        settings: numbers that it was trained with.
    """

    network: str
    sizes: dict[str, Any]
    settings: dict[str, Any]

    def build(self) -> nn.Module:
        """The network, untrained."""
        if self.network == "srunet":
            return SRUNet(int(self.settings["factor"]), self.settings)
        kind = AENet if self.network == "aenet" else ConditionalNAFNet
        return kind(**self.sizes, settings=self.settings)


def architecture_of(state: Mapping[str, torch.Tensor], source: str) -> Architecture:
    """The network that a state dict belongs to, tensor by tensor.

    Args:
        state: of one of the bundle's networks, its settings included.
        source: option and file that it is from, for messages.

    Raises:
        InputError: it belongs to none of them; a tensor is missing, of another shape or too many; a setting cannot be.
    """

    def no(reason: str) -> InputError:
        return InputError(f"{source}: weights of another network: {reason}; use a file that this bundle saved")

    shapes = {name: tuple(value.shape) for name, value in state.items()}
    found = next((kind for kind in _KINDS if kind.mark in shapes), None)
    if found is None:
        raise no("of none that this bundle knows")
    stored = {name: value for name, value in state.items() if name.startswith(_SETTINGS) and value.numel() <= 2}
    settings = {name.removeprefix(_SETTINGS): plain(value) for name, value in stored.items()}
    wrong = _wrong_setting(settings, found)
    if wrong is not None:
        raise no(wrong)
    try:
        architecture = Architecture(found.network, found.sizes(shapes), settings)
        with torch.device("meta"):  # no memory is taken for what a file claims before it is seen that the file has it
            expected = {name: tuple(value.shape) for name, value in architecture.build().state_dict().items()}
    except KeyError as error:
        raise no(f"{error.args[0]} is missing") from error
    except (IndexError, ValueError, ArithmeticError, RuntimeError) as error:
        raise no(f"no {found.network} has such shapes ({one_line(error)})") from error
    for name in [*expected, *shapes]:
        if expected.get(name) != shapes.get(name):
            raise no(_difference(name, shapes.get(name), expected.get(name)))
    return architecture


def _difference(name: str, found: Sequence[int] | None, expected: Sequence[int] | None) -> str:
    if found is None:
        return f"{name} is missing"
    if expected is None:
        return f"{name} is too much"
    return f"size mismatch for {name}: {_by(found)} where the others ask for {_by(expected)}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _aenet_sizes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    undone = ("decoder.2.from_below", "decoder.1.from_below", "decoder.0.from_below", "bottom.conv")
    # a stride of 2 is undone by a transposed convolution of kernel 4, one of 1 by a convolution of kernel 3
    strides = [math.isqrt(shapes["output.head.weight"][0])]
    strides += [2 if shapes[f"{name}.weight"][-1] == 4 else 1 for name in undone]
    if not 1 <= math.prod(strides) <= POOL_CELL:
        raise ValueError(f"strides {strides}")
    return {"widths": [shapes[f"stages.{i}.0.conv1.weight"][0] for i in range(4)], "strides": strides}


def _nafnet_sizes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    def count(pattern: str) -> int:
        """How many of these names there are, counted from 0 without a gap."""
        number = 0
        while pattern.format(number) in shapes:
            number += 1
        return number

    return {
        "width": shapes["intro.weight"][0],
        "encoder_blocks": [count(f"encoder.{i}.{{}}.gain1") for i in range(count("down.{}.weight"))],
        "middle_blocks": count("middle.{}.gain1"),
        "decoder_blocks": [count(f"decoder.{i}.{{}}.gain1") for i in range(count("up.{}.0.weight"))],
        "pixel_unshuffle": math.isqrt(shapes["ending.weight"][0]),
    }


class _Kind(NamedTuple):
    """A network that weights may be of: a tensor that no other has, its sizes from shapes, and its settings."""

    network: str
    mark: str
    sizes: Callable[[Mapping[str, Sequence[int]]], dict[str, Any]]
    settings: tuple[str, ...]
    later_settings: tuple[str, ...] = ()  # that files of 0.5 and before do not have


_KINDS = (
    _Kind("aenet", "stem.weight", _aenet_sizes, ("percentiles", "train_factors")),
    _Kind("srunet", "down.0.0.weight", lambda shapes: {}, ("percentiles", "factor")),
    _Kind("nafnet", "intro.weight", _nafnet_sizes, ("delta", "timesteps", "percentiles", "prior_factor"), ("factor",)),
)

_POSSIBLE: dict[str, Callable[[Any], bool]] = {
    "percentiles": lambda pair: len(pair) == 2 and 0 <= pair[0] < pair[1] <= 100,
    "train_factors": lambda pair: len(pair) == 2 and 1 <= pair[0] <= pair[1],
    "factor": lambda number: number > 1,
    "delta": lambda number: number > 0,
    "timesteps": lambda number: number in range(1, 10_001),
    "prior_factor": lambda number: number > 1,
}


def _wrong_setting(settings: Mapping[str, Any], kind: _Kind) -> str | None:
    for name in kind.settings:
        if name not in settings:
            return f"the weights have no {_SETTINGS}{name}"
    for name, value in settings.items():
        if name not in kind.settings + kind.later_settings:
            return f"{_SETTINGS}{name} is too much"
        try:
            possible = _POSSIBLE[name](value)
        except (TypeError, IndexError):  # a number where there should be two, or the other way round
            possible = False
        if kind.network == "srunet" and name == "factor":
            possible = possible and value in range(2, LARGEST_FACTOR + 1)
        if not possible:
            return f"{_SETTINGS}{name} = {value} cannot be"
    return None
