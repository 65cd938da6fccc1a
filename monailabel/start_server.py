# SPDX-License-Identifier: Apache-2.0
"""Starts MONAI Label with this bundle as its model, without network.

.venv-monailabel/bin/python monailabel/start_server.py --studies FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Start MONAI Label with the D2R bundle as its model.")
    parser.add_argument("--studies", required=True, help="folder of volumes; MONAI Label keeps its index there")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines connect, without a password")
    parser.add_argument("--app", type=Path, default=ROOT / "runs" / "monailabel", help="folder for MONAI Label's logs")
    options = parser.parse_args()

    # MONAI Label takes a folder of its own, in which it makes others, for an app
    options.app.mkdir(parents=True, exist_ok=True)
    main_file = options.app / "main.py"
    main_file.unlink(missing_ok=True)
    main_file.symlink_to(ROOT / "monailabel" / "d2r_app.py")

    # for this process, and for the one that it starts for a batch
    folders = [str(ROOT / "monailabel"), str(ROOT / "bundle")]
    sys.path[:0] = folders
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"  # one bundle: its modules stay, and with them its InputError

    from monailabel.main import Main

    sys.argv = ["monailabel", "start_server", "--app", str(options.app), "--studies", options.studies]
    sys.argv += ["--host", options.host, "--port", str(options.port), "--uvicorn_app", "checked_requests:app"]
    Main().run()


if __name__ == "__main__":
    main()
