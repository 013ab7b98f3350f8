"""Requests by the thousand, made of OpenAI's document and of ours, good ones and bad: what the gateway
answers is what the documents say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from clients.parrot import Gateway

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

DATA = Path(os.environ.get("MONAI_BENCH_DATA", Path(__file__).parents[3] / "shared" / "bench"))
CHECKS = (
    "content_type_conformance",
    "errors_have_four_keys",
    "response_schema_conformance",
    "unsupported_method",
)
SECONDS = 300.0  # with nothing else to do, one document takes a minute


def fuzz(document: Path, base: str, folder: Path, checks: Sequence[str], example_count: int) -> Counter[str]:
    """How many answers of each status each operation gave; AssertionError with what schemathesis found."""
    seen = folder / "seen.json"
    command = [str(Path(sys.executable).parent / "schemathesis"), "--no-color", "run", str(document)]
    command += ["--url", base, "--checks", ",".join(checks), "--max-examples", str(example_count)]
    command += ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--generation-deterministic"]
    fuzzed = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "SCHEMATHESIS_HOOKS": "clients.conformance_hooks",
            "SEEN": str(seen),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert fuzzed.returncode == 0, fuzzed.stdout[-20_000:] + fuzzed.stderr[-2_000:]
    return Counter(json.loads(seen.read_text()))


def test_what_openai_s_document_allows_and_what_it_does_not(gateway: Gateway, tmp_path: Path) -> None:
    document = DATA / "openai" / "openapi-trimmed.json"
    if not document.exists():
        pytest.skip("needs OpenAI's document, trimmed: openai/openapi-trimmed.json")
    seen = fuzz(document, gateway.base, tmp_path, CHECKS, 8)
    posts = ("/chat/completions", "/embeddings", "/responses")
    for path in posts:
        assert seen[f"POST {path} 200"] > 0, seen
        assert seen[f"POST {path} 400"] > 10, seen


def test_what_our_own_document_says(gateway: Gateway, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    described = httpx.get(f"{gateway.url}/openapi.json", trust_env=False)
    document.write_bytes(described.content)
    for schema in described.json()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    seen = fuzz(document, gateway.url, tmp_path, (*CHECKS, "status_code_conformance"), 10)
    for path in ("plan", "runs", "feedback"):
        assert seen[f"POST /v1/{path} 400"] > 10
    for operation in ("POST /v1/plan", "GET /v1/route", "GET /v1/decisions", "GET /v1/peers"):
        assert seen[f"{operation} 200"] > 0, seen
    assert seen["POST /v1/feedback 404"] > 0
