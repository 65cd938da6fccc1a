# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is written comes back, and each wrong file ends in one line."""

from __future__ import annotations

import re

import pytest
import torch

from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.weights import load_weights, save_weights

SETTINGS = {"percentiles": [0.1, 99.9], "gap_range": [2, 12]}


def aenet(seed: int = 0, **changes) -> AENet:
    torch.manual_seed(seed)
    network = AENet(widths=(2, 4, 4, 4), settings=SETTINGS | changes)
    torch.nn.init.normal_(network.output.head.weight, std=0.1)
    return network


def refused(network, path, message):
    with pytest.raises(InputError) as caught:
        load_weights(network, path, option="--weights")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    assert line.startswith(f"--weights {path}: ")
    assert re.search(message, line), line


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "models" / "model.pt"
    save_weights(aenet(), path)
    return path


def test_round_trip(saved):
    network = load_weights(aenet(seed=1), saved)
    assert not network.training
    for name, value in aenet().state_dict().items():
        stored = value if name.startswith("settings.") else value.half().float()
        assert torch.equal(network.state_dict()[name], stored), name
    assert [file.name for file in saved.parent.iterdir()] == ["model.pt"]


def test_file_is_tensors_only(saved):
    state = torch.load(saved, weights_only=True)
    assert all(type(value) is torch.Tensor and value.device.type == "cpu" for value in state.values())


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "models").write_text("a file, no folder")
    with pytest.raises(InputError, match="models"):
        save_weights(aenet(), tmp_path / "models" / "model.pt")


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def interrupted(state, path):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(aenet(seed=1), saved)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["model.pt"]


def test_missing_file(tmp_path):
    refused(aenet(), tmp_path / "none.pt", "no such file")


def test_folder_in_place_of_a_file(tmp_path):
    refused(aenet(), tmp_path, "no such file")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_truncated_file(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    refused(aenet(), saved, "truncated")


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "volume.tif"
    path.write_bytes(b"II*\x00" + bytes(100))
    refused(aenet(), path, "not a weights file")


def test_pickled_network_is_not_executed(tmp_path):
    path = tmp_path / "whole.pt"
    torch.save(aenet(), path)
    refused(aenet(), path, "not a weights file of tensors")


def test_checkpoint_of_a_run_is_no_weights_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"network": aenet().state_dict(), "epoch": 3}, path)
    refused(aenet(), path, "not a plain state dict")


def test_another_network(saved):
    refused(ConditionalNAFNet(8, (1,), 1, (1,)), saved, "weights of another network")


def test_another_size(saved):
    wider = AENet(widths=(4, 4, 4, 4), settings=SETTINGS)
    refused(wider, saved, "weights of another network: size mismatch")


def test_other_settings(saved):
    refused(aenet(gap_range=[2, 9]), saved, r"trained with gap_range = \[2\.0, 12\.0\].*says \[2\.0, 9\.0\]")
