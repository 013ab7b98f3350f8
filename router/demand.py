"""What one task asks of whoever does it, and which offers cannot meet that. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from monai_node.registry.ids import PeerId
from monai_node.registry.wire import Label
from monai_node.router.offer import Offer, PeerLabel
from monai_node.router.policy import Policy, seeing, verdict

# Of English text with the vocabularies of today's models (OpenAI's rule of thumb). Other languages have
# fewer: what this says fits may still be refused by the model, which counts exactly.
CHARS_PER_TOKEN = 4.0
# Of a result of which nothing is known: 200 tokens, the middle of what chats are answered with.
RESULT_CHARS = 800
# Longer lists are no help to a person, and a mesh may have 10,000 offers.
FILTERED_TOLD_MAX = 64
_TEXT = frozenset({"text/plain"})
# What a model announces that can do more than answer, in the words of "cannot …".
ABILITIES = {
    "tools": "call tools",
    "logprobs": "tell logprobs",
    "logit_bias": "take a logit_bias",
    "completion": "go on with a raw prompt",
}


@dataclass(frozen=True, slots=True)
class Sticky:
    """Who served this conversation before: the peer has `prefix_chars` of it read already, perhaps."""

    peer: PeerId
    model: str
    prefix_chars: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """Hashes that name a conversation: `whole` as it stands, `before` as it stood when it was last
    answered, "" when it never was."""

    before: str
    whole: str


@dataclass(frozen=True, slots=True)
class Demand:
    """One task, as far as the choice of a peer goes by it; nothing of its text.

    `takes` are the media types that it brings along and `makes` those of which its result must be one.
    `language` is a tag such as "de" ("" where nobody knows). `features` are those of ABILITIES that it needs.
    `slack_seconds` cost nothing: the run does not wait for this task before. `has_contract` says that its
    result is checked in code, so that a wrong one costs time and not the answer. `conversation` is that of
    a task which is a whole conversation passed on, and `sticky` who answered it last.
    """

    policy: Policy
    takes: frozenset[str] = _TEXT
    makes: frozenset[str] = _TEXT
    language: str = ""
    prompt_chars: int = 0
    expected_chars: int = RESULT_CHARS
    features: frozenset[str] = frozenset()
    slack_seconds: float = 0.0
    has_contract: bool = False
    conversation: Conversation | None = None
    sticky: Sticky | None = None

    @property
    def label(self) -> Label:
        return self.policy.label

    def within(self, owner: Policy) -> Demand:
        """The same, under the owner's policy too."""
        return replace(self, policy=self.policy.within(owner))


def of_label(label: Label) -> Demand:
    """A short text in words, of which nothing but its label is known."""
    return Demand(Policy(label))


def eligible(offer: Offer, demand: Demand) -> str:
    """Why an offer cannot be given this task, with numbers; "" when it can."""
    return (
        verdict(offer, demand.policy)
        or _unfit_types(offer, demand)
        or _unfit_model(offer, demand)
        or _too_dear(offer, demand)
    )


def unspoken(offer: Offer, demand: Demand) -> str:
    """Why an offer is no good choice for the language of a task, in words; "" when it is one, or nobody can
    say. No filter: models speak languages that nobody listed, and a poor answer is better than none."""
    if not demand.language or offer.model is None:
        return ""
    tags = [_primary(tag) for tag in offer.model.languages]
    if _primary(demand.language) in tags or not all(len(tag) <= 3 for tag in tags):
        return ""
    return f"speaks {', '.join(tags[:5])}, not {demand.language}" if tags else ""


def _primary(tag: str) -> str:
    """Its first part: a model of "pt" is one for "pt-BR"."""
    return tag.lower().replace("_", "-").partition("-")[0]


def is_able(offer: Offer, feature: str) -> bool:
    return offer.model is not None and feature in offer.model.features


def cost_of(offer: Offer, expected_chars: int) -> float:
    """What the task is expected to cost there, in the mesh's own unit."""
    price = offer.skill.price
    return price * tokens(expected_chars) / 1000 if offer.skill.model else price


def tokens(chars: int) -> float:
    return max(0, chars) / CHARS_PER_TOKEN


@dataclass(slots=True)
class Sieve:
    """Lets offers through that can be given a task; remembers some of the others, with the reason. For one
    task, in which offers are told apart by their identity and looked at once."""

    demand: Demand
    filtered: list[tuple[Offer, str]] = field(default_factory=list[tuple[Offer, str]])
    _is_let: dict[int, bool] = field(default_factory=dict[int, bool])
    _plain: frozenset[PeerLabel] = field(init=False)
    _room: float = field(init=False)

    def __post_init__(self) -> None:
        self._plain, self._room = _plain(self.demand), _room(self.demand)

    def __call__(self, offers: Iterable[Offer]) -> list[Offer]:
        """Those that are let through, in their order."""
        plain, room = self._plain, self._room
        # Nearly all offers are free and large enough for a task that asks nothing else: hundreds a decision
        # are let through by this alone, at a tenth of what a closer look takes.
        return [
            offer
            for offer in offers
            if (
                offer.label in plain
                and not offer.skill.price
                and ((model := offer.model) is None or not 0 < model.n_ctx < room)
            )
            or self._lets(offer)
        ]

    def _lets(self, offer: Offer) -> bool:
        is_let = self._is_let.get(id(offer))
        if is_let is None:
            reason = eligible(offer, self.demand)
            is_let = self._is_let[id(offer)] = not reason
            if reason:
                self.note(offer, reason)
        return is_let

    def note(self, offer: Offer, reason: str) -> None:
        if len(self.filtered) < FILTERED_TOLD_MAX:
            self.filtered.append((offer, reason))


def _plain(demand: Demand) -> frozenset[PeerLabel]:
    """The labels of peers at whom an offer can only be too dear for this task, or its model too small; none
    where a list, a type or an ability is asked for."""
    policy = demand.policy
    is_plain = demand.takes == demand.makes == _TEXT
    is_plain = is_plain and not (policy.allowed or policy.denied or demand.features)
    return seeing(policy.label) if is_plain else frozenset()


def _room(demand: Demand) -> float:
    """Tokens that a model must have room for."""
    return tokens(demand.prompt_chars) + tokens(demand.expected_chars)


def _unfit_types(offer: Offer, demand: Demand) -> str:
    # Compared only where somebody says more than text: nearly every offer and task is text to text.
    if demand.takes != _TEXT:
        takes = offer.skill.input_modes
        if missing := [it for it in sorted(demand.takes) if not _is_among(it, takes)]:
            return f"takes {', '.join(takes) or 'nothing'}, not {missing[0]}"
    if demand.makes != _TEXT:
        makes = offer.skill.output_modes
        if not any(_is_among(it, makes) for it in demand.makes):
            return f"makes {', '.join(makes) or 'nothing'}, not {' or '.join(sorted(demand.makes))}"
    return ""


def _is_among(kind: str, announced: Iterable[str]) -> bool:
    family = f"{kind.partition('/')[0]}/*"
    return any(it in (kind, family, "*/*") for it in announced)


def _unfit_model(offer: Offer, demand: Demand) -> str:
    for feature in demand.features:
        if not is_able(offer, feature):
            return f"cannot {ABILITIES[feature]}"
    model = offer.model
    if model is None or model.n_ctx <= 0:
        return ""
    needed = _room(demand)
    if model.n_ctx < needed:
        return f"reads {model.n_ctx} tokens at most, about {needed:.0f} are needed"
    return ""


def _too_dear(offer: Offer, demand: Demand) -> str:
    if not offer.skill.price:
        return ""
    cost = cost_of(offer, demand.expected_chars)
    if cost <= demand.policy.cost_max:
        return ""
    return f"would cost about {cost:.3g}, {demand.policy.cost_max:.3g} is the most"
