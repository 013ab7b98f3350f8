"""Blank out what is quoted, so that rules do not mistake it for the user's own words."""

from __future__ import annotations

import re

# Stands for every masked character: private use, so neither word, space nor punctuation.
MASK = "\ue000"

_MASKED = re.compile(
    r"""```.{1,4000}?``` | <!--.{1,2000}?--> | <\|[^|<>\n]{1,40}\|>
      | `[^`\n]{1,400}`
      | "[^"\n]{1,600}" | “[^”\n]{1,600}” | «[^»\n]{1,600}» | „[^“”\n]{1,600}[“”] | 「[^」\n]{1,600}」
      | (?<![\w'])'(?=\S)(?:[^'\n]{1,300}'(?=\w)){0,8}[^'\n]{1,300}'(?!\w)
      | ‘(?:[^’\n]{1,300}’(?=\w)){0,8}[^’\n]{1,300}’(?!\w)
      | \b(?:https?|ftp|file)://\S{1,2000} | \bwww\.\S{1,400} | [\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}
      | (?<!\w)/[\w.-]{1,64}(?:/[\w.-]{1,64}){1,16}
      | \((?!(?:\d{1,2}|[a-z])\))[^()\n]{1,300}\)
      | \b(?:e\.g\.|i\.e\.|etc\.(?=\s+[a-z,])|vs\.|cf\.|[ap]\.m\.(?!\s+[A-Z]))
      | \b(?:Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|No|Fig|Nr|approx|ca|Inc|Ltd|Co|Dept|Gen|Rev|Hon|Sgt)\.(?=\s)
      | \b(?:[A-Z]\.[ ]?){1,4}(?=[ ]?[A-Z][a-z])
    """,
    re.X | re.S,
)


def mask(text: str) -> str:
    """The text, equally long, with quotes, code, comments, addresses and abbreviations blanked out."""
    return _MASKED.sub(lambda found: MASK * len(found[0]), text)
