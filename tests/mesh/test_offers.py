from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

from monai_node.mesh.config import NodeConfig
from monai_node.mesh.directory import DirectoryOptions, Pulse, open_directory
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.mesh.identity import Identity
from monai_node.mesh.node import Node
from monai_node.mesh.offers import Offers
from monai_node.mesh.provider import Provider
from monai_node.mesh.state import open_state_dir
from monai_node.registry.advert import Advert, Beacon, Signed, Skill, digest_of, open_advert, seal
from monai_node.registry.secret import new_mesh
from monai_node.registry.transport import open_memory_transport

OTHER = Identity.generate()
DICE = Skill(id="dice", name="dice", description="Rolls dice")


def signed(**fields: Any) -> Signed:
    return open_advert(seal(Advert(peer=OTHER.peer_id, name="ada", **fields), OTHER.sign))


def beacon(advert: Signed, seq: int, **fields: Any) -> Beacon:
    return Beacon(peer=OTHER.peer_id, seq=seq, advert_digest=advert.digest, **fields)


def test_offers_are_made_anew_for_whoever_changed_and_for_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        identity, mesh, state = Identity.generate(), new_mesh(), open_state_dir(tmp_path)
        envelope = seal(Advert(peer=identity.peer_id), identity.sign)
        own = Signed(Advert(peer=identity.peer_id), envelope, digest_of(envelope))
        pulse = Pulse(lambda: own, lambda: seal(beacon(own, 1), identity.sign))
        async with (
            open_memory_transport(identity.peer_id) as transport,
            open_directory(transport, mesh, pulse, DirectoryOptions(0.5, True), lambda: 100.0) as directory,
        ):
            provider = Provider([ScriptedEngine("x")], lambda _peer, _label: True, lambda: None)
            node = Node(NodeConfig("here", tmp_path), state, identity, mesh, transport, directory, provider)
            check(Offers(node), node)

    def check(offers: Offers, node: Node) -> None:
        members, advert = node.directory.membership, signed(skills=[DICE])
        (chat,) = offers.now()
        assert (chat.label, chat.load_told_at) == ("self", math.inf)
        members.connected(OTHER.peer_id, 100.0)
        assert offers.now() is offers.now()  # nothing is known of what it offers
        members.observe_advert(advert)
        members.observe_beacon(beacon(advert, 1, running=2))
        both = offers.now()
        assert [(each.skill.id, each.load) for each in both] == [("chat", 0), ("dice", 2)]
        assert both[1].load_told_at == 100.0
        assert offers.now() is both
        members.observe_beacon(beacon(advert, 2, running=1, queued=3))
        busier = offers.now()
        assert [each.load for each in busier] == [0, 4]
        members.heard(OTHER.peer_id, 101.0)
        assert offers.now()[1].load_told_at == 101.0
        members.observe_beacon(beacon(advert, 3, admission="paused"))
        assert [each.skill.id for each in offers.now()] == ["chat"]
        members.observe_beacon(beacon(advert, 4))
        renamed = signed(skills=[DICE.model_copy(update={"id": "cubes"})])
        members.observe_advert(renamed)
        assert [each.skill.id for each in offers.now()] == ["chat", "cubes"]
        members.disconnected(OTHER.peer_id, 101.0)
        assert [each.skill.id for each in offers.now()] == ["chat"]

    asyncio.run(main())
