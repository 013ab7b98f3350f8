"""What may be written on the command line: commands, their options, and what each is for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

_AddCommand = Callable[..., argparse.ArgumentParser]

_DESCRIPTION = "A peer-to-peer mesh of small language models behind one OpenAI-compatible endpoint."
_EPILOG = (
    "Start with `monai-node up`."
    " Environment: MONAI_STATE_DIR, MONAI_JOIN, MONAI_LOG_LEVEL, MONAI_LOG_FORMAT, MONAI_URL,"
    " MONAI_KEY (shown to the gateway)."
)


class _InOrder(argparse.Action):
    """Collects --skill and --example in the order given: an example belongs to the skill before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        words: list[tuple[str, str]] = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*words, ((option_string or "").lstrip("-"), str(values))])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="monai-node", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    add = parser.add_subparsers(dest="command", metavar="COMMAND").add_parser
    state = _state()
    client = _client(state)
    _add_nodes(add, state)
    _add_requests(add, client)
    _add_decisions(add, client)
    _add_recipes(add, state)
    _add_key_actions(add("keys", help="the keys with which others may use your gateway"), state)
    add("peers", parents=[client], help="show the nodes of the mesh")
    _add_upkeep(add, state)
    return parser


# --- options of several commands ------------------------------------------------------------------------
def _state() -> argparse.ArgumentParser:
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state-dir",
        type=Path,
        default=os.environ.get("MONAI_STATE_DIR") or None,
        help="where keys, the mesh secret and logs are kept (default: per user)",
    )
    return state


def _node(state: argparse.ArgumentParser) -> argparse.ArgumentParser:
    node = argparse.ArgumentParser(add_help=False, parents=[state])
    node.add_argument("--node-name", metavar="NAME", help="what this node is called in the mesh")
    node.add_argument(
        "--listen",
        action="append",
        metavar="ADDR",
        help="ip, ip:port or multiaddr for peers (default: this machine only)",
    )
    node.add_argument("--join", action="append", metavar="LINE", help="a join line that another node printed")
    node.add_argument("--open", action="store_true", help="an open mesh: no secret, anybody may join")
    node.add_argument("--json", action="store_true", help="print one JSON line when ready")
    node.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("MONAI_LOG_LEVEL", "info"),
    )
    node.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="what SIGTERM leaves to runs and tasks to end by themselves (default: 30)",
    )
    node.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=os.environ.get("MONAI_LOG_FORMAT", "text"),
        help="one line or one JSON object for each event",
    )
    node.add_argument("--log-file", type=Path, help="default: node.log in the node's state folder")
    return node


def _front() -> argparse.ArgumentParser:
    front = argparse.ArgumentParser(add_help=False)
    _add_access(front)
    _add_planning(front)
    _add_policy(front)
    return front


def _add_access(front: argparse.ArgumentParser) -> None:
    front.add_argument(
        "--host",
        default="127.0.0.1",
        help="where the gateway listens (default: this machine only; elsewhere everybody needs a key)",
    )
    front.add_argument("--port", type=int, help="the gateway's port (default: 8642, or a free one)")
    front.add_argument(
        "--require-key", action="store_true", help="ask for a key on this machine too, say behind a proxy"
    )
    front.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a name by which the gateway is called, repeatable",
    )
    front.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (PEM)"
    )
    front.add_argument("--tls-key", type=Path, metavar="FILE", help="and its key")
    front.add_argument(
        "--hook",
        metavar="FILE.py:FUNCTION",
        help="your own function, which is shown every request and may refuse it",
    )


def _add_planning(front: argparse.ArgumentParser) -> None:
    front.add_argument(
        "--no-recipes", action="store_true", help="neither keep nor use the plans that you accepted"
    )
    front.add_argument(
        "--no-canaries", action="store_true", help="never test peers with tasks whose answers are known"
    )
    front.add_argument(
        "--planner",
        choices=("auto", "rules", "small", "model"),  # "lora" has no weights that are worth shipping
        default="auto",
        help="who divides requests into tasks (default: whoever was measured to do it best)",
    )
    front.add_argument(
        "--embedder",
        choices=("auto", "torch", "sentence-transformers", "gguf"),
        default="auto",
        help="what compares texts; gguf does without torch (default: with torch where it is installed)",
    )


def _add_policy(front: argparse.ArgumentParser) -> None:
    front.add_argument(
        "--allow",
        action="append",
        metavar="NAME",
        help="give tasks to nobody else: peer:ID, model:ALIAS or skill:ID, repeatable",
    )
    front.add_argument(
        "--deny",
        action="append",
        metavar="NAME",
        help="never give tasks to this peer:ID, model:ALIAS or skill:ID, repeatable",
    )
    front.add_argument(
        "--max-price", type=float, metavar="UNITS", help="the most that one task may be expected to cost"
    )


def _client(state: argparse.ArgumentParser) -> argparse.ArgumentParser:
    client = argparse.ArgumentParser(add_help=False, parents=[state])
    client.add_argument(
        "--url", default=os.environ.get("MONAI_URL"), help="the gateway (default: this user's running one)"
    )
    client.add_argument("--json", action="store_true", help="print JSON")
    return client


# --- commands -------------------------------------------------------------------------------------------
def _add_nodes(add: _AddCommand, state: argparse.ArgumentParser) -> None:
    node, front = _node(state), _front()
    up = add("up", parents=[node, front], help="a gateway and a provider with the bundled model and agents")
    up.add_argument("sources", nargs="*", metavar="FILE", help="serve these instead: model.gguf or agent.py")
    _add_serve(add, node)
    add("gateway", parents=[node, front], help="a gateway alone")


def _add_serve(add: _AddCommand, node: argparse.ArgumentParser) -> None:
    serve = add("serve", parents=[node], help="serve models and agents to the mesh")
    serve.add_argument("sources", nargs="*", metavar="FILE", help="model.gguf or agent.py")
    serve.add_argument("--name", help="the model's public name (default: from the file's)")
    serve.add_argument(
        "--skill", dest="words", action=_InOrder, metavar="TEXT", help="what it is good at; repeatable"
    )
    serve.add_argument(
        "--example",
        dest="words",
        action=_InOrder,
        metavar="TEXT",
        help="a request that the --skill before it does well; repeatable",
    )
    _add_served_model(serve)
    serve.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def _add_served_model(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--url", help="an OpenAI-compatible server to serve instead of a file")
    serve.add_argument("--model", help="with --url: the model's name there")
    serve.add_argument("--api-key-env", metavar="VAR", help="with --url: variable that holds the key")
    serve.add_argument("--n-ctx", type=int, dest="n_ctx", help="context length in tokens")
    serve.add_argument("--n-threads", type=int, dest="n_threads", help="threads of the model")
    serve.add_argument(
        "--may-plan", action="store_true", help="offer the model for planning the requests of others"
    )
    serve.add_argument(
        "--price",
        type=float,
        default=0.0,
        metavar="UNITS",
        help="of 1,000 tokens of a model's results, or of one task of an agent (default: free)",
    )


def _add_requests(add: _AddCommand, client: argparse.ArgumentParser) -> None:
    private = argparse.ArgumentParser(add_help=False, parents=[client])
    private.add_argument("--privacy", choices=("local", "trusted", "open"), help="who may see it")
    words = argparse.ArgumentParser(add_help=False, parents=[private])
    words.add_argument("text", help="the request; - reads standard input")
    ask = add("ask", parents=[private], help="ask the mesh")
    ask.add_argument("text", nargs="?", help="the request; - reads standard input")
    ask.add_argument(
        "--plan", type=Path, metavar="FILE", help="carry out this plan, as `plan --json` wrote it"
    )
    ask.add_argument("--model", default="mesh", help="mesh, or one model: alias or alias@peer")
    ask.add_argument("--system", help="a system prompt")
    ask.add_argument("--no-plan", action="store_true", help="do not split the request into tasks")
    ask.add_argument("--max-tokens", type=int)
    ask.add_argument("--temperature", type=float)
    ask.add_argument("--deadline", type=float, metavar="SECONDS", help="default: 120")
    ask.add_argument(
        "--conversation", type=Path, metavar="FILE", help="go on with the conversation kept in FILE"
    )
    add("plan", parents=[words], help="show the task graph of a request")
    add("route", parents=[words], help="show who would do a task, and why")


def _add_decisions(add: _AddCommand, client: argparse.ArgumentParser) -> None:
    decisions = add("decisions", parents=[client], help="show who was asked lately")
    decisions.add_argument("--limit", type=int, default=20, metavar="N", help="so many (default: 20)")
    feedback = add("feedback", parents=[client], help="say how well a run was done")
    feedback.add_argument("run", metavar="RUN", help="its id, as `ask` tells it, or that of a completion")
    feedback.add_argument("rating", choices=("up", "down"), help="whether its answer was good")
    feedback.add_argument("--task", metavar="ID", help="of one of its tasks (default: all of them)")


def _add_recipes(add: _AddCommand, state: argparse.ArgumentParser) -> None:
    recipes = add("recipes", parents=[state], help="the plans that you accepted")
    recipes.add_argument("--json", action="store_true", help="print JSON")
    recipes.add_argument("action", nargs="?", choices=("list", "forget", "clear"), default="list")
    recipes.add_argument("id", nargs="?", metavar="ID", help="of the one to forget")


def _add_key_actions(keys: argparse.ArgumentParser, state: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    every = argparse.ArgumentParser(add_help=False, parents=[state])
    every.add_argument("--json", action="store_true", help="print JSON")
    create = actions.add_parser("create", parents=[every], help="make a key and show it, once")
    create.add_argument("--name", default="", help="whose it is, or what for")
    create.add_argument(
        "--right",
        action="append",
        choices=("chat", "admin"),
        help="what it opens; repeatable (default: chat)",
    )
    create.add_argument("--rate", metavar="N/min", help="the most requests in a minute")
    create.add_argument("--tokens", metavar="N/day", help="the most tokens in a day (UTC)")
    create.add_argument("--expires", type=float, metavar="DAYS", help="after so many days")
    actions.add_parser("list", parents=[every], help="show the keys, without the keys themselves")
    revoke = actions.add_parser("revoke", parents=[every], help="make a key worthless")
    revoke.add_argument("id", metavar="ID", help="as `keys list` shows it")


def _add_upkeep(add: _AddCommand, state: argparse.ArgumentParser) -> None:
    for name, about in (
        ("ps", "show your nodes that run on this machine"),
        ("diagnostics", "show what to paste into a report: nothing secret, no texts"),
    ):
        local = add(name, parents=[state], help=about)
        local.add_argument("--json", action="store_true", help="print JSON")
    service = add("service", parents=[state], help="print a systemd unit that runs a node")
    scope = service.add_mutually_exclusive_group()
    scope.add_argument("--user", action="store_true", help="one of yours (default)")
    scope.add_argument("--system", action="store_true", help="one of the machine's, with a user of its own")
    service.add_argument("--role", choices=("up", "gateway", "serve"), default="up", help="default: up")
    service.add_argument(
        "arguments", nargs="*", metavar="-- ARGUMENT", help="what else that command is given"
    )
    reset = add("reset", parents=[state], help="remove keys, mesh secret, logs")
    reset.add_argument("--yes", action="store_true", help="do not ask")
