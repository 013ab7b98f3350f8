"""What an owner says of prices and of whom to give tasks, from the command line to what is announced."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from monai_node.mesh.cli_config import node_config
from monai_node.mesh.cli_parser import build_parser
from monai_node.mesh.config import GatewayOptions, ModelSource, NodeConfig
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.mesh.engines import as_told
from monai_node.registry.errors import SetupError
from monai_node.router.policy import NO_POLICY, listed


def config_of(*arguments: str) -> NodeConfig:
    return node_config(build_parser().parse_args(arguments))


def options_of(*arguments: str) -> GatewayOptions:
    found = config_of("gateway", *arguments).gateway
    assert found is not None
    return found


def test_a_model_is_announced_at_its_price() -> None:
    (source,) = config_of("serve", "tiny.gguf", "--price", "0.25").sources
    assert isinstance(source, ModelSource)
    told = as_told(ScriptedEngine("x"), source)
    assert [skill.price for skill in told.card.skills] == [0.25]
    free = as_told(ScriptedEngine("x"), ModelSource(Path("x"), "scripted", may_plan=True))
    assert [skill.price for skill in free.card.skills] == [0.0]


def test_an_agent_has_a_price_too() -> None:
    (source,) = config_of("serve", "agent.py", "--price", "2").sources
    assert source.price == 2.0


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "1e9"])
def test_a_price_that_cannot_be_meant_is_refused(price: str) -> None:
    with pytest.raises(SetupError, match="a price lies between 0 and"):
        config_of("serve", "tiny.gguf", f"--price={price}")


def test_the_owner_of_a_gateway_says_whom_tasks_are_given() -> None:
    policy = options_of(
        "--allow", "model:tiny", "--allow", "peer:abcdefgh", "--deny", "skill:x", "--max-price", "3"
    ).policy
    assert policy.allowed == listed(["model:tiny", "peer:abcdefgh"])
    assert policy.denied == listed(["skill:x"])
    assert policy.cost_max == 3.0
    assert options_of().policy == NO_POLICY
    assert NO_POLICY.cost_max == math.inf


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--allow", "tiny"), "'tiny' names nobody: write peer:ID, model:ALIAS or skill:ID"),
        (("--deny", "colour:red"), "'colour:red' names nobody"),
        (("--max-price=nan",), "a price is 0 or more"),
        (("--max-price=-1",), "a price is 0 or more"),
    ],
)
def test_names_and_limits_that_cannot_be_meant_are_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        options_of(*arguments)
