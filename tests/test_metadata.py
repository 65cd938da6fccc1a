# SPDX-License-Identifier: Apache-2.0
"""metadata.json, constraints.txt and the changelogs agree, and nothing that is too large or a volume is committed."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
METADATA = json.loads((ROOT / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))

# What every bundle of the MONAI model zoo has, and what MONAI's bundle specification adds.
REQUIRED = {
    "schema": str,
    "version": str,
    "changelog": dict,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "name": str,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "data_source": str,
    "data_type": str,
    "image_classes": str,
    "label_classes": str,
    "pred_classes": str,
    "eval_metrics": dict,
    "intended_use": str,
    "references": list,
    "network_data_format": dict,
    "diffusion_data_format": dict,
}
TENSOR_FIELDS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data")
MAY_BE_EMPTY = {"eval_metrics"}  # filled in by measurements
MAX_BYTES = 25 * 1024**2  # the zoo's limit on one file
SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
VOLUME_SUFFIXES = (".tif", ".tiff", ".nii", ".nii.gz")


def pins(python_version: str) -> dict[str, str]:
    """Versions in constraints.txt for one Python: canonical package name -> version."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"python_version": python_version}):
            continue
        name, specifier = canonicalize_name(requirement.name), str(requirement.specifier)
        assert specifier.startswith("=="), f"constraints.txt does not pin {name}"
        assert name not in found, f"constraints.txt pins {name} twice for Python {python_version}"
        found[name] = specifier[2:]
    return found


def install_requires(*extras: str) -> set[str]:
    """Canonical names of the packages setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    text = setup["options"]["install_requires"]
    text += "".join("\n" + setup["options.extras_require"][extra] for extra in extras)
    lines = (line.strip() for line in text.splitlines())
    return {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}


def tracked_files() -> list[Path]:
    """The files in git; skips the test outside a checkout (an unpacked archive has none)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listing.returncode != 0:
        pytest.skip("git cannot list the files of this checkout")
    paths = (ROOT / name for name in listing.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("field", REQUIRED)
def test_field_is_there(field):
    assert isinstance(METADATA[field], REQUIRED[field])
    assert METADATA[field] or field in MAY_BE_EMPTY


def test_deprecated_name_would_overwrite_required_packages():
    assert "optional_packages_version" not in METADATA


@pytest.mark.parametrize("network", ["network_data_format", "diffusion_data_format"])
def test_data_format(network):
    assert "image" in METADATA[network]["inputs"] and "pred" in METADATA[network]["outputs"]
    tensors = {**METADATA[network]["inputs"], **METADATA[network]["outputs"]}
    for name, tensor in tensors.items():
        assert [field for field in TENSOR_FIELDS if field not in tensor] == [], name
        for size in tensor["spatial_shape"]:
            # "*" becomes a single voxel in MONAI's check of input and output
            assert isinstance(size, int) or re.fullmatch(r"\d+\*n", size), f"{name}: {size}"
    # channel names are read from the prediction by MONAI and MONAI Label
    prediction = METADATA[network]["outputs"]["pred"]
    assert len(prediction["channel_def"]) == prediction["num_channels"]


@pytest.mark.parametrize("python_version", SUPPORTED)
def test_constraints_pin_every_dependency(python_version):
    assert install_requires("test", "benchmark", "dev", "resolve") - pins(python_version).keys() == set()


def test_one_set_of_pins_serves_every_python():
    assert all(pins(version) == pins(SUPPORTED[0]) for version in SUPPORTED)


def test_supported_pythons_are_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["options"]["python_requires"] == f">={SUPPORTED[0]}"  # a newer one is warned about, not refused
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^PYTHONS = (.*)$", makefile, re.MULTILINE)[1].split() == SUPPORTED  # type: ignore[index]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"] == SUPPORTED
    assert workflow["jobs"]["test"]["steps"][-1]["run"] == "bash .ci/run"
    for page in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {SUPPORTED[0]} to {SUPPORTED[-1]}" in (ROOT / page).read_text(encoding="utf-8")


def test_required_packages_are_the_pinned_ones():
    pinned = pins(SUPPORTED[0])
    named = {canonicalize_name(name): version for name, version in METADATA["required_packages_version"].items()}
    core = {
        "monai": METADATA["monai_version"],
        "torch": METADATA["pytorch_version"],
        "numpy": METADATA["numpy_version"],
    }
    assert named.keys() | core.keys() == install_requires()
    assert named | core == {name: pinned[name] for name in install_requires()}


def test_versions_agree():
    version = METADATA["version"]
    assert version in METADATA["changelog"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == "attr: d2r_bundle.scripts.version.VERSION"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION == version


def test_licenses():
    license_text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in license_text and "END OF TERMS AND CONDITIONS" in license_text
    assert (ROOT / "bundle" / "LICENSE").read_text(encoding="utf-8") == license_text
    data_license = (ROOT / "bundle" / "docs" / "data_license.txt").read_text(encoding="utf-8")
    assert "Takemura" in data_license and "Creative Commons" in data_license


def test_no_tracked_file_is_too_large():
    large = [
        f"{path.relative_to(ROOT)} ({path.stat().st_size} bytes)"
        for path in tracked_files()
        if path.stat().st_size > MAX_BYTES
    ]
    assert large == []


def test_no_volume_is_tracked():
    volumes = [str(path.relative_to(ROOT)) for path in tracked_files() if path.name.lower().endswith(VOLUME_SUFFIXES)]
    assert volumes == []
