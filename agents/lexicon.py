"""English words that the planner's rules look at, and the shapes of leads and tails around a task.

Nothing here decides anything: `segment`, `label` and `link` do. Verbs are base forms, as they stand in
a request ("translate this"). Other languages match none of these words and so are never split.
"""

from __future__ import annotations

import re


def vocabulary(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _both_spellings(verbs: frozenset[str]) -> frozenset[str]:
    ise = {verb[:-3] + "ize" for verb in verbs if verb.endswith("ise")}
    yse = {verb[:-3] + "yze" for verb in verbs if verb.endswith("yse")}
    return verbs | ise | yse


# Verbs that are hardly ever nouns: after "and" they start a task as soon as an object follows.
SURE_VERBS = _both_spellings(
    vocabulary("""
    accelerate add adjust advise alter amend analyse animate annotate anonymise append apply arrange
    assemble assess assign attach author autocomplete bake brainstorm build calculate categorise
    choose cite clarify classify collect colorise colourise combine compare compile compose compress
    compute condense configure construct contrast convert craft create criticise critique customise
    debug decide decode decrypt deduce deduplicate define deliver demonstrate denoise deploy derive
    describe detect determine develop devise diagnose differentiate discuss distinguish divide
    elaborate embed encode encrypt enumerate evaluate examine exclude execute expand explain explore
    extract factorise fetch find formulate generate ghostwrite give grab harmonise identify
    illustrate implement improve indent infer insert install integrate interpret invent invert
    investigate join justify lengthen list locate make memorise merge migrate minify modify multiply
    mute narrate normalise obtain optimise organise paraphrase parse perform personalise pluralise
    predict prepare prepend prioritise proofread propose prove provide punctuate quantify randomise
    recalculate recite recommend reconcile redact redesign reduce refactor refine reformat remove
    rename render reorder reorganise rephrase replace replicate resize respond restore restructure
    retell retrieve revise reword rewrite rotate sanitise say scrape select send serialise shorten
    show simplify simulate sing solve specify stabilise standardise stitch subtract suggest
    summarise synchronise synthesise tabulate tell tokenise transcribe transform translate
    transliterate transpose troubleshoot typeset unscramble upscale validate vectorise verify
    visualise write
    """)
)

# Verbs that are just as often nouns or adjectives ("plan B", "a book list", "clean code"): they start a
# task after "and" only when a determiner, pronoun, number or question word follows them.
NOUNLIKE_VERBS = vocabulary("""
    abstract alert answer archive ask audit average balance bill blur bold book boost brief
    broadcast bullet buy calendar call cancel cap caption cast change chart check chunk clean
    cluster code color colour comment complete contact cook copy correct correlate count credit crop
    cube cut date decrease design diagram dial diff document double download draft draw drill drop
    dub edit email embed enlist estimate exercise export figure file fill filter fix flag flip fold
    forecast format frame get go grade graph group guess guide halve hash help highlight host import
    increase index interview judge knit label layout leak lint log look mail map mark mask match
    mean measure mention message mimic mix model monitor move name note notify nudge number offer
    open order outline paint paste pause phrase pick plan play plot point polish post price print
    process profile program project publish pull purchase put query question quiz quote rank rap
    rate read rearrange recap record refund remind render repair repeat reply report request rescue
    research reserve reset reverse review rhyme round route run sample save scale scan schedule
    score search separate set shade share ship shop shuffle sign sketch slice sort sound source
    spell split square star start state stop store storyboard stream strip study style sum swap
    switch table tag talk target teach test text think tidy time title touch trace track train
    transfer trick trim triple tune turn tweak tweet type underline update upload use value vote
    walk warn watch weigh wish word work wrap zip
    """)

VERBS = SURE_VERBS | NOUNLIKE_VERBS

# Imperatives that say how, not what: after a task they belong to it ("Keep it short.").
MODIFIER_VERBS = vocabulary("""
    assume avoid be bear begin consider do don't end ensure exclude focus follow format ignore
    imagine include keep leave let limit mention mind note number omit pretend refer remember
    respond return skip start stick stop try use wrap
    """)

# Verbs that move or hold something: "take ten dollars from savings and put it into checking" is one task.
CARRYING_VERBS = vocabulary("""
    bring buy call check get go grab help let look move open pay place pull put read see send set
    start stop switch take transfer try turn use
    """)

# Verbs whose object may be a question: "tell me what it does and how it works" is one task.
EMBEDDING_VERBS = vocabulary("""
    analyse analyze ask check clarify compare consider decide describe determine discover discuss
    examine explain explore figure find guess investigate know learn remind say see show tell
    understand wonder
    """)

# Verbs that take a text as their object: what follows their colon is that text.
TEXT_VERBS = _both_spellings(
    vocabulary("""
    analyse annotate anonymise answer caption classify condense convert correct debug decode decrypt
    edit encode evaluate expand explain fix format improve mask paraphrase parse polish proofread
    punctuate redact refactor rephrase reply respond review reword rewrite shorten simplify solve
    summarise tidy transcribe translate transliterate
    """)
)

# Verbs that change a text into a text. Two of them joined by "and" ask for one changed text.
EDITING_VERBS = _both_spellings(
    vocabulary("""
    clean correct edit fix format improve polish proofread punctuate refactor reformat rephrase
    revise reword rewrite shorten simplify tidy trim
    """)
)

# Verbs whose result is an opinion or fact about a thing, so that a later "it" means the thing itself.
ASKING_VERBS = _both_spellings(
    vocabulary("""
    analyse answer assess check classify count decide describe detect determine diagnose estimate
    evaluate examine explain figure flag identify judge list name rate say score show spot state
    tell verify
    """)
)

# Verbs that make a thing that was not there before.
MAKING_VERBS = vocabulary("""
    compose craft create design develop draft generate give i invent make need produce tell want we
    write
    """)

# Verbs whose result is material for what comes next…
WORKING_VERBS = _both_spellings(
    vocabulary("""
    anonymise clean collect combine convert crop decode denoise download extract fetch filter find get grab
    group import load locate look mask merge obtain open parse pull read redact remove retrieve scan scrape
    search sort split strip tidy tokenise transcribe translate
    """)
)

# …when that carries all of it on into another form.
CARRYING_ON_VERBS = _both_spellings(
    vocabulary("""
    arrange chart combine condense convert draw edit export format group join list make merge order
    paraphrase plot polish print proofread put rank render rephrase reverse reword rewrite save send shorten
    simplify sort split stitch summarise tabulate translate turn upload visualise
    """)
)

WH_WORDS = vocabulary("who whom whose what when where why how which")
WH_CONTRACTIONS = vocabulary("who's what's when's where's why's how's whats wheres hows whos")
AUXILIARIES = vocabulary("""
    am are aren't can can't could couldn't did didn't do does doesn't don't had has hasn't have
    haven't is isn't may might must shall should shouldn't was wasn't were weren't will won't would
    wouldn't
    """)

# What a request calls the text that it brings along.
DOCUMENT_NOUNS = vocabulary("""
    abstract ad advert announcement article bio blog blurb chapter chat clause code comment
    complaint content contract conversation cv data dataset description dialogue document draft
    email entry error essay excerpt extract feedback figures function headline input invoice json
    letter line lines list log lyrics mail memo menu message minutes note notes numbers page paper
    paragraph passage phrase poem post product program query quote recipe record regex report resume
    review script sentence sentences snippet speech statement story string table text thread ticket
    tickets trace traceback transcript tweet word words
    """)

# Things that are made to order; two of them, each with its own subject, are two tasks.
DELIVERABLES = vocabulary("""
    acrostic ad advert article ballad bio biography blurb caption description dialogue email essay
    fable haiku headline itinerary joke letter limerick list lullaby memo menu monologue motto note
    outline paragraph pitch plan playlist poem post prayer proposal pun quiz quote recipe report
    review rhyme riddle script slogan song sonnet speech story summary synopsis tagline timetable
    title toast tutorial tweet verse
    """)

# Nouns that are always of something. Without "of…", "for…", "to…" they are of the previous result.
RELATIONAL_NOUNS = vocabulary("""
    abstract answer bibliography breakdown caption chart checklist comparison conclusion critique
    diagram example examples explanation follow-up graph heading headline index invite list mnemonic
    overview plot rationale rebuttal recap reply response review score sentence shopping slide
    slogan subject summary table tagline test tests title translation tweet version
    """)

PREPOSITIONS = vocabulary("""
    about and as at by for from in into of on onto or to using with
    """)
_POINTING_OUT = vocabulary("it its ones that their them these they this those")

_POLITE = r"""
    (?:hey|hi|hello|ok|okay|right|well|great|thanks|thank\ you)(?:\ there)?\b
  | (?:can|could|would|will)\ (?:you|u)\b(?!\ (?:rather|say|be)\b)
  | (?:would|do)\ you\ mind\b
  | i(?:'d|\ would|\ also|'d\ also)?\ (?:want|need|like|love)(?:\ you)?\ to\b
  | i(?:'d|\ would)?\ (?:also\ )?(?:want|need|like|love)(?=\ (?:an?|the|some|two|three|four|five|\d+)\b)
  | (?:want|need|would\ like)\ to\b
  | (?:please|pls|plz|kindly|just|maybe|perhaps)\b
  | (?:help\ me(?:\ to)?|let's|let\ us|go\ ahead(?:\ and)?|feel\ free\ to|be\ so\ kind\ and|try\ to)\b
"""
_CONNECTIVE = r"""
    (?:and|then|also|plus|but|so|finally|lastly|afterwards?|meanwhile|separately|additionally
      |furthermore|moreover|besides|subsequently|later)\b
  | now\b(?!\ that\b)
  | next\b(?!\ (?:week|month|year|time|day|door|to|morning|summer|spring|winter|autumn)\b)
  | (?:first|second|third|fourth)\b(?!\ (?:aid|name|world|class|person|time|hand|degree|opinion|of|grade)\b)
  | (?:first|second|third|fourth)ly\b
  | (?:after\ that|after\ which|in\ addition|in\ the\ meantime|at\ the\ same\ time|while\ you're\ at\ it
      |(?:once|when)\ (?:that|you|it)(?:'s|'re|\ is|\ are)\ (?:done|finished|ready)
      |to\ (?:start|begin)(?:\ with)?|first\ of\ all|last\ but\ not\ least|as\ well\ as|followed\ by
      |using\ that|with\ that|based\ on\ that|from\ that|on\ top\ of\ that)\b
"""
_MARK = r"""
    \(?(?:\d{1,2}|[a-h]|[ivx]{1,4})[.):](?=\s)
  | (?:step|task|part|question|q)\ ?\d{1,2}\b[.:)]?
  | [-*•–—·]
"""
# What may stand before a task and is no part of it. Possessive quantifiers: no text makes it slow.
LEAD = re.compile(rf"(?:[\s,.;:!]++|{_MARK}|{_POLITE}|{_CONNECTIVE})*+", re.I | re.X)
_TAIL_MARKS = " \t\r\n,;:!?"
_TAIL_WORDS = ("please", "pls", "thanks", "thank you", "thx", "cheers")

_GREETING = r"""
    hi|hey|hello|good\ (?:morning|afternoon|evening|day)|dear|greetings|ok|okay|yes|sure|great|cool|perfect
  | nice|wow|thanks|thank\ you|thx|cheers|many\ thanks|please|regards|best|bye
  | how\ are\ you(?:\ doing)?(?:\ today)?|that\ (?:was|is)\ (?:great|lovely|helpful|perfect)
  | (?:i\ )?hope\ (?:you(?:'re|\ are)|all\ is|this|you)\b[^.!?]{0,40}
  | (?:can|could)\ you\ (?:help(?:\ me)?|do\ (?:this|that|both|the\ following))|please\ help(?:\ me)?
  | i\ (?:have|'ve\ got)\ (?:a\ |two\ |few\ |couple\ of\ |some\ |quick\ ){0,3}(?:question|request|thing)s?
  | (?:answer|do|complete|help\ me\ with)\ (?:the\ following|these)(?:\ (?:question|task|thing|step)s)?
  | (?:so\ )?much|very|in\ advance|for\ (?:your|the)\ (?:help|time)|for\ you|a\ lot|there|again
  | everyone|all|friend
"""
_PLEASANTRY = re.compile(rf"\W{{0,20}}(?:(?:{_GREETING})\b\W{{0,20}}){{1,8}}", re.I | re.X)
_PLEASANTRY_CHARS_MAX = 160

# Words before a task that put it after the one before.
SEQUENCE = re.compile(
    r"\b(?:then|after(?:wards?| that| which)|next|finally|lastly|subsequently|later|followed by"
    r"|once|when (?:that|you)|using that|with that|based on that|from that)\b",
    re.I,
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Lower-case words; an apostrophe or hyphen inside a word belongs to it."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def core_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without connectives, politeness, list marks before and punctuation, thanks after it."""
    lead = LEAD.match(text, start, end)
    start = lead.end() if lead else start
    return start, start + len(_without_tail(text[start:end]))


def _without_tail(text: str) -> str:
    while True:
        shorter = text.rstrip(_TAIL_MARKS)
        # The last stop of "p.m." belongs to it; "..." does not.
        if shorter.endswith(".") and not re.search(r"(?<!\w)\w\.\w\.\Z", shorter[-5:]):
            shorter = shorter[:-1]
        lower = shorter[-12:].lower()
        word = next((word for word in _TAIL_WORDS if lower.endswith(word)), None)
        if word and not shorter[: -len(word)][-1:].isalnum():
            shorter = shorter[: -len(word)]
        if shorter == text:
            return text
        text = shorter


def core(text: str) -> str:
    """The text without connectives, politeness and trailing punctuation."""
    start, end = core_span(text, 0, len(text))
    return text[start:end]


def is_question(text: str) -> bool:
    """Whether a core begins as a question does: "who wrote…", "how do I…", "is it…"."""
    found = words(text[:80])[:2]
    if not found:
        return False
    if found[0] in WH_CONTRACTIONS | WH_WORDS:
        return True
    return found[0] in AUXILIARIES and len(found) == 2 and found[1] not in {"not", "n't"}


def is_pleasantry(text: str) -> bool:
    """Greetings, thanks, announcements of a question: words that set no scene and ask for nothing."""
    return len(text) <= _PLEASANTRY_CHARS_MAX and _PLEASANTRY.fullmatch(text) is not None


def points_out(text: str) -> bool:
    """Whether a pronoun points out of the text: "translate it", but not "a dog and its owner"."""
    said = words(text)
    return any(word in _POINTING_OUT and _is_outer(said, place) for place, word in enumerate(said))


def _is_outer(said: list[str], place: int) -> bool:
    word, before = said[place], said[place - 1] if place else ""
    after = said[place + 1] if place + 1 < len(said) else ""
    is_near = place <= 3 or before in PREPOSITIONS
    if word in {"its", "their"}:
        return not any(article in {"a", "an", "some", "one"} for article in said[:place])
    if word in {"this", "that"}:
        return (
            place > 0
            and before != "so"
            and (not after or after in PREPOSITIONS or (word, place) == ("this", 1))
        )
    if word == "them" and not is_near:
        # "a soup that uses them": no plural of its own for them to mean.
        return not any(noun.endswith("s") for noun in said[1 : place - 1])
    return is_near and before not in {"that", "which", "because", "when", "if", "so"}
