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

"""Networks by name, and those of weights files, with which options that say the same are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.architecture import Architecture, architecture_of
from scripts.networks.srunet import LARGEST_FACTOR, SRUNet, check_whole_factor
from scripts.networks.trained_settings import agree, trained_settings
from scripts.networks.weights import keep_for_load, read_weights
from torch import nn

NETWORKS = ("aenet", "srunet")

_TRAIN_IT = "use weights that were trained for it"


def check_network(architecture: str, factor: float | None = None) -> None:
    """Check that a network exists and can be trained for or used at a factor.

    Args:
        architecture: "aenet" or "srunet".
        factor: axial factor of the run, if there is one.

    Raises:
        InputError: there is no network of that name, or it is "srunet" and the factor is none of those it can have.
    """
    if architecture not in NETWORKS:
        raise InputError(f"--architecture {architecture}: there is none of that name; choose {' or '.join(NETWORKS)}")
    if architecture == "srunet":
        if factor is None:
            raise InputError(
                f"--factor is missing: srunet is trained for one alone, a whole number from 2 to {LARGEST_FACTOR}"
            )
        check_whole_factor(factor)


def make_network(
    architecture: str,
    percentiles: Sequence[float],
    train_factors: Sequence[float],
    widths: Sequence[int],
    strides: Sequence[int],
    factor: float | None = None,
) -> AENet | SRUNet:
    """An untrained stage III network, with the numbers its weights belong to.

    Args:
        architecture: "aenet" or "srunet".
        percentiles: intensities that are mapped to 0 and 1.
        train_factors: of AENet: smallest and largest factor it is trained for.
        widths, strides: of AENet, see there.
        factor: of SRUNet: the whole factor it is trained for; AENet has none.

    Raises:
        InputError: there is no network of that name, or the factor is none of those it can have.
    """
    if architecture == "aenet":
        if factor is not None:
            raise InputError(
                f"--factor {factor}: aenet is trained for all factors of --train_factors: give that, or "
                "--architecture srunet"
            )
        return AENet(widths, strides, {"percentiles": percentiles, "train_factors": train_factors})
    check_network(architecture, factor)
    assert factor is not None
    return SRUNet(check_whole_factor(factor), {"percentiles": percentiles})


def network_of(
    path: str | Path,
    architecture: str | None = None,
    *,
    widths: Any = None,
    strides: Any = None,
    percentiles: Any = None,
    train_factors: Any = None,
    factor: Any = None,
) -> nn.Module:
    """The stage III network that a weights file belongs to, untrained with the file's settings.

    :func:`~scripts.networks.weights.load_weights` fills it.

    Args:
        path: of the file.
        architecture: "aenet" or "srunet"; this and the others are only compared with the file, None is not.
        widths, strides: of AENet.
        percentiles: of the intensity scale.
        train_factors: of AENet: smallest and largest factor it was trained for.
        factor: of SRUNet: the factor it was trained for. AENet's is free.

    Raises:
        InputError: see :func:`read_weights`; or the weights are not of stage III, or an option differs from the file.
    """
    if architecture is not None:
        check_network(architecture, 2)  # the name alone
    if architecture == "srunet" and factor is not None:
        check_whole_factor(factor)
    state = read_weights(path)
    found = architecture_of(state, f"--weights {path}")
    where = f"--weights {path}: weights of another network"
    if found.network not in NETWORKS:
        raise InputError(f"{where}: a prior of stage I; use weights of stage III, written by configs/train.yaml")
    if architecture not in (None, found.network):
        raise InputError(
            f"{where}: they are of {found.network}, the configuration says {architecture}; leave --architecture out to "
            "use the weights'"
        )
    options = {"widths": widths, "strides": strides, "percentiles": percentiles, "train_factors": train_factors}
    _check_agreement(path, {**found.sizes, **found.settings}, options)
    if found.network == "srunet":
        _check_agreement(path, found.settings, {"factor": factor}, advice=_TRAIN_IT)
    return _built(found, path, state)


def prior_of(
    path: str | Path,
    *,
    width: Any = None,
    encoder_blocks: Any = None,
    middle_blocks: Any = None,
    decoder_blocks: Any = None,
    pixel_unshuffle: Any = None,
    percentiles: Any = None,
) -> nn.Module:
    """The prior of stage I that a weights file belongs to, untrained with the file's settings.

    :func:`~scripts.networks.weights.load_weights` fills it.

    Args:
        path: of the file.
        width, encoder_blocks, middle_blocks, decoder_blocks, pixel_unshuffle: of ``ConditionalNAFNet``, only
            compared with the file, like the percentiles; None is not.
        percentiles: of the intensity scale.

    Raises:
        InputError: see :func:`read_weights`; or the weights are no prior, or an option differs from the file.
    """
    state = read_weights(path)
    found = architecture_of(state, f"--weights {path}")
    if found.network != "nafnet":
        raise InputError(
            f"--weights {path}: weights of another network: {found.network} of stage III; use a prior, written by "
            "configs/train_diffusion.yaml"
        )
    options = {
        "width": width,
        "encoder_blocks": encoder_blocks,
        "middle_blocks": middle_blocks,
        "decoder_blocks": decoder_blocks,
        "pixel_unshuffle": pixel_unshuffle,
        "percentiles": percentiles,
    }
    _check_agreement(path, {**found.sizes, **found.settings}, options)
    return _built(found, path, state)


def prior_factor_of(
    prior: nn.Module | None, weights: str | Path, factor: float, prior_factor: float | None = None
) -> float:
    """k of stage II: how many times a prior makes Z finer, which is a number of its training.

    Args:
        prior: None where nothing is restored.
        weights: file of the prior, for the message.
        factor: how many times coarser Z is than XY.
        prior_factor: k as an option, compared with the prior's. Without it k is the prior's, trained for this factor.

    Raises:
        InputError: the prior was trained for another k, or for another factor.
    """
    if prior is None:
        return 1
    trained = trained_settings(prior)
    if prior_factor is not None:
        _check_agreement(weights, trained, {"prior_factor": prior_factor})
    elif "factor" not in trained:  # a file of 0.5 or before does not say it, and k alone cannot vouch for it
        _check_agreement(weights, trained, {"prior_factor": factor}, advice=_TRAIN_IT)
    if "factor" in trained:
        _check_agreement(weights, trained, {"factor": factor}, advice=_TRAIN_IT)
    # the file has single precision, in which 10 / 3 is not quite itself
    return factor if agree(trained["prior_factor"], factor) else trained["prior_factor"]


def _built(found: Architecture, path: str | Path, state: dict[str, torch.Tensor]) -> nn.Module:
    network = found.build()
    keep_for_load(network, path, state)
    return network


def _check_agreement(
    path: str | Path, stored: Mapping[str, Any], options: Mapping[str, Any], advice: str | None = None
) -> None:
    """Raise InputError where an option that was given is not what the file has stored."""
    for name, asked in options.items():
        if asked is None or (name in stored and agree(stored[name], asked)):
            continue
        has = f"trained with {name} = {stored[name]}" if name in stored else f"of a network that has no {name}"
        asked = float(asked) if type(asked) is int and isinstance(stored.get(name), float) else asked
        raise InputError(
            f"--weights {path}: weights of another network: the weights were {has}, the configuration says {asked}; "
            + (advice or f"leave --{name} out to use the weights'")
        )
