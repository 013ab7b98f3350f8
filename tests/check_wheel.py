"""Does the wheel hold what the checkout holds? `python tests/check_wheel.py FOLDER` (a part of CI).

An editable install finds every file of the checkout; only the wheel can lack one.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGES = ("mesh", "agents", "router", "registry")
KEPT = (".py", ".html", ".toml", ".css", ".js", ".svg", ".safetensors", ".sha256")


def main() -> int:
    root = Path(__file__).parent.parent
    (wheel,) = Path(sys.argv[1]).glob("monai_node-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"monai_node/{path.relative_to(root)}"
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in KEPT or path.name == "py.typed"
    }
    for missing in sorted(wanted - packed):
        print(f"the wheel lacks {missing}")
    print(f"{wheel.name}: {len(wanted & packed)} of {len(wanted)} files")
    return 1 if wanted - packed else 0


if __name__ == "__main__":
    sys.exit(main())
