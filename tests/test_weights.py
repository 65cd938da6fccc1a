# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is written comes back, and each wrong file ends in one line."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_run import BUNDLE
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.factory import network_of, prior_factor_of, prior_of
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.srunet import SRUNet
from scripts.networks.tensor_file import check_zip
from scripts.networks.trained_settings import trained_settings
from scripts.networks.weights import load_weights, read_weights, save_weights

SETTINGS = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}


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

    def interrupted(path, content):
        path.write_text("half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
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
    refused(aenet(train_factors=[2, 9]), saved, r"trained with train_factors = \[2\.0, 12\.0\].*says \[2\.0, 9\.0\]")


# ---- a file alone is enough ------------------------------------------------------------------------------------------

PRIOR = {"delta": 50 / 255, "timesteps": 100, "percentiles": [0.1, 99.9], "prior_factor": 10 / 3, "factor": 10 / 3}


def prior(**changes) -> ConditionalNAFNet:
    return ConditionalNAFNet(4, (1, 2), 1, (2, 1), 2, PRIOR | changes)


@pytest.mark.parametrize(
    "network",
    [aenet(), AENet((2, 2, 2, 2), (2, 2, 2, 2, 1), SETTINGS), SRUNet(3, {"percentiles": [1, 99]})],
    ids=["aenet", "aenet of other strides", "srunet"],
)
def test_network_comes_from_its_file(tmp_path, network):
    save_weights(network, tmp_path / "model.pt")
    found = load_weights(network_of(tmp_path / "model.pt"), tmp_path / "model.pt")
    assert type(found) is type(network) and trained_settings(found) == trained_settings(network)
    window = torch.rand(1, 1, 40, 36, 4)
    with torch.no_grad():
        assert torch.allclose(found(window), network(window), atol=1e-2)


def test_prior_comes_from_its_file(tmp_path):
    save_weights(prior(), tmp_path / "prior.pt")
    found = load_weights(prior_of(tmp_path / "prior.pt"), tmp_path / "prior.pt")
    assert trained_settings(found)["timesteps"] == 100 and trained_settings(found)["percentiles"] == [0.1, 99.9]
    inputs = torch.rand(1, 2, 20, 24), torch.tensor([50])
    with torch.no_grad():
        again = prior()
        again.load_state_dict(found.state_dict())
        assert torch.equal(found(*inputs), again(*inputs))


def counted(monkeypatch) -> list:
    """The files that are read from now on."""
    read, original = [], torch.load

    def load(file, **options):
        read.append(file.name)
        return original(file, **options)

    monkeypatch.setattr(torch, "load", load)
    return read


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["I", "III"])
def test_a_file_is_read_once(tmp_path, monkeypatch, stage):
    path = tmp_path / "model.pt"
    save_weights(prior() if stage == "I" else aenet(), path)
    read = counted(monkeypatch)
    first = load_weights(prior_of(path) if stage == "I" else network_of(path), path)
    assert read == [str(path)]
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    again = load_weights(first, path)  # the second time it is read again, whatever became of the network
    assert read == [str(path)] * 2
    assert all(torch.equal(value, read_weights(path)[name]) for name, value in again.state_dict().items())


def test_a_file_that_changed_meanwhile_is_read_again(saved):
    network = network_of(saved)
    save_weights(aenet(seed=5), saved)
    expected = read_weights(saved)
    assert all(torch.equal(value, expected[name]) for name, value in load_weights(network, saved).state_dict().items())
    network = network_of(saved)
    saved.unlink()
    refused(network, saved, "no such file")


@pytest.mark.slow
@pytest.mark.parametrize("by_torch", [False, True])
def test_files_of_earlier_versions_have_other_names(tmp_path, by_torch):
    """Both as this bundle reads them and as MONAI's export does, by torch alone."""
    for network, build in ((aenet(), network_of), (prior(), prior_of)):
        state = network.state_dict()
        for new, old in (("train_factors", "gap_range"), ("prior_factor", "upsampling"), ("timesteps", "steps")):
            if f"settings.{new}" in state:
                state[f"settings.{old}"] = state.pop(f"settings.{new}")
        torch.save(state, tmp_path / "old.pt")
        found = build(tmp_path / "old.pt")
        if by_torch:
            found.load_state_dict(torch.load(tmp_path / "old.pt", weights_only=True))
        else:
            load_weights(found, tmp_path / "old.pt")
        assert trained_settings(found) == trained_settings(network)
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())


def test_shipped_weights_are_enough():
    model = network_of(BUNDLE / "models" / "model.pt")
    assert trained_settings(model) == {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}
    load_weights(model, BUNDLE / "models" / "model.pt")
    restoring = prior_of(BUNDLE / "models" / "model_diffusion.pt")
    assert trained_settings(restoring) == {
        "delta": 0.19607843,
        "timesteps": 100,
        "percentiles": [0.1, 99.9],
        "prior_factor": 8,
    }
    load_weights(restoring, BUNDLE / "models" / "model_diffusion.pt")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"architecture": "aenet", "widths": (2, 4, 4, 4), "strides": [2, 1, 2, 2, 1], "factor": 6.5},
        {"percentiles": [0.1, 99.9], "train_factors": torch.tensor([2, 12])},
    ],
)
def test_options_that_agree_with_the_file(saved, options):
    network_of(saved, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"architecture": "srunet"}, "they are of aenet, the configuration says srunet; leave --architecture out"),
        (
            {"widths": [2, 4, 4, 8]},
            r"widths = \[2, 4, 4, 4\], the configuration says \[2, 4, 4, 8\]; leave --widths out",
        ),
        ({"widths": 32}, "the configuration says 32; leave"),
        ({"widths": "abc"}, "the configuration says abc; leave"),
        ({"strides": [2, 2, 2, 2, 1]}, r"strides = \[2, 1, 2, 2, 1\]"),
        ({"percentiles": [1, 99]}, r"trained with percentiles = \[0\.1, 99\.9\], the configuration says \[1, 99\]"),
        ({"percentiles": [0.1]}, "trained with percentiles"),
        ({"train_factors": [2, 9]}, r"trained with train_factors = \[2\.0, 12\.0\]"),
    ],
)
def test_options_that_contradict_the_file(saved, options, message):
    with pytest.raises(InputError, match=f"^--weights {saved}: weights of another network: .*{message}"):
        network_of(saved, **options)


@pytest.mark.slow
def test_stages_do_not_take_the_weights_of_each_other(saved, tmp_path):
    save_weights(prior(), tmp_path / "prior.pt")
    with pytest.raises(InputError, match="prior.pt: weights of another network: a prior of stage I; use"):
        network_of(tmp_path / "prior.pt")
    with pytest.raises(InputError, match="weights of another network: aenet of stage III; use"):
        prior_of(saved)
    save_weights(SRUNet(3, {"percentiles": [1, 99]}), tmp_path / "srunet.pt")
    with pytest.raises(InputError, match="has no widths"):
        network_of(tmp_path / "srunet.pt", widths=[2, 2, 2, 2])
    with pytest.raises(InputError, match="trained with width = 4, the configuration says 8"):
        prior_of(tmp_path / "prior.pt", width=8)


def test_k_is_the_priors():
    assert prior_factor_of(None, "p.pt", 8) == 1
    assert prior_factor_of(prior(), "p.pt", 10 / 3) == 10 / 3  # to the last digit, which the file does not have
    assert prior_factor_of(prior(prior_factor=2, factor=4), "p.pt", 4) == 2
    assert prior_factor_of(prior(prior_factor=2, factor=4), "p.pt", 4, 2) == 2
    for factor, asked, message in (
        (8, None, "trained with factor = 4.0, the configuration says 8"),
        (8, 2, "trained with factor = 4.0, the configuration says 8"),
        (4, 4, "trained with prior_factor = 2.0, the configuration says 4"),
    ):
        with pytest.raises(InputError, match=message):
            prior_factor_of(prior(prior_factor=2, factor=4), "p.pt", factor, asked)


def test_k_of_a_file_that_does_not_say_its_factor():
    """Those of version 0.5: k alone does not tell which factor the prior was trained for."""
    old = ConditionalNAFNet(4, (1,), 1, (1,), settings={name: PRIOR[name] for name in PRIOR if name != "factor"})
    assert prior_factor_of(old, "p.pt", 10 / 3) == 10 / 3
    assert prior_factor_of(old, "p.pt", 20 / 3, 10 / 3) == pytest.approx(10 / 3)
    with pytest.raises(InputError, match="trained with prior_factor = 3.3333333, the configuration says 8"):
        prior_factor_of(old, "p.pt", 8)


# ---- forged and foreign files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("settings.train_factors", torch.tensor([6.0, 2.0]), r"settings.train_factors = \[6.0, 2.0\] cannot be"),
        ("settings.train_factors", torch.tensor(6.0), "settings.train_factors = 6.0 cannot be"),
        ("settings.train_factors", None, "the weights have no settings.train_factors"),
        ("settings.percentiles", torch.tensor([99.0, 1.0]), "cannot be"),
        ("settings.mood", torch.tensor(1.0), "settings.mood is too much"),
        ("condition.0.weight", None, "condition.0.weight is missing"),
        ("other", torch.zeros(3), "other is too much"),
        ("stem.weight", None, "of none that this bundle knows"),
        ("stem.weight", torch.zeros(64, 1, 3, 7, 7), "size mismatch for stem.weight: 64 x 1 x 3 x 7 x 7 where"),
        ("stages.3.0.conv1.weight", torch.zeros(10**9, 0, 3, 3, 3), "weights of another network"),  # of terabytes
        ("output.head.weight", torch.zeros(4000, 4, 3, 3), "no aenet has such shapes"),
        ("stem.bias", torch.zeros(2, dtype=torch.int64), "not a plain state dict"),
        ("stem.bias", torch.zeros(2, dtype=torch.complex64), "not a plain state dict"),
        ("stem.bias", torch.zeros(2).to_sparse(), "not a plain state dict"),
        ("stem.bias", torch.zeros(1).expand(10**12), "not a plain state dict"),  # terabytes out of a small file
        ("stem.bias", 5, "not a plain state dict"),
        (7, torch.zeros(2), "not a plain state dict"),
    ],
)
def test_forged_file(saved, name, value, message):
    state: dict[Any, Any] = torch.load(saved, weights_only=True)
    if value is None:
        del state[name]
    else:
        state[name] = value
    torch.save(state, saved)
    with pytest.raises(InputError) as caught:
        network_of(saved)
    line = str(caught.value)
    assert line.startswith(f"--weights {saved}: ") and "\n" not in line and "; " in line
    assert re.search(message, line), line


def test_special_files_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    refused(aenet(), tmp_path / "pipe.pt", "no such file .a device or pipe")
    with pytest.raises(InputError, match="--weights /dev/zero: no such file"):
        network_of("/dev/zero")
    with pytest.raises(InputError, match="cannot be read .File name too long"):
        network_of("x" * 300)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read(saved):
    saved.chmod(0)
    refused(aenet(), saved, "cannot be read .Permission denied")


def test_large_and_packed_files_are_refused_unread(tmp_path):
    with (tmp_path / "sparse.pt").open("wb") as file:
        file.truncate(2**40)
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with zipfile.ZipFile(tmp_path / "names.pt", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    for name in ("sparse.pt", "packed.pt", "names.pt"):
        refused(aenet(), tmp_path / name, "not a weights file")


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_shipped_weights_are_whole():
    for path in (BUNDLE / "models").glob("*.pt"):
        check_zip(path)


def test_flipped_byte_of_a_weight_is_found(saved):
    """Which torch.load does not see."""
    data = bytearray(saved.read_bytes())
    values = torch.load(saved, weights_only=True)["bottom.conv.weight"].numpy().tobytes()
    data[data.find(values) + 17] ^= 4
    saved.write_bytes(data)
    torch.load(saved, weights_only=True)
    refused(aenet(), saved, "damaged")


@pytest.mark.slow
def test_any_flipped_byte_is_found_or_harmless(tmp_path):
    """All of what the checksums do not cover for a record, and some of the rest."""
    path, flipped = tmp_path / "small.pt", tmp_path / "flipped.pt"
    torch.save({"a": torch.rand(9), "b": torch.rand(3)}, path)
    whole, data = read_weights(path), path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        directory, second = archive.start_dir, archive.infolist()[-1].header_offset
    found = 0
    random = torch.Generator().manual_seed(0)
    anywhere = torch.randint(directory, (150,), generator=random).tolist()
    for place in [*anywhere, *range(second, second + 40), *range(directory, len(data))]:
        bit = int(torch.randint(8, (1,), generator=random)) if place < directory else (place + place // 46) % 8
        flipped.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        try:
            state = read_weights(flipped)
        except InputError:
            found += 1
        else:
            assert state.keys() == whole.keys(), place
            assert all(torch.equal(state[name], value) for name, value in whole.items()), (place, bit)
    assert found > 100


@pytest.mark.parametrize("record", [0, 4])
def test_record_that_is_marked_as_a_folder(saved, record):
    """One bit, at which torch's reader leaves the record out and gives whatever lies in memory."""
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        place, names = archive.start_dir, [info.filename for info in archive.infolist()]
    for name in names[:record]:
        place += 46 + len(name)
    data[place + 38] ^= 0x10
    saved.write_bytes(data)
    refused(aenet(), saved, "damaged")


# ---- not finite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 70000.0])
@pytest.mark.parametrize("name", ["stem.bias", "settings.percentiles"])
def test_what_is_not_finite_is_not_saved(saved, name, value):
    before, network = saved.read_bytes(), aenet()
    network.state_dict()[name][1] = value
    if name.startswith("settings.") and value == 70000.0:  # settings keep single precision
        return save_weights(network, saved)
    with pytest.raises(InputError, match=f"^{saved}: not written, for {name} is not finite.* lower --learning_rate"):
        save_weights(network, saved)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["stem.bias", "output.refine.weight", "settings.percentiles"])
def test_what_is_not_finite_is_not_loaded(saved, name, value):
    state = torch.load(saved, weights_only=True)
    state[name].view(-1)[1] = value
    torch.save(state, saved)
    refused(aenet(), saved, f"{name} is not finite .NaN or infinite.")
    with pytest.raises(InputError, match=f"{name} is not finite"):
        network_of(saved)


def test_double_precision_beyond_single_is_not_loaded(saved):
    state = torch.load(saved, weights_only=True)
    state["stem.bias"] = torch.full((2,), 1e300, dtype=torch.float64)
    torch.save(state, saved)
    refused(aenet(), saved, "stem.bias is not finite")
