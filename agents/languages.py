"""Which language a text is written in, where that is plain: by its script, else by its commonest words.

For judging results, so it says nothing rather than guess: a text must be long enough, and one language
far ahead of all others. Languages of one script that share no list of words here (Russian and Bulgarian,
say) are known by their script alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Fewer letters than this are names, numbers and loanwords as often as not.
LETTERS_MIN = 80
# Text beyond this many characters says nothing more of its language.
_READ_CHARS_MAX = 4_096
# Of the words of running text about a third are among the commonest of its language; of those of a
# language beside it (Spanish, Portuguese) up to a quarter, and the lead tells them apart.
_SHARE_MIN = 0.15
_LEAD = 2.5
# One or two such words in a line are names and loans as often as not.
_COMMON_WORDS_MIN = 3

_COMMON = {
    "English": """
    the of and to is that it was for on are with as this be at have from or by not but what all were
    they we when your can said there which their will would if you his her she he has had been its about
    who
    """,
    "German": """
        der die und das ist nicht ein eine von mit den dem des zu sich auf für es auch wir sie ich er an
        werden aus bei nach wird sind noch wie einem einen einer zum zur im haben hat war kann oder aber
        durch über
    """,
    "French": """
        le la les des et est une dans que qui pour pas sur au avec ce il elle sont plus par nous vous ne se
        ou mais cette ces aux du son sa ses leur été être fait comme j'ai c'est d'une qu'il très je votre
    """,
    "Spanish": """
        el la los las que y en un una del se por con para es su al lo como más pero sus le ya este sí porque
        esta cuando muy sin sobre también hasta hay donde han están son fue ser tiene desde nos durante yo
    """,
    "Italian": """
        il di che la è per un una non sono con si da come del della dei delle gli nel alla più anche al ma
        le lo questo questa ha hanno o dal nella sul essere ci perché molto suo sua loro tra
    """,
    "Portuguese": """
        o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou
        quando muito nos já eu também só pelo pela até isso ela entre era depois sem mesmo aos são está você
    """,
    "Dutch": """
        de het een van en is dat op te zijn met voor niet aan er om ook als dan maar bij nog uit wel naar
        hij ze zij door over heeft hebben worden wordt deze dit kan geen meer ik je we
    """,
    "Polish": """
        i w na z do się że nie to jest jak o od za po przez ale tak dla są było był może czy oraz tym przy
        ich tego który która które już tylko aby jego jej
    """,
}
_WORDS = {name: frozenset(words.split()) for name, words in _COMMON.items()}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)

_SCRIPTS = {
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "HANGUL": "Korean",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Hindi",
    "THAI": "Thai",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "CJK": "Chinese",
}
_SCRIPT_SHARE_MIN = 0.6

# As requests name them, in a few languages; a value that `language_of` never gives cannot be judged.
_NAMES = {
    "English": "english englisch anglais inglés ingles inglese inglês engels",
    "German": "german deutsch deutsche allemand alemán aleman tedesco alemão duits",
    "French": """
        french französisch français francais francés frances francese francês frans
    """,
    "Spanish": """
        spanish spanisch espagnol español espanol castellano spagnolo espanhol spaans castilian
    """,
    "Italian": "italian italienisch italien italiano",
    "Portuguese": """
        portuguese portugiesisch portugais portugués portugues português brazilian
    """,
    "Dutch": """
        dutch niederländisch holländisch néerlandais neerlandés holandés nederlands
    """,
    "Polish": "polish polnisch polonais polaco polski",
    "Cyrillic": """
        russian russisch russe ruso ukrainian ukrainisch bulgarian macedonian belarusian
    """,
    "Greek": "greek griechisch grec griego",
    "Korean": "korean koreanisch coréen coreano",
    "Japanese": "japanese japanisch japonais japonés",
    "Chinese": "chinese mandarin cantonese chinesisch chinois chino",
    "Arabic": "arabic arabisch arabe árabe persian farsi urdu",
    "Hebrew": "hebrew hebräisch hébreu hebreo",
    "Hindi": "hindi marathi nepali sanskrit",
    "Thai": "thai thailändisch",
    "another": """
    swedish danish norwegian finnish icelandic czech slovak slovene slovenian croatian bosnian serbian
    hungarian romanian turkish vietnamese indonesian malay tagalog filipino swahili catalan basque galician
    welsh
    irish gaelic scots latin esperanto estonian latvian lithuanian albanian afrikaans zulu yoruba hausa
    bengali tamil telugu gujarati punjabi kannada malayalam georgian armenian mongolian klingon emoji
    pidgin creole schwedisch dänisch norwegisch türkisch tschechisch ungarisch lateinisch latein suédois
    turc sueco turco svenska norsk dansk türkçe
    """,
}
# German adds an ending ("ins").
LANGUAGE_NAMES = {
    form: language
    for language, names in _NAMES.items()
    for name in names.split()
    for form in ((name, f"{name}e", f"{name}en") if name.endswith("isch") else (name,))
}
# Those that `language_of` can tell.
TOLD_LANGUAGES = frozenset(_NAMES) - {"another"}


def language_of(text: str, letters_min: int = LETTERS_MIN) -> str:
    """The language that a text is plainly written in, by its English name ("Cyrillic" for any that is
    written so); "" when it is too short or not plain."""
    read = _FENCE.sub(" ", text[:_READ_CHARS_MAX])
    letters = sum(map(str.isalpha, read))
    if letters < letters_min:
        return ""
    script = _script_of(read)
    return script if script is not None else _latin_of(read)


def _script_of(text: str) -> str | None:
    """The language that a script other than Latin stands for; "" for a mixture; None for Latin."""
    counts: Counter[str] = Counter()
    for letter, times in Counter(filter(str.isalpha, text)).items():
        name = "" if letter.isascii() else unicodedata.name(letter, "").split(" ", 1)[0].split("-", 1)[0]
        counts[_SCRIPTS.get(name, "")] += times
    whole = counts.total()
    if counts[""] >= _SCRIPT_SHARE_MIN * whole:
        return None
    if counts["Japanese"] and counts["Japanese"] + counts["Chinese"] >= _SCRIPT_SHARE_MIN * whole:
        return "Japanese" if counts["Japanese"] >= counts["Chinese"] / 10 else "Chinese"
    language, most = counts.most_common(1)[0]
    return language if language and most >= _SCRIPT_SHARE_MIN * whole else ""


def _latin_of(text: str) -> str:
    words = [word.replace("’", "'") for word in _WORD.findall(text.casefold())]
    if not words:
        return ""
    found = {language: sum(word in common for word in words) for language, common in _WORDS.items()}
    (language, best), (_, second) = Counter(found).most_common(2)
    is_plain = best >= max(_COMMON_WORDS_MIN, _SHARE_MIN * len(words), _LEAD * second)
    return language if is_plain else ""
