# SPDX-License-Identifier: Apache-2.0
"""Starts MONAI Label with this bundle as its model, without network.

    .venv-monailabel/bin/python monailabel/start_server.py --studies FOLDER

It does what one would do by hand: ``monailabel apps --download --name monaibundle``, put the bundle into the app's
``model`` folder, and ``monailabel start_server`` with the options that keep it from looking for models elsewhere.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
MODEL = "d2r"


def make_app(folder: Path) -> Path:
    """Copy MONAI Label's app for bundles into ``folder``, with the bundle linked as its model; return the
    app's folder."""
    from monailabel.main import Main

    app = folder / "monaibundle"
    if not app.exists():
        # MONAI Label's own command, which copies from what pip installed
        arguments = argparse.Namespace(download=True, name=app.name, output=str(folder), prefix=None)
        Main().action_apps(arguments)
    model = app / "model" / MODEL
    shutil.rmtree(model, ignore_errors=True)  # the links, not what they point to
    (model / "models").mkdir(parents=True)
    for name in ("configs", "scripts", "docs", "LICENSE"):
        (model / name).symlink_to(ROOT / "bundle" / name)
    # model.pt alone: clients offer every file of models/ to choose from, and the prior's is for another network
    (model / "models" / "model.pt").symlink_to(ROOT / "bundle" / "models" / "model.pt")
    return app


def make_torchvision_importable() -> None:
    """Declare the operators of torchvision that it misses when its build and torch's differ (CUDA and CPU).

    MONAI Label imports torchvision to draw pictures; the operators, for object detection, are never called.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)


def main() -> None:
    parser = argparse.ArgumentParser(description="Start MONAI Label with the D2R bundle as its model.")
    parser.add_argument("--studies", required=True, help="folder of volumes; MONAI Label keeps its index there")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines connect, without a password")
    parser.add_argument("--app", type=Path, default=ROOT / "runs" / "monailabel", help="folder for MONAI Label's app")
    options = parser.parse_args()
    options.app.mkdir(parents=True, exist_ok=True)
    make_torchvision_importable()
    app = make_app(options.app)

    from monailabel.main import Main

    sys.argv = ["monailabel", "start_server", "--app", str(app), "--studies", options.studies]
    sys.argv += ["--host", options.host, "--port", str(options.port)]
    conf = {"models": MODEL, "zoo_source": "local", "sam2": "false", "skip_trainers": "true"}
    for key, value in conf.items():
        sys.argv += ["--conf", key, value]
    Main().run()


if __name__ == "__main__":
    main()
