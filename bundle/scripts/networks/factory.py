# SPDX-License-Identifier: Apache-2.0
"""The stage III networks by the names that the option ``--network`` of the configs knows."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.srunet import LARGEST_FACTOR, SRUNet, check_whole_factor

NETWORKS = ("aenet", "srunet")


def check_network(network: str, factor: float | None = None) -> None:
    """Check that a network exists and can be trained for or used at a factor.

    Args:
        network: "aenet" or "srunet".
        factor: axial factor of the run, if there is one.

    Raises:
        InputError: there is no network of that name, or it is "srunet" and the factor is none of those it can have.
    """
    if network not in NETWORKS:
        raise InputError(f"--network {network}: there is none of that name; choose {' or '.join(NETWORKS)}")
    if network == "srunet":
        if factor is None:
            raise InputError(
                f"--factor is missing: srunet is trained for one alone, a whole number from 2 to {LARGEST_FACTOR}"
            )
        check_whole_factor(factor)


def make_network(
    network: str,
    percentiles: Sequence[float],
    train_factors: Sequence[float],
    widths: Sequence[int],
    strides: Sequence[int],
    factor: float | None = None,
) -> AENet | SRUNet:
    """An untrained stage III network, with the numbers its weights belong to.

    Args:
        network: "aenet" or "srunet".
        percentiles: intensities that are mapped to 0 and 1.
        train_factors: of AENet: smallest and largest factor it is trained for.
        widths, strides: of AENet, see there.
        factor: of SRUNet: the whole factor it is trained for; AENet has none.

    Raises:
        InputError: there is no network of that name, or the factor is none of those it can have.
    """
    if network == "aenet":
        if factor is not None:
            raise InputError(
                f"--factor {factor}: aenet is trained for all factors of --train_factors: give that, or --network srunet"
            )
        return AENet(widths, strides, {"percentiles": percentiles, "train_factors": train_factors})
    check_network(network, factor)
    assert factor is not None
    return SRUNet(check_whole_factor(factor), {"percentiles": percentiles})
