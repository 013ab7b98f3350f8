"""The commands that talk to a running gateway over HTTP: `ask`, `plan`, `route`, `feedback`, `peers`; and
what needs none: `recipes`, `keys`, `reset`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_node.mesh.cli_http import gateway_of, request, stream, understood
from monai_node.mesh.cli_plan import plan_lines, read_plan, run_recipes
from monai_node.mesh.cli_route import decision_line, route_lines
from monai_node.mesh.cli_text import one_line, printable, shortened, who
from monai_node.mesh.state import parse_json, reset_state_dir, state_path, write_json
from monai_node.registry.errors import SetupError

_GRACE_SECONDS = 5.0  # over the run's own deadline, which the gateway keeps
_DEADLINE_SECONDS = 120.0
_TEXT_BYTES_MAX = 1 << 20


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
        case "decisions":
            return _decisions(options)
        case "feedback":
            return _feedback(options)
        case "recipes":
            return run_recipes(options)
        case "keys":
            from monai_node.mesh.cli_keys import run_keys

            return run_keys(options)
        case _:
            return _reset(options)


# --- ask ------------------------------------------------------------------------------------------
def _ask(options: argparse.Namespace) -> int:
    plan = read_plan(options.plan) if options.plan else None
    text = _request_text(options, plan)
    conversation = Conversation(options.conversation)
    messages = [*conversation.messages]
    if options.system and not messages:
        messages.append({"role": "system", "content": options.system})
    if text is not None:
        messages.append({"role": "user", "content": text})
    elif messages or options.conversation:
        raise SetupError("the plan does not say which request it was made for; give that too")
    deadline: float = options.deadline or _DEADLINE_SECONDS
    body = {**_wishes(options, deadline), "stream": True}
    if messages:
        body["messages"] = messages
    seconds = deadline + _GRACE_SECONDS
    following = _Following(is_quiet=options.json)
    try:
        if plan:
            body |= {key: plan[key] for key in ("graph", "shown") if key in plan}
            following.run(stream(gateway_of(options), "/v1/runs", body, seconds))
        else:
            body["stream_options"] = {"include_usage": True}
            following.chat(stream(gateway_of(options), "/v1/chat/completions", body, seconds))
    except SetupError:
        if following.answer and not options.json:
            print(flush=True)  # what went wrong stands on a line of its own
        raise
    conversation.keep([*messages, {"role": "assistant", "content": following.answer}])
    following.end()
    return 0


def _request_text(options: argparse.Namespace, plan: dict[str, Any] | None) -> str | None:
    """What is asked; with a plan, the request that it was made for, when that is known."""
    known: str | None = plan.get("text") if plan else None
    if options.text is None:
        return known
    text = _text(options)
    if known is not None and text != known:
        raise SetupError(f"{options.plan} was made for another request; leave the request out here")
    return text


def _wishes(options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    mesh: dict[str, Any] = {"deadline_seconds": deadline, "timezone": _timezone()}
    if options.privacy:
        mesh["privacy"] = options.privacy
    if options.no_plan:
        mesh["plan"] = "never"
    body: dict[str, Any] = {"model": options.model, "mesh": mesh}
    for key in ("max_tokens", "temperature"):
        if getattr(options, key) is not None:
            body[key] = getattr(options, key)
    return body


class _Following:
    """An answer while it comes: shown at once to a person, and at the end as JSON to a script."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self.answer = ""
        self._mesh: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None

    def chat(self, chunks: Iterator[dict[str, Any]]) -> None:
        """Follow OpenAI's chunks."""
        for chunk in chunks:
            self._usage = chunk.get("usage") or self._usage
            with understood():
                pieces = [choice.get("delta", {}).get("content") or "" for choice in chunk.get("choices", [])]
                text = "".join(pieces)
            self._add(text)
            self._mesh = chunk.get("mesh") or self._mesh

    def run(self, events: Iterator[dict[str, Any]]) -> None:
        """Follow the events of a run; SetupError when it failed."""
        tasks: list[dict[str, Any]] = []
        for event in events:
            match event:
                case {"type": "plan.task"}:
                    tasks.append({key: event.get(key) for key in ("task", "text", "depends_on")})
                case {"type": "answer.delta", "text": str(text)}:
                    self._add(text)
                case {"type": "answer.completed", "run": run, "parts": parts, "usage": usage}:
                    self._mesh, self._usage = {"run": run, "tasks": tasks, "parts": parts}, usage
                    return
                case {"type": "error", "message": str(message)}:
                    raise SetupError(message)
                case _:
                    pass

    def end(self) -> None:
        """Say who made the answer, and which run it was: by that it can be rated."""
        if self._is_quiet:
            told = {"answer": self.answer, **self._mesh, "usage": self._usage}
            print(json.dumps(told, ensure_ascii=False))
            return
        print()
        with understood():
            makers = [_credit(part) for part in self._mesh.get("parts", [])]
        run = self._mesh.get("run")
        for line in [*makers, f"to rate it: monai-node feedback {one_line(run)} up"] if run else makers:
            print(f"  {line}", file=sys.stderr)

    def _add(self, text: str) -> None:
        self.answer += text
        if text and not self._is_quiet:
            print(printable(text), end="", flush=True)


def _credit(part: dict[str, Any]) -> str:
    maker = f"{one_line(part['model'])} on {who(part)}"
    return f"{maker}, {part['seconds']:.1f} s: {shortened(part['text'], 60)}"


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


# --- plan, route, feedback, peers ---------------------------------------------------------------------------
def _plan(options: argparse.Namespace) -> int:
    mesh = {"privacy": options.privacy} if options.privacy else {}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": _text(options)}], "mesh": mesh}
    view = request(gateway_of(options), "POST", "/v1/plan", json=body)
    if options.json:
        # For people too, who may edit it and send it back with `ask --plan`.
        print(json.dumps(view, ensure_ascii=False, indent=2))
    else:
        with understood():
            lines = list(plan_lines(view))
        print("\n".join(lines))
    return 0


def _route(options: argparse.Namespace) -> int:
    query = {"text": _text(options), **({"privacy": options.privacy} if options.privacy else {})}
    found = request(gateway_of(options), "GET", "/v1/route", params=query)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    with understood():
        lines = list(route_lines(found))
    print("\n".join(lines))
    return 0


def _feedback(options: argparse.Namespace) -> int:
    body = {"run": options.run, "rating": options.rating, **({"task": options.task} if options.task else {})}
    found = request(gateway_of(options), "POST", "/v1/feedback", json=body)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    with understood():
        tasks = one_line(", ".join(found["tasks"]))
    print(f"noted for {tasks}" if tasks else "not counted: its peers were rated often enough lately")
    return 0


def _decisions(options: argparse.Namespace) -> int:
    found = request(gateway_of(options), "GET", "/v1/decisions", params={"limit": str(options.limit)})
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    with understood():
        lines = [decision_line(decision) for decision in found["data"]]
    print(*lines, sep="\n", end="\n" * bool(lines))
    return 0


def _peers(options: argparse.Namespace) -> int:
    found = request(gateway_of(options), "GET", "/v1/peers")
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    with understood():
        lines = [line for peer in found["data"] for line in _peer_lines(peer)]
    print(*lines, sep="\n", end="\n" * bool(lines))
    return 0


def _peer_lines(peer: dict[str, Any]) -> Iterator[str]:
    heard = peer["last_heard_seconds"]
    age = "" if heard is None else f"heard {heard:.1f} s ago"
    load = f"{peer['running']} running, {peer['queued']} queued"
    yield f"{peer['state']:8} {one_line(peer['name']):20} {peer['id'][-8:]}  {load}  {age}"
    for label in ("models", "skills"):
        if peer[label]:
            yield f"         {label}: {one_line(', '.join(peer[label]))}"


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
