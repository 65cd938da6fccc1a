# SPDX-License-Identifier: Apache-2.0
"""Weights files: plain state dicts of tensors, loadable with ``torch.load(weights_only=True)``.

A file is all that is needed to use a network again: its shapes say how large the network is (``architecture.py``), and the numbers that
it was trained with stand beside the weights (``settings.py``). Options that say the same are compared with the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from scripts.errors import InputError
from scripts.networks.architecture import architecture_of
from scripts.networks.factory import NETWORKS, check_network
from scripts.networks.finite import first_not_finite
from scripts.networks.settings import agree, settings_of
from scripts.networks.srunet import check_whole_factor
from scripts.networks.tensor_file import check_zip, write_tensors

Network = TypeVar("Network", bound=nn.Module)

_TRAIN_IT = "use weights that were trained for it"
# Trained settings under the names of 0.6 and before, which the files of those versions have.
_RENAMED_SETTINGS = {"gap_range": "train_factors", "upsampling": "prior_factor"}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict of ``network``, parameters in half precision; nothing half-written is left under ``path``.

    Half precision is finer than the bfloat16 that a GPU computes in, and halves the file. Settings keep their digits.

    Raises:
        InputError: if the file cannot be written, or a number is NaN, infinite or beyond the range of half precision, which no
            network that was trained well comes near. A file that is there stays as it is.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    state.update({name: state[name].half() for name, _ in network.named_parameters()})
    wrong = first_not_finite(state)
    if wrong is not None:
        raise InputError(
            f"{path}: not written, for {wrong} is not finite in half precision: the training diverged; lower --learning_rate "
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
            f"{option} {path}: not a weights file of tensors (or truncated or damaged); give one saved by this bundle, or a "
            "fresh copy"
        ) from error
    # Strides and shared storage can make tensors of terabytes out of a small file.
    plain_tensors = isinstance(state, dict) and all(map(_is_plain, state, state.values()))
    if not plain_tensors or sum(value.nbytes for value in state.values()) > size:
        raise InputError(f"{option} {path}: not a plain state dict of tensors; give a file saved by this bundle")
    state = {_today(name): value.detach().float() for name, value in state.items()}
    wrong = first_not_finite(state)
    if wrong is not None:
        raise InputError(
            f"{option} {path}: {wrong} is not finite (NaN or infinite), as after a training that diverged; give other weights"
        )
    return state


def load_weights(network: Network, path: str | Path, option: str = "--weights") -> Network:
    """Load a weights file into ``network`` and return it in evaluation mode.

    Raises:
        InputError: see :func:`read_weights`; or it belongs to another network or was trained with other settings.
    """
    state = read_weights(path, option)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{option} {path}: weights of another network: {_first_difference(error)}") from error
    return network.eval()


def network_of(
    path: str | Path,
    network: str | None = None,
    *,
    widths: Any = None,
    strides: Any = None,
    percentiles: Any = None,
    train_factors: Any = None,
    factor: Any = None,
) -> nn.Module:
    """The stage III network that a weights file belongs to, untrained and with the file's settings; :func:`load_weights` fills it.

    Args:
        path: of the file.
        network: "aenet" or "srunet"; this and the others are only compared with the file, None is not.
        widths, strides: of AENet.
        percentiles: of the intensity scale.
        train_factors: of AENet: smallest and largest factor it was trained for.
        factor: of SRUNet: the factor it was trained for. AENet's is free.

    Raises:
        InputError: see :func:`read_weights`; or the weights are not of stage III, or an option differs from the file.
    """
    if network is not None:
        check_network(network, 2)  # the name alone
    if network == "srunet" and factor is not None:
        check_whole_factor(factor)
    found = architecture_of(read_weights(path), f"--weights {path}")
    where = f"--weights {path}: weights of another network"
    if found.network not in NETWORKS:
        raise InputError(f"{where}: a prior of stage I; use weights of stage III, written by configs/train.yaml")
    if network not in (None, found.network):
        raise InputError(
            f"{where}: they are of {found.network}, the configuration says {network}; leave --network out to use the weights'"
        )
    options = {"widths": widths, "strides": strides, "percentiles": percentiles, "train_factors": train_factors}
    _check_agreement(path, {**found.sizes, **found.settings}, options)
    if found.network == "srunet":
        _check_agreement(path, found.settings, {"factor": factor}, advice=_TRAIN_IT)
    return found.build()


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
    """The prior of stage I that a weights file belongs to, untrained and with the file's settings; :func:`load_weights` fills it.

    Args:
        path: of the file.
        width, encoder_blocks, middle_blocks, decoder_blocks, pixel_unshuffle: see ``ConditionalNAFNet``; these and the percentiles are
            only compared with the file, None is not.
        percentiles: of the intensity scale.

    Raises:
        InputError: see :func:`read_weights`; or the weights are no prior, or an option differs from the file.
    """
    found = architecture_of(read_weights(path), f"--weights {path}")
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
    return found.build()


def prior_factor_of(
    prior: nn.Module | None, weights: str | Path, factor: float, prior_factor: float | None = None
) -> float:
    """k of stage II: how many times a prior makes Z finer, which is a number of its training.

    Args:
        prior: None where nothing is restored.
        weights: file of the prior, for the message.
        factor: how many times coarser Z is than XY.
        prior_factor: k as an option, compared with the prior's. Without it k is the prior's, which was trained for this factor.

    Raises:
        InputError: the prior was trained for another k, or for another factor.
    """
    if prior is None:
        return 1
    trained = settings_of(prior)
    if prior_factor is not None:
        _check_agreement(weights, trained, {"prior_factor": prior_factor})
    elif "factor" not in trained:  # a file of 0.5 or before does not say it, and k alone cannot vouch for it
        _check_agreement(weights, trained, {"prior_factor": factor}, advice=_TRAIN_IT)
    if "factor" in trained:
        _check_agreement(weights, trained, {"factor": factor}, advice=_TRAIN_IT)
    # the file has single precision, in which 10 / 3 is not quite itself
    return factor if agree(trained["prior_factor"], factor) else trained["prior_factor"]


def _today(name: str) -> str:
    """The name that an entry of a file has today."""
    section, _, setting = name.rpartition(".")
    return f"{section}.{_RENAMED_SETTINGS.get(setting, setting)}" if section == "settings" else name


def _is_plain(name: Any, value: Any) -> bool:
    """Whether an entry of a file is an ordinary tensor of floating-point numbers under a name."""
    return (
        isinstance(name, str)
        and type(value) in (torch.Tensor, nn.Parameter)
        and value.layout == torch.strided
        and value.dtype in _FLOATS
        and value.device.type == "cpu"
    )


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


def _first_difference(error: RuntimeError) -> str:
    """The part of torch's many-line message a user can act on."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    settings = [line for line in lines if line.startswith(("the weights were trained with", "the weights have no"))]
    line = (settings or lines or [str(error)])[0]
    line = line if len(line) <= 200 else line[:197] + "..."
    return f"{line}; use the configuration it was trained with"
