"""Write agents for the mesh: `from monai_node.agents import Agent`.

Names are loaded when first used, so that importing this package stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_node.agents.context import Context
    from monai_node.agents.sdk import Abstain, Agent
    from monai_node.registry.wire import Artifact, ChatMessage

__all__ = ["Abstain", "Agent", "Artifact", "ChatMessage", "Context"]

_HOMES = {
    "Abstain": "monai_node.agents.sdk",
    "Agent": "monai_node.agents.sdk",
    "Artifact": "monai_node.registry.wire",
    "ChatMessage": "monai_node.registry.wire",
    "Context": "monai_node.agents.context",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
