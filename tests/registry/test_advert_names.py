from __future__ import annotations

from monai_node.mesh.identity import Identity
from monai_node.registry.advert import Advert, ModelInfo, Skill, open_advert, seal

NASTY = "evil\r\nX-Injected: 1 \x1b[2J\u202e"


def test_what_a_peer_calls_itself_and_its_skills_is_one_printable_line() -> None:
    identity = Identity.generate()
    forged = Advert.model_construct(
        peer=identity.peer_id,
        name=NASTY,
        models=[ModelInfo.model_construct(alias="tiny", licence=NASTY)],
        skills=[Skill.model_construct(id="chat", name=NASTY, description="x", model="tiny")],
    )
    envelope = seal(forged, identity.sign)
    assert NASTY.encode() in envelope
    advert = open_advert(envelope, identity.peer_id).advert
    for shown in (advert.name, advert.models[0].licence, advert.skills[0].name):
        assert shown.isprintable()
        assert "X-Injected" in shown
