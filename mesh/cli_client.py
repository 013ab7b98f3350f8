"""The commands that talk to a running gateway over HTTP: `ask`, `plan`, `route`, `peers`; and `reset`."""

from __future__ import annotations

import argparse
import json
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from monai_node.mesh.state import parse_json, read_json, reset_state_dir, state_path, write_json
from monai_node.registry.errors import SetupError

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS = 5.0
_GRACE_SECONDS = 5.0  # over the run's own deadline, which the gateway keeps
_DEADLINE_SECONDS = 120.0
_TEXT_BYTES_MAX = 1 << 20
_NO_ANSWER = "the gateway sent what is not an answer of a mesh; is --url right?"
# Joiners have no direction and no width: Persian, Hindi and many emoji are spelled with them.
_JOINERS = "\u200c\u200d"


def run_client(options: argparse.Namespace) -> int:
    """Run one command; the exit status. SetupError in one sentence for whatever went wrong."""
    match options.command:
        case "ask":
            return _ask(options)
        case "plan":
            return _plan(options)
        case "route":
            return _route(options)
        case "peers":
            return _peers(options)
        case _:
            return _reset(options)


def gateway_url(options: argparse.Namespace) -> str:
    """The gateway to talk to: the one named, else this user's running one."""
    if options.url:
        url: str = options.url
        return url.rstrip("/").removesuffix("/v1")
    known = (read_json(state_path(options.state_dir) / "gateway.json") or {}).get("url")
    if not isinstance(known, str):
        raise SetupError("no gateway is running here; start one with `monai-node up`, or give --url")
    return known


# --- ask ------------------------------------------------------------------------------------------
def _ask(options: argparse.Namespace) -> int:
    conversation = Conversation(options.conversation)
    messages = [*conversation.messages]
    if options.system and not messages:
        messages.append({"role": "system", "content": options.system})
    messages.append({"role": "user", "content": _text(options)})
    deadline: float = options.deadline or _DEADLINE_SECONDS
    mesh: dict[str, Any] = {"deadline_seconds": deadline, "timezone": _timezone()}
    if options.privacy:
        mesh["privacy"] = options.privacy
    if options.no_plan:
        mesh["plan"] = "never"
    body: dict[str, Any] = {"model": options.model, "messages": messages, "stream": True, "mesh": mesh}
    body["stream_options"] = {"include_usage": True}
    for key in ("max_tokens", "temperature"):
        if getattr(options, key) is not None:
            body[key] = getattr(options, key)
    answer, last, usage = "", dict[str, Any](), None
    try:
        for chunk in _stream(f"{gateway_url(options)}/v1/chat/completions", body, deadline + _GRACE_SECONDS):
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                text: str = choice.get("delta", {}).get("content") or ""
                answer += text
                if text and not options.json:
                    print(printable(text), end="", flush=True)
            last = chunk.get("mesh") or last
    except SetupError:
        if answer and not options.json:
            print(flush=True)  # what went wrong stands on a line of its own
        raise
    conversation.keep([*messages, {"role": "assistant", "content": answer}])
    if options.json:
        print(json.dumps({"answer": answer, **last, "usage": usage}, ensure_ascii=False))
        return 0
    print()
    for part in last.get("parts", []):
        print(f"  {_credit(part)}", file=sys.stderr)
    return 0


def _credit(part: dict[str, Any]) -> str:
    who = f"{one_line(part['model'])} on {_who(part)}"
    what = one_line(part["text"])
    return f"{who}, {part['seconds']:.1f} s: {what if len(what) <= 60 else what[:59] + '…'}"


class Conversation:
    """Earlier turns in a file that the user named, and nothing otherwise."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.messages: list[dict[str, Any]] = []
        if path is not None and path.exists():
            try:
                kept: object = parse_json(path).get("messages")
            except ValueError:
                kept = None
            except OSError as error:
                raise SetupError(f"{path} cannot be read ({error.strerror})") from None
            if not isinstance(kept, list):
                raise SetupError(f"{path} is not a conversation kept by monai-node; name another file")
            self.messages = kept  # pyright: ignore[reportUnknownMemberType]

    def keep(self, messages: list[dict[str, Any]]) -> None:
        if self._path is None:
            return
        try:
            write_json(self._path, {"messages": messages})
        except OSError as error:
            raise SetupError(f"{self._path} cannot be written ({error.strerror})") from None


# --- plan, route, peers -----------------------------------------------------------------------------
def _plan(options: argparse.Namespace) -> int:
    mesh = {"privacy": options.privacy} if options.privacy else {}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": _text(options)}], "mesh": mesh}
    graph = _request("POST", f"{gateway_url(options)}/v1/plan", json=body)
    if options.json:
        print(json.dumps(graph, ensure_ascii=False))
        return 0
    for task in graph["tasks"]:
        after = f"  (after {', '.join(task['depends_on'])})" if task["depends_on"] else ""
        print(f"{task['id']}  {one_line(task['text'])}{after}")
    return 0


def _route(options: argparse.Namespace) -> int:
    query = {"text": _text(options), **({"privacy": options.privacy} if options.privacy else {})}
    found = _request("GET", f"{gateway_url(options)}/v1/route", params=query)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for candidate in found["data"]:
        mark = "→" if candidate["is_chosen"] else " "
        print(f"{mark} {candidate['score']:.2f}  {one_line(candidate['skill']):24} {_who(candidate)}")
        for reason in candidate["reasons"]:
            print(f"          {one_line(reason)}")
    return 0


def _peers(options: argparse.Namespace) -> int:
    found = _request("GET", f"{gateway_url(options)}/v1/peers")
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for peer in found["data"]:
        heard = peer["last_heard_seconds"]
        age = "" if heard is None else f"heard {heard:.1f} s ago"
        load = f"{peer['running']} running, {peer['queued']} queued"
        print(f"{peer['state']:8} {one_line(peer['name']):20} {peer['id'][-8:]}  {load}  {age}")
        for label in ("models", "skills"):
            if peer[label]:
                print(f"         {label}: {one_line(', '.join(peer[label]))}")
    return 0


def _reset(options: argparse.Namespace) -> int:
    folder = state_path(options.state_dir)
    if not options.yes:
        if not sys.stdin.isatty():
            raise SetupError(f"this removes {folder} with its keys and mesh secret; repeat with --yes")
        if input(f"remove {folder} with its keys and mesh secret? [y/N] ").strip().lower() != "y":
            return 1
    print(f"removed {reset_state_dir(options.state_dir)}")
    return 0


# --- helpers ----------------------------------------------------------------------------------------
def printable(text: str) -> str:
    """Text of others for a terminal: no control or direction characters but newline and tab, and no
    half of a surrogate pair, which no terminal can be sent."""
    return "".join(
        c for c in text if c in "\n\t" or c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


def one_line(text: object) -> str:
    """`printable`, for what has one line to stand on: a name, a reason, an error."""
    return " ".join(printable(str(text)).split())


def _who(row: dict[str, Any]) -> str:
    return f"{one_line(row['peer_name'])} ({one_line(row['peer'])[-8:]})"


def _text(options: argparse.Namespace) -> str:
    text: str = options.text
    if text == "-":
        text = sys.stdin.buffer.read(_TEXT_BYTES_MAX + 1).decode("utf-8", "replace")
    if not text.strip():
        raise SetupError("the request is empty")
    return text


def _timezone() -> str | None:
    """The IANA name of this machine's timezone, when it says so."""
    try:
        zone = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    except OSError:
        return None
    return zone or None


def _stream(url: str, body: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer; SetupError for an error status, an error event, a cut, or an
    answer that is not over after `seconds`."""
    import httpx

    from monai_node.mesh.engine.sse import SseParser

    parser, ends_at, is_open = SseParser(), time.monotonic() + seconds, False
    timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
    try:
        with httpx.stream("POST", url, json=body, timeout=timeout, trust_env=False) as response:
            if response.status_code != 200:
                response.read()
                raise SetupError(_message(response))
            is_open = True
            for block in response.iter_bytes():
                for data in parser.feed(block):
                    if data == "[DONE]":
                        return
                    yield _chunk(data)
                if time.monotonic() > ends_at:  # keep-alives alone must not hold us for ever
                    raise SetupError(f"the gateway did not complete the answer within {seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if not is_open:
            raise SetupError(_unreachable(url, error)) from None
    raise SetupError("the gateway ended the answer before it was complete")


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk: object = json.loads(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise SetupError(_NO_ANSWER)
    known = cast("dict[str, Any]", chunk)
    if "error" in known:
        raise SetupError(_error_of(known) or "the gateway could not answer")
    return known


def _request(method: str, url: str, **arguments: Any) -> dict[str, Any]:
    import httpx

    try:
        response = httpx.request(method, url, timeout=30.0, trust_env=False, **arguments)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SetupError(_unreachable(url, error)) from None
    if response.status_code != 200:
        raise SetupError(_message(response))
    found = _json(response)
    if not isinstance(found, dict):
        raise SetupError(_NO_ANSWER)
    return cast("dict[str, Any]", found)


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _message(response: httpx.Response) -> str:
    return _error_of(_json(response)) or f"the gateway answered with status {response.status_code}"


def _error_of(body: object) -> str:
    """The sentence in an OpenAI error body; empty for anything else."""
    match body:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return ""


def _unreachable(url: str, error: Exception) -> str:
    base = url.partition("/v1/")[0]
    return f"the gateway at {base} did not answer ({type(error).__name__}); is `monai-node up` running?"
