"""What an installed package must hold, and what importing it may cost."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("agents", "mesh", "registry", "router")
HEAVY = {
    "anyio",
    "fastapi",
    "httpx",
    "langgraph",
    "libp2p",
    "llama_cpp",
    "numpy",
    "platformdirs",
    "pydantic",
    "sentence_transformers",
    "torch",
    "transformers",
    "trio",
    "uvicorn",
}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules_after(code: str) -> set[str]:
    """The names in sys.modules of a new process that ran `code`."""
    report = "import sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,  # where `import mesh` would work too
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


def test_every_package_is_in_the_wheel() -> None:
    found = {
        "monai_node." + ".".join(file.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("__init__.py")
    }
    setuptools = project()["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(found)
    assert setuptools["package-dir"] == {f"monai_node.{folder}": folder for folder in FOLDERS}


def test_every_folder_with_modules_is_a_package() -> None:
    """Without `__init__.py` a folder works in a checkout and is missing from the wheel."""
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


def test_the_data_of_every_package_is_in_the_wheel() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["*"]
    for folder in FOLDERS:
        assert (ROOT / folder / "py.typed").exists()
        for package in (file.parent for file in (ROOT / folder).rglob("__init__.py")):
            for file in package.iterdir():
                if file.is_file() and file.suffix not in (".py", ".pyc"):
                    assert any(file.match(pattern) for pattern in patterns), f"{file} would be left out"


def test_the_type_checkers_view_is_the_same_folders() -> None:
    for folder in FOLDERS:
        assert (ROOT / ".typings" / "monai_node" / folder).resolve() == ROOT / folder


def test_no_module_is_imported_under_a_second_name() -> None:
    """`import mesh.node` works in a checkout, and makes every class a second time."""
    loaded = modules_after(
        "import monai_node.mesh.cli, monai_node.mesh.cli_node, monai_node.mesh.cli_client, monai_node.agents"
    )
    assert "monai_node.mesh.node" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in FOLDERS}


@pytest.mark.parametrize(
    ("command", "light"),
    [
        ("[]", HEAVY),
        ("['--help']", HEAVY),
        ("['up', '--help']", HEAVY),
        ("['ask', '--help']", HEAVY),
        ("['no-such-command']", HEAVY),
        ("['--version']", HEAVY),
        ("['peers', '--state-dir', '/dev/null/none']", HEAVY - {"platformdirs"}),
        ("['ps', '--state-dir', '/dev/null/none']", HEAVY - {"platformdirs"}),
        ("['diagnostics', '--state-dir', '/dev/null/none']", HEAVY - {"platformdirs"}),
        ("['service', '--state-dir', '/dev/null/none']", HEAVY - {"platformdirs"}),
    ],
)
def test_a_command_imports_only_what_it_needs(command: str, light: set[str]) -> None:
    loaded = modules_after(
        "import contextlib, io\n"
        "from monai_node.mesh.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    with contextlib.suppress(SystemExit): main({command})"
    )
    assert "monai_node.mesh.cli" in loaded
    assert not loaded & light


def test_importing_the_sdk_imports_nothing_heavy() -> None:
    loaded = modules_after("import monai_node.agents")
    # What describes a skill is checked by pydantic; everything else waits until something is opened.
    assert not loaded & (HEAVY - {"pydantic"})


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = project()["tool"]["importlinter"]["contracts"]
    assert f"{len(contracts)} kept, 0 broken" in done.stdout
