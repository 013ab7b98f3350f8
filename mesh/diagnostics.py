"""`monai-node diagnostics`: what whoever helps wants to know, fit to be pasted where everybody reads it.

Nothing secret is read but to be looked for in the report, which is then not printed with it. Ids are
shortened, addresses of other machines and the names of this one and its user taken out (`mesh.redact`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monai_node.mesh.cli_ps import asking, gateway_at, node_rows
from monai_node.mesh.cli_text import printable
from monai_node.mesh.redact import Redaction, redaction_of
from monai_node.mesh.state import state_path
from monai_node.registry.errors import SetupError

_PACKAGES = (
    *("monai-node", "cbor2", "cryptography", "fastapi", "httpx", "langgraph", "libp2p", "llama-cpp-python"),
    *("numpy", "opentelemetry-sdk", "prometheus-client", "pydantic", "safetensors", "tokenizers", "torch"),
    *("trio", "uvicorn", "websockets"),
)
# What decides which kernels llama.cpp and torch use.
_CPU_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve", "i8mm", "bf16"),
)
_VARIABLES = ("MONAI_", "OTEL_", "OMP_", "GGML_", "LLAMA_", "CUDA_VISIBLE")
_CHECKS = ("/health", "/ready", "/v1/models", "/metrics")
_FILES_MAX = 200
_PEERS_MAX = 50
_LOG_LINES = 20
_LOG_BYTES = 64 << 10
_LINE_CHARS = 400


def run_diagnostics(options: argparse.Namespace) -> int:
    """Print the report. What cannot be found out is left out of it, and is no error."""
    state = state_path(options.state_dir)
    clean = redaction_of(state)
    report = clean.value(
        {name: _tried(section) for name, section in _sections(options.state_dir, state, clean)}
    )
    text = json.dumps(report, ensure_ascii=False, indent=1) if options.json else "\n".join(_lines(report))
    clean.check(text)
    print(text)
    return 0


def _sections(
    state_dir: Path | None, state: Path, clean: Redaction
) -> Iterator[tuple[str, Callable[[], object]]]:
    rows = node_rows(state_dir)
    urls: list[str] = [row["url"] for row in rows if row["url"] and row["state"] == "running"]
    yield "versions", lambda: dict(_versions())
    yield "platform", _platform
    yield "memory", _memory
    yield "environment", lambda: {name: "set" for name in sorted(os.environ) if name.startswith(_VARIABLES)}
    yield "nodes", lambda: [_node(row) for row in rows]
    yield "state", lambda: list(_files(state))
    yield "gateways", lambda: [_checked(url, state_dir) for url in urls]
    yield "peers", lambda: [peer for url in urls for peer in _peers(url, state_dir)]
    yield (
        "logs",
        lambda: {file.parent.name: _last_lines(file) for file in sorted(state.glob("nodes/*/node.log"))},
    )


def _tried(section: Callable[[], object]) -> object:
    try:
        return section()
    except (OSError, ValueError, KeyError, TypeError, SetupError) as error:
        return f"not known ({type(error).__name__})"


# --- this machine -----------------------------------------------------------------------------------
def _versions() -> Generator[tuple[str, str]]:
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


def _platform() -> dict[str, object]:
    found: dict[str, object] = {"system": platform.platform(), "cores": os.cpu_count()}
    with suppress(OSError, AttributeError):
        found["cores_usable"] = len(os.sched_getaffinity(0))
    with suppress(OSError):
        about = _colons(Path("/proc/cpuinfo").read_text())
        flags = set((about.get("flags") or about.get("Features") or "").split())
        found["processor"] = about.get("model name", "")
        found["features"] = " ".join(name for name in _CPU_FEATURES if name in flags)
    for name in ("cpu.max", "memory.max"):
        with suppress(OSError):
            found[f"cgroup {name}"] = Path("/sys/fs/cgroup", name).read_text().strip()
    return found


def _memory() -> dict[str, object]:
    about = _colons(Path("/proc/meminfo").read_text())
    return {
        name: about[name] for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree") if name in about
    }


def _colons(text: str) -> dict[str, str]:
    """What stands on lines of the form `name : value`; of several of one name the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


# --- this user's nodes --------------------------------------------------------------------------------
def _node(row: Mapping[str, Any]) -> dict[str, object]:
    kept = ("name", "state", "role", "uptime_seconds", "rss_bytes", "models", "skills", "options")
    return {name: row[name] for name in (*kept, "peer", "addrs", "running", "queued")}


def _files(state: Path) -> Generator[str]:
    disk = shutil.disk_usage(state)
    yield f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free"
    for path in sorted(state.rglob("*"))[:_FILES_MAX]:
        with suppress(OSError):
            about = path.lstat()
            mode, age_hours = stat.filemode(about.st_mode), (time.time() - about.st_mtime) / 3600
            yield f"{mode} {about.st_size:>10} {age_hours:8.1f} h  {path.relative_to(state)}"


def _last_lines(file: Path) -> list[str]:
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _LOG_BYTES))
        lines = log.read(_LOG_BYTES).decode(errors="replace").splitlines()
    return [printable(line)[:_LINE_CHARS] for line in lines[-_LOG_LINES:]]


# --- its gateways -------------------------------------------------------------------------------------
def _checked(url: str, state_dir: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    with asking(gateway_at(url, state_dir)) as ask:
        for path in _CHECKS:
            began = time.monotonic()
            try:
                answer = str(ask(path).status_code)
            except SetupError as error:
                answer = error.message
            found[path] = f"{answer} in {(time.monotonic() - began) * 1000:.0f} ms"
    return found


def _peers(url: str, state_dir: Path | None) -> list[dict[str, object]]:
    with asking(gateway_at(url, state_dir)) as ask:
        told: Any = ask("/v1/peers").json()
    kept = ("id", "state", "last_heard_seconds", "running", "queued", "models", "skills")
    return [{name: peer[name] for name in kept} for peer in told["data"][:_PEERS_MAX]]


# --- for people -----------------------------------------------------------------------------------------
def _lines(report: Mapping[str, Any]) -> Generator[str]:
    for name, section in report.items():
        yield f"## {name}"
        match section:
            case dict():
                for key, value in section.items():  # pyright: ignore[reportUnknownVariableType]
                    yield from _entry(str(key), value)  # pyright: ignore[reportUnknownArgumentType]
            case list():
                for value in section:  # pyright: ignore[reportUnknownVariableType]
                    yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            case _:
                yield str(section)
        yield ""


def _entry(key: str, value: object) -> Generator[str]:
    if isinstance(value, list):
        yield f"{key}:"
        yield from (f"  {line}" for line in value)  # pyright: ignore[reportUnknownVariableType]
    else:
        yield f"{key}: {value}"
