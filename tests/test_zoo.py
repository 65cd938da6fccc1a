# SPDX-License-Identifier: Apache-2.0
"""What the MONAI model zoo checks of a bundle, what exports it, and what happens to a copy that is shared; all without
network."""

from __future__ import annotations

import copy
import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from subprocess import PIPE
from typing import Any

import monai.bundle.scripts as monai_scripts
import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
import yaml
from bundle_run import BUNDLE, environment, tiff_stack
from monai.bundle import (
    ConfigParser,
    ckpt_export,
    download,
    download_large_files,
    load,
    onnx_export,
    push_to_hf_hub,
    verify_metadata,
    verify_net_in_out,
)
from scripts.networks.aenet import AENet
from scripts.networks.weights import load_weights

from release import make_bundle

CONFIGS = BUNDLE / "configs"
META = str(CONFIGS / "metadata.json")
METADATA: dict[str, Any] = json.loads(Path(META).read_text(encoding="utf-8"))
WEIGHTS = BUNDLE / "models" / "model.pt"
SCHEMA = Path(__file__).parent / "schema" / "meta_schema.json"
SCHEMA_MD5 = "b296249a9db237f7e5f1f083c10c2f11"
MAX_BYTES = 25_000_000  # the zoo's limit on one file
NAME = make_bundle.NAME


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def shipped() -> AENet:
    """The network of ``inference.yaml`` with the shipped weights."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    return load_weights(parser.get_parsed_content("network_def"), WEIGHTS)


def example(x: int, y: int, relative_depth: float, factor: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(x + y)
    return (
        torch.rand(1, 1, x, y, 4, generator=generator),
        torch.tensor([float(relative_depth)]),
        torch.tensor([float(factor)]),
    )


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "configs/metadata.json",
        "configs/inference.yaml",
        "configs/train.yaml",
        "configs/logging.conf",
        "models/model.pt",
        "docs/README.md",
        "docs/data_license.txt",
        "large_files.yml",
    ],
)
def test_file_is_there(name):
    assert (BUNDLE / name).is_file()


def test_hashes_of_large_files():
    text = (BUNDLE / "large_files.yml").read_text(encoding="utf-8")
    assert (
        make_bundle.with_hashes(text) == text
    ), "the weights have changed: run make bundle, commit bundle/large_files.yml"
    listed = [entry["path"] for entry in yaml.safe_load(text)["large_files"]]
    assert listed == [f"models/{path.name}" for path in sorted((BUNDLE / "models").glob("*.pt"))]


def test_nothing_is_downloaded():
    """The zoo downloads large files before anything else; with the shipped ones this works without network."""
    download_large_files(str(BUNDLE))


# ---------------------------------------------------------------------------------------------------------- metadata


def test_schema():
    verify_metadata(meta_file=META, filepath=str(SCHEMA), hash_val=SCHEMA_MD5, hash_type="md5")


@pytest.mark.parametrize(
    "path, value",
    [
        (["version"], None),
        (["version"], 1),
        (["authors"], None),
        (["required_packages_version"], None),
        (["optional_packages_version"], {}),
        (["network_data_format", "outputs"], None),
        (["network_data_format", "inputs", "image", "spatial_shape"], ["16*m", 4]),
        (["diffusion_data_format", "outputs", "pred", "num_channels"], "1"),
    ],
)
def test_schema_refuses(tmp_path, path, value):
    changed = copy.deepcopy(METADATA)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if value is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(changed))
    with pytest.raises(ValueError):
        verify_metadata(meta_file=str(file), filepath=str(SCHEMA), hash_val=SCHEMA_MD5, hash_type="md5")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("config", ["inference.yaml", "train.yaml"])
def test_network_takes_and_gives_what_metadata_says(config, n):
    verify_net_in_out("network_def", META, str(CONFIGS / config), device="cpu", n=n)


@pytest.mark.parametrize("config", ["train_diffusion.yaml", "generate.yaml"])
def test_prior_takes_and_gives_what_metadata_says(config):
    verify_net_in_out(
        "network_def",
        META,
        str(CONFIGS / config),
        device="cpu",
        n=2,
        extra_forward_args={"t": torch.tensor([50])},
        used_factor=8,
        **{"_meta_#network_data_format": METADATA["diffusion_data_format"]},
    )


def test_wrong_number_of_channels_is_found():
    changed: dict[str, Any] = {"_meta_#network_data_format#outputs#pred#num_channels": 2}
    with pytest.raises(ValueError, match="channel number"):
        verify_net_in_out("network_def", META, str(CONFIGS / "inference.yaml"), device="cpu", **changed)


# ------------------------------------------------------------------------------------------------------------ export


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.ts"
    ckpt_export("network_def", str(path), str(WEIGHTS), META, str(CONFIGS / "inference.yaml"))
    return path


@pytest.mark.slow
def test_torchscript_gives_the_same(torchscript):
    scripted, network = torch.jit.load(str(torchscript)).eval(), shipped()
    for inputs in (example(64, 48, 0.25, 8), example(37, 50, 0.7, 3.3)):
        with torch.no_grad():
            torch.testing.assert_close(scripted(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(scripted(inputs[0]), network(inputs[0]), rtol=1e-4, atol=1e-5)


def onnx_result(path: Path, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {port.name: value.numpy() for port, value in zip(session.get_inputs(), inputs)}
    return torch.from_numpy(session.run(None, feeds)[0])


@pytest.mark.slow
def test_onnx_of_one_size(tmp_path):
    """MONAI's command: the size is fixed, and so are the defaults of relative depth and factor."""
    path = tmp_path / "model.onnx"
    onnx_export(
        "network_def", str(path), str(WEIGHTS), META, str(CONFIGS / "inference.yaml"), input_shape=[1, 1, 32, 64, 4]
    )
    window = example(32, 64, 0.5, 8)[0]
    with torch.no_grad():
        torch.testing.assert_close(onnx_result(path, (window,)), shipped()(window), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_onnx_of_any_size_relative_depth_and_factor(tmp_path):
    """PyTorch's exporter, which can be told which sizes vary."""
    path, network, any_size = tmp_path / "model.onnx", shipped(), torch.export.Dim.DYNAMIC
    inputs = example(48, 64, 0.25, 8)
    torch.onnx.export(
        network,
        inputs,
        str(path),
        input_names=["window", "relative_depth", "factor"],
        output_names=["pred"],
        dynamic_shapes=({2: any_size, 3: any_size}, {}, {}),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    for each in (inputs, example(37, 50, 0.7, 3.3)):
        with torch.no_grad():
            torch.testing.assert_close(onnx_result(path, each), network(*each), rtol=1e-3, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- sharing


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The zip of what lies in the working tree, committed or not."""
    folder = tmp_path_factory.mktemp("a place with spaces")
    made = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    made["GIT_INDEX_FILE"] = str(folder / "index")

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=BUNDLE, env={**os.environ, **made}, check=True, stdout=PIPE).stdout.decode()

    try:
        git("add", ".")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    path = folder / f"{NAME}_v{METADATA['version']}.zip"
    make_bundle.write_zip(path, git("commit-tree", "-m", "tried", git("write-tree").strip()).strip())
    return path


def files(archive: Path) -> set[str]:
    """The files of the zip, by their names in the bundle."""
    names = {name.removeprefix(f"{NAME}/") for name in zipfile.ZipFile(archive).namelist()}
    return {name for name in names if name and not name.endswith("/")}


@pytest.fixture(scope="module")
def copied(archive) -> Path:
    """The bundle unpacked elsewhere, by MONAI's own download from an address."""
    folder = archive.parent / "bundles"
    folder.mkdir()
    download(name=NAME, url=archive.as_uri(), bundle_dir=str(folder), progress=False)
    return folder / NAME


@pytest.mark.slow
def test_archive_has_the_bundle_and_nothing_else(archive):
    names = files(archive)
    folders = {name.split("/")[0] for name in names}
    assert folders == {"LICENSE", "configs", "docs", "large_files.yml", "models", "scripts"}
    assert {f"scripts/{path.relative_to(BUNDLE / 'scripts')}" for path in (BUNDLE / "scripts").rglob("*.py")} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".ts", ".onnx", ".tif"))]
    sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(archive).infolist()}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


@pytest.mark.slow
def test_copy_reconstructs(copied, tmp_path):
    volume = np.random.default_rng(0).integers(0, 255, (5, 24, 32), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    words = ["--config_file", str(copied / "configs" / "inference.yaml"), "--volume", "in.tif", "--factor", "2.5"]
    result = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words, "--output", "out.tif"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    fine, _, _ = tiff_stack(tmp_path / "out.tif")
    assert fine.shape == (32, 24, 11)
    np.testing.assert_array_equal(fine[:, :, ::5], volume.transpose(2, 1, 0)[:, :, ::2])


LOAD = """
import sys
import torch
from monai.bundle import load
network = load(sys.argv[1], bundle_dir=sys.argv[2], device="cpu")
torch.save((network.eval()(*torch.load(sys.argv[3])), network.state_dict()), sys.argv[4])
"""


@pytest.mark.slow
def test_load_gives_the_network(copied, tmp_path):
    """By the name alone, in a program that knows nothing of the bundle, with the shipped weights."""
    inputs = example(48, 32, 0.25, 8)
    torch.save(inputs, tmp_path / "inputs.pt")
    names = [NAME, str(copied.parent), "inputs.pt", "result.pt"]
    subprocess.run([sys.executable, "-c", LOAD, *names], cwd=tmp_path, env=environment(), check=True)
    result, state = torch.load(tmp_path / "result.pt")
    expected = shipped()
    with torch.no_grad():
        assert torch.equal(result, expected(*inputs))
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())


@pytest.mark.slow
def test_load_fills_a_network(copied):
    parser = ConfigParser()
    parser.read_config(str(copied / "configs" / "inference.yaml"))
    network: Any = load(
        NAME, model=parser.get_parsed_content("network_def"), bundle_dir=str(copied.parent), device="cpu"
    )
    inputs = example(48, 32, 0.25, 8)
    with torch.no_grad():
        assert torch.equal(network.eval()(*inputs), shipped()(*inputs))


@pytest.mark.slow
def test_load_torchscript(torchscript, tmp_path):
    folder = tmp_path / NAME / "models"
    folder.mkdir(parents=True)
    (folder / "model.ts").write_bytes(torchscript.read_bytes())
    loaded: Any = load(NAME, bundle_dir=str(tmp_path), device="cpu", load_ts_module=True)
    network, metadata, _ = loaded
    assert metadata["version"] == METADATA["version"]
    with torch.no_grad():
        assert network(example(32, 32, 0.5, 8)[0]).shape == (1, 1, 32, 32)


@pytest.mark.slow
def test_upload_to_hugging_face(archive, tmp_path, monkeypatch):
    """What would be uploaded is the whole bundle with a model card; the upload itself is a stand-in."""
    zipfile.ZipFile(archive).extractall(tmp_path)
    calls: dict[str, Any] = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, **options):
            calls["repository"] = options

        def upload_folder(self, repo_id, folder_path):
            folder = Path(folder_path)
            calls["files"] = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            calls["card"] = (folder / "README.md").read_text(encoding="utf-8")
            return f"https://huggingface.co/{repo_id}"

        def create_tag(self, **options):
            calls["tag"] = options["tag"]

    monkeypatch.setattr(monai_scripts.huggingface_hub, "HfApi", Api)
    address = push_to_hf_hub("someone/d2r", NAME, str(tmp_path), version=METADATA["version"])
    assert address == "https://huggingface.co/someone/d2r"
    assert calls["repository"]["repo_id"] == "someone/d2r" and calls["tag"] == METADATA["version"]
    assert calls["files"] == {*files(archive), "README.md"}
    head, page = calls["card"].split("\n---\n", 1)
    assert yaml.safe_load(head.removeprefix("---\n"))["license"] == "apache-2.0"
    assert page == (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
