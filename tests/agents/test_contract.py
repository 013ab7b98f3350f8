from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.clauses import SEARCHED_CHARS_MAX, SHORT_CHARS
from monai_node.agents.contract import Contract, contract_of
from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage, Parameters

ENGLISH = (
    "The old lighthouse keeper climbed the stairs every evening and lit the lamp, because the ships that"
    " passed in the dark would not have found their way without it."
)
GERMAN = (
    "Der alte Leuchtturmwärter stieg jeden Abend die Treppe hinauf und zündete die Lampe an, weil die Schiffe"
    " in der Nacht ohne sie nicht nach Hause gefunden hätten."
)
FRENCH = (
    "Le vieux gardien du phare montait chaque soir les marches et allumait la lampe, parce que les bateaux"
    " qui passaient dans la nuit ne trouvaient pas leur chemin sans elle."
)
SPANISH = (
    "El viejo farero subía cada noche las escaleras y encendía la lámpara, porque los barcos que pasaban en"
    " la oscuridad no habrían encontrado el camino sin ella."
)
RUSSIAN = (
    "Старый смотритель маяка каждый вечер поднимался по лестнице и зажигал лампу для кораблей в темноте ночи."
)
JAPANESE = (
    "年老いた灯台守は毎晩階段を上って灯りをともした。暗闇を通る船がその灯りなしでは道を見つけられなかったからだ。"
    * 2
)

# A task, results that are right, results that are not what was asked for.
Row = tuple[str, list[str], list[str]]
NUMBERS: list[Row] = [
    (
        "How many moons does Mars have?",
        ["Two: Phobos and Deimos.", "2"],
        ["Mars orbits the Sun beyond Earth."],
    ),
    ("how many r's are in strawberry", ["3", "There are three.", "None at all"], ["Strawberry is a fruit."]),
    ("Please tell me how many people live in Oslo", ["About 700,000"], ["Oslo is lovely in May."]),
    ("Count the vowels in the word banana", ["3 vowels", "three"], ["banana"]),
    ("What is the total number of seats in the hall?", ["412"], ["The hall is next to the library."]),
    (
        "Wie viele Einwohner hat Bern?",
        ["Rund 134.000", "etwa hunderttausend"],
        ["Bern liegt nun an der Aare."],
    ),
    ("Combien de jours y a-t-il en mars ?", ["31", "trente et un"], ["Mars est mois de printemps."]),
    ("¿Cuántos litros caben en el tanque?", ["Caben 40 litros"], ["El tanque es de acero."]),
    ("Calculate the tip on a 45 euro bill at 12 percent", ["5.40"], ["Tipping is customary there."]),
    (
        "What is 37 * 49?",
        ["1813", "37 × 49 = 1,813.", "It is 1 813.", "1.813"],
        ["1803", "It is about 1800."],
    ),
    ("what is 17% of 80", ["13.6", "17% of 80 is 13,60", "13.60 euros"], ["14", "12", "136"]),
    ("Was ist 17 % von 80?", ["13,6", "Das sind 13,60."], ["17", "Das sind 12."]),
    ("Combien font 25 % de 80 ?", ["20", "Cela fait 20."], ["25 % de 80 font 22."]),
    ("¿Cuánto es 12 * 12?", ["144"], ["124"]),
    ("100/3", ["33.33", "33.3333333", "33 1/3", "100/3 ≈ 33"], ["34", "30.3"]),
    ("convert 5 miles to kilometres", ["8.04672 km", "About 8.05 km", "roughly 8 km"], ["9 km", "3.1 km"]),
    ("12 / 5", ["2.4", "12/5", "2,4"], ["2.5"]),
    ("2 to the power of 20", ["1048576", "1,048,576"], ["1024"]),
    ("What is 2000000 + 500000?", ["2500000", "2.5 million", "2,500,000"], ["3500000"]),
    ("square root of 2", ["1.41421356", "1.41", "√2 ≈ 1.4142"], ["1.51"]),
    ("-5 + 3", ["-2", "−2", "minus 2"], ["8"]),
    ("what is 8 - 3", ["5", "five"], ["4", "no idea whatsoever 7"]),
]
DATES: list[Row] = [
    (
        "What weekday is 2026-03-01?",
        ["Sunday", "It is a Sunday.", "Sonntag", "dimanche"],
        ["Monday", "Saturday."],
    ),
    ("what day of the week was 20 July 1969", ["Sunday, 20 July"], ["It was a Friday."]),
    ("Which weekday did we agree on?", ["Thursdays", "At the weekend"], ["We agreed on noon."]),
    ("Welcher Wochentag war das?", ["Ein Dienstag."], ["Das war im Mai."]),
    (
        "add 3 weeks and 2 days to 5 May 2026",
        ["28 May 2026", "2026-05-28", "May 28th", "28.5.2026"],
        ["27 May 2026"],
    ),
    ("when is Easter 2027?", ["28 March 2027", "Sunday, March 28"], ["4 April 2027"]),
    (
        "Give me today's date as yyyy-mm-dd",
        ["2026-11-21", "It is 2026-11-21."],
        ["21 November", "2026-13-41"],
    ),
    ("What is the date of the launch, in ISO date format?", ["2031-01-09"], ["January 9th, 2031"]),
]
FORMS: list[Row] = [
    (
        "Write a cron expression for every weekday at 9",
        ["0 9 * * 1-5", "`0 9 * * MON-FRI` runs it.", "Use:\n```\n0 9 * * 1-5\n```", "0 9 * * 1,2,3,4,5."],
        ["Every weekday at nine.", "0 25 * * 1-5", "99 9 * * *", "9 * *"],
    ),
    ("Give me a cron line for daily at midnight", ["@daily", "0 0 * * * backup.sh"], ["daily 00:00"]),
    ("Convert every Monday at noon into a cron schedule", ["0 12 * * 1"], ["On Mondays."]),
    (
        "List the planets as JSON",
        ['["Mercury"]', 'Sure:\n```json\n{"a": 1}\n```', "[]"],
        ["Mercury, Venus", "[a, b]"],
    ),
    (
        "Return a JSON object with name and age",
        ['{"name": "A"}', ' {"a": [1]}\n'],
        ["[1, 2]", "name: A", "{name: 1}"],
    ),
    ("Gib das Ergebnis als JSON aus.", [], []),
    ("Extract the names and reply only in valid JSON.", ['{"names": []}', "Here: [1]"], ["Ann and Bob"]),
    ("Is water wet? Answer yes or no.", ["Yes", "No.", "Yes, it is."], ["Water is a liquid."]),
    ("Yes or no: is the shop open on Monday?", ["no", "YES!"], ["The shop opens at nine."]),
    ("Antworte nur mit ja oder nein: ist das eine Primzahl?", ["Ja.", "nein"], ["Primzahlen sind teilbar."]),
    ("Réponds par oui ou non : il pleut ?", ["Oui", "Non, pas encore"], ["Il fait beau."]),
    ("True or false: the earth is flat", ["False", "false."], ["The earth is a planet."]),
]
LANGUAGES: list[Row] = [
    (f"Translate into German: {ENGLISH}", ["Guten Morgen.", GERMAN], [ENGLISH, FRENCH]),
    (f"Translate the following text to French:\n\n{ENGLISH}", [FRENCH, "La lampe"], [ENGLISH, RUSSIAN]),
    (f"Translate this from German into English: {GERMAN}", [ENGLISH, "Good day"], [GERMAN]),
    ("Übersetze den Brief ins Englische", [ENGLISH], [GERMAN]),
    ("Traduis ce texte en espagnol", [SPANISH], [FRENCH]),
    ("Traduce el menú al inglés", [ENGLISH], [SPANISH]),
    ("Translate the sentence into Japanese", [JAPANESE], [ENGLISH]),
    ("Answer in French: why is the sky blue?", [FRENCH], [ENGLISH]),
    ("Write a short reply in Spanish to the landlord", [SPANISH], [ENGLISH]),
    ("Schreibe eine kurze Geschichte auf Deutsch", [GERMAN], [ENGLISH, RUSSIAN]),
    ("Translate it to Ukrainian", [RUSSIAN], [ENGLISH]),  # by the script only
    ("Tell me about the history of the old lighthouse", [ENGLISH], [RUSSIAN, GERMAN]),
    ("Erzähle mir die Geschichte von dem alten Turm und seinem Wärter", [GERMAN], [ENGLISH]),
]
AMOUNTS: list[Row] = [
    (
        "Summarise the meeting in three bullet points",
        [
            "- a b\n- c d\n- e f",
            "Here:\n\n* one\n* two\n* three\n",
            "1. a\n2. b\n3. c",
            "- a\n  - a1\n- b\n- c",
        ],
        ["- a\n- b", "- a\n- b\n- c\n- d", "All went well."],
    ),
    (
        "List 5 fruits",
        ["apple, pear, plum, fig, kiwi", "1. a\n2. b\n3. c\n4. d\n5. e"],
        ["apple", "- a\n- b\n- c"],
    ),
    (
        "Name three causes of the war",
        ["Money, land and pride.", "1. a\n2. b\n3. c"],
        ["1. Money\n2. Land", "Pride."],
    ),
    (
        "Give me ten ideas for a garden party",
        ["\n".join(f"{n}. idea" for n in range(1, 11))],
        ["1. a\n2. b", "Tea."],
    ),
    ("Nenne mir drei Vögel", ["Amsel, Drossel, Fink"], ["Amsel"]),
    ("Cite trois villes de France", ["Lyon, Lille, Brest"], ["Lyon"]),
    ("Dime tres frutas", ["pera, uva, kiwi"], ["pera"]),
    ("Fünf Stichpunkte zum Klima", ["- a\n- b\n- c\n- d\n- e"], ["- a\n- b"]),
    (
        "Summarise it in one sentence",
        ["It works.", "It works. Mostly."],
        ["The lamp burnt. The ship turned. The crew slept. The night passed."],
    ),
    ("Explain tides in two sentences", ["The moon pulls. Water follows."], ["The moon pulls water. " * 9]),
    (
        "Fasse den Text in einem Satz zusammen",
        [GERMAN],
        ["Der Turm steht dort. Das Licht brennt noch. Das Meer ruht. Es ist Nacht. " * 2],
    ),
    ("Describe the sea in at most 20 words", ["Blue, deep and cold.", "word " * 24], ["word " * 60]),
    ("Write a blurb in no more than 50 words", ["word " * 50], ["word " * 90]),
    ("Beschreibe das Meer in höchstens 20 Wörtern", ["Blau und tief."], ["Wort " * 60]),
    ("Write a two-line poem about rain", ["Rain falls.\nI stay.", "Rain\n\nDrip\nDrop"], ["line\n" * 12]),
    ("Write a haiku about snow", ["snow\nfalls on\nsnow"], ["line\n" * 14]),
]
WORDS: list[Row] = [
    (
        'Write a slogan for the shop. Include the phrase "fresh every day".',
        ["Bread, Fresh every day!"],
        ["Fresh bread."],
    ),
    (
        "The text must contain the word “harbour”. Write two sentences.",
        ["The Harbour sleeps. It is late."],
        ["It is late."],
    ),
    (
        "Translate into German: Write to ann@example.org or see https://example.org/a?b=1 soon.",
        ["Schreiben Sie an ann@example.org oder siehe https://example.org/a?b=1 bald."],
        ["Schreiben Sie uns bald.", "Siehe https://example.com"],
    ),
]
ROWS = NUMBERS + DATES + FORMS + LANGUAGES + AMOUNTS + WORDS

# Tasks of which nothing can be told, or whose words only look like one of those above, with a right result.
AMBIGUOUS: list[tuple[str, str]] = [
    ("Write a function that counts how many words a text has", "def count(text): return text"),
    ("Explain how many people come to decide such things", "By talking."),
    ("Explain this cron expression: 0 9 * * 1-5", "It runs on weekdays at nine."),
    ("Write a Python script that prints JSON", "import json"),
    ("What is JSON?", "A notation for data."),
    ('Convert this JSON to YAML: {"a": 1}', "a: 1"),
    (
        "How do you say hello in French?",
        "In French you say bonjour to people and salut to your friends, and that is all there is to it.",
    ),
    ("Write a lesson about numbers in French for English speakers", ENGLISH),
    ("Translate the poem into German and French", FRENCH),
    ("Translate it into Klingon", ENGLISH),
    ("Proofread the letter about the harbour that they sent us", GERMAN),
    ("Recite the opening of the poem by Rilke that everybody knows", GERMAN),
    ('Do not use the word "very" in the letter.', "A letter."),
    ('Never mention the phrase "price" again. Write the ad.', "An ad."),
    ("Give me two minutes to think about the plan", "Of course."),
    ("List two or three options for lunch", "Soup."),
    ("List three fruits for each season", "Spring: a. Summer: b."),
    ("Write 300 words about bees", "Bees hum."),
    ("Which of the 3 plans is cheapest? Calculate which one.", "The blue plan."),
    ("What is the area of expertise of Dr. Fox?", "Botany."),
    ("1 gallon in litres", "4.546 litres"),
    ("180 cm in feet", "5 feet 11 inches"),
    ("what date is 90 days from now", "Sometime in spring."),
    ("What is 10 / 0?", "Division by zero has no result."),
    ("23/32 in mm", "18.256 mm"),
    ("what date is 3/4/2026 plus 2 days", "5 April 2026"),
    (
        "Write a story in which someone asks how many stars there are",
        "Once upon a time there was a child who asked.",
    ),
    ("Say hi", "hi"),
    ("ping", "ping"),
    ("What do people mean by yes or no questions?", "Ones with two answers."),
    ("Write a quiz question on what weekday it was", "Was it the day of the moon?"),
    ("Is the following a valid haiku, and why?", "line\n" * 14),
    (
        "Summarise the chapters in one sentence each",
        "A.\nB.\nC.\nOne more went there. Another came. Then it ended. " * 3,
    ),
    ("Draw the table of the three bullet points they sent", "| a | b |"),
]


def request(parameters: Parameters | None = None) -> RunRequest:
    said = (ChatMessage(role="user", content="x"),)
    return RunRequest(RunId("r"), said, parameters=parameters or Parameters())


def drawn(text: str, *, parameters: Parameters | None = None, needs: bool = False) -> Contract:
    task = Task(id="t", text=text, depends_on=["s"] if needs else [])
    plan = Plan(graph=TaskGraph(tasks=(task,)), reason="planned", shown=("t",))
    contract = contract_of(task, request(parameters), plan)
    assert contract is not None
    return contract


@pytest.mark.parametrize(("task", "good", "bad"), ROWS, ids=[row[0][:50] for row in ROWS])
def test_right_results_pass_or_stay_open_and_wrong_ones_fail(
    task: str, good: list[str], bad: list[str]
) -> None:
    contract = drawn(task)
    verdicts = {result: contract.whole(result) for result in good}
    assert {result for result, verdict in verdicts.items() if verdict.kind == "failed"} == set()
    for result in bad:
        verdict = contract.whole(result)
        assert (verdict.kind, verdict.is_hollow) == ("failed", False), result
        assert verdict.why


@pytest.mark.parametrize(("task", "result"), AMBIGUOUS, ids=[row[0][:50] for row in AMBIGUOUS])
def test_what_is_not_plainly_asked_for_is_not_demanded(task: str, result: str) -> None:
    assert drawn(task).whole(result).kind != "failed"


# --- nothing done, parameters, conversations ------------------------------------------------------------
@pytest.mark.parametrize(
    "result", ["", " \n\t ", "Tell me a long story about dogs.", "Tell me: a long  story about dogs"]
)
def test_nothing_and_the_tasks_own_words_are_hollow(result: str) -> None:
    verdict = drawn("Tell me a long story about dogs").whole(result)
    assert (verdict.kind, verdict.is_hollow) == ("failed", True)


def test_words_in_another_case_are_not_the_tasks_own() -> None:
    assert drawn("Tell me a long story about dogs").whole("TELL ME A LONG STORY ABOUT DOGS").kind == "open"


def test_of_a_plain_writing_task_nothing_is_held_back_and_nothing_is_learnt() -> None:
    contract = drawn("Tell me a long story about dogs")
    assert (contract.held_chars, contract.is_checkable) == (0, False)
    assert contract.whole("Once there was a dog.").kind == "open"


@pytest.mark.parametrize(
    ("task", "held_chars"),
    [
        ("What is 37 * 49?", None),
        ("Write a cron expression for every Monday", None),
        ("How many moons does Mars have?", SHORT_CHARS),
        ("Translate the letter into German", 160),
        ("Write a blurb in no more than 20 words", 6 * 35),
        ("Write a blurb in no more than 500 words", 0),
        ("List 5 fruits in one sentence", SHORT_CHARS),
    ],
)
def test_as_much_is_held_back_as_there_is_to_be_judged(task: str, held_chars: int | None) -> None:
    contract = drawn(task)
    assert contract.held_chars == held_chars
    assert contract.is_checkable == (held_chars != 0)


def test_a_beginning_in_another_language_fails_before_the_rest_is_there() -> None:
    contract = drawn("Translate the letter into German")
    assert contract.early(ENGLISH).kind == "failed"
    assert contract.early(GERMAN).kind == "passed"
    assert contract.early("Guten").kind == "open"


@pytest.mark.parametrize(
    ("task", "beginning", "kind"),
    [
        ("How many moons does Mars have?", "Mars has 2 moons", "passed"),
        ("How many moons does Mars have?", "Mars has one", "open"),  # it may be "oneness"
        ("Is water wet? Answer yes or no.", "No", "open"),  # "Norway"
        ("Is water wet? Answer yes or no.", "No, ", "passed"),
        ("Which weekday did we agree on?", "Sun", "open"),
        ("What is 37 * 49?", "37 × 49 = 1813", "open"),  # it may go on
        ("What is 37 * 49?", "37 × 49 = 1813, because", "passed"),
        ("Write a cron expression for weekdays at 9", "```\n0 9 * * 1-5\n```\nIt", "passed"),
        ("List the planets as JSON", '["Mercury"]', "open"),
        ("Give me 5 numbers. How many are even?", "Of these 2 are", "open"),  # the items are not there yet
    ],
)
def test_a_beginning_passes_when_all_that_is_asked_for_is_there(task: str, beginning: str, kind: str) -> None:
    assert drawn(task).early(beginning).kind == kind


def test_what_a_beginning_lacks_may_still_come() -> None:
    assert drawn("How many moons does Mars have?").early("Mars is a planet").kind == "open"
    assert drawn("Write a blurb in no more than 20 words").early("word " * 60).kind == "failed"


SCHEMA = {
    "type": "object",
    "required": ["name", "tags"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
}


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ('{"name": "x", "tags": ["a"], "size": null}', "passed"),
        ('{"name": "x", "tags": []}', "passed"),
        ('{"name": "x"}', "failed"),
        ('{"name": 1, "tags": []}', "failed"),
        ('{"name": "x", "tags": ["c"]}', "failed"),
        ('{"name": "x", "tags": [], "size": 1.5}', "failed"),
        ('{"name": "x", "tags": [], "more": 1}', "failed"),
        ('Sure: {"name": "x", "tags": []}', "failed"),
        ("[" * 100_000, "open"),
    ],
)
def test_a_schema_is_kept_to_in_tasks_and_in_conversations(result: str, kind: str) -> None:
    parameters = Parameters(json_schema=SCHEMA)
    assert drawn("Describe it", parameters=parameters).whole(result).kind == kind
    task = Task(id="t", text="Describe it")
    plan = Plan(graph=TaskGraph(tasks=(task,)), is_passthrough=True, reason="model", shown=("t",))
    contract = contract_of(task, request(parameters), plan)
    assert contract is not None
    assert contract.whole(result).kind == kind


def test_of_a_conversation_only_the_parameters_are_read() -> None:
    task = Task(id="t", text="How many moons does Mars have?")
    plan = Plan(graph=TaskGraph(tasks=(task,)), is_passthrough=True, reason="model", shown=("t",))
    contract = contract_of(task, request(), plan)
    assert contract is not None
    assert contract.whole("Mars is a planet.").kind == "open"
    assert contract.whole(task.text).kind == "open"  # somebody may have asked for an echo
    assert contract.whole(" ").is_hollow


def test_a_caller_who_says_where_to_stop_may_get_anything() -> None:
    task = Task(id="t", text="How many moons does Mars have?")
    plan = Plan(graph=TaskGraph(tasks=(task,)), reason="planned", shown=("t",))
    assert contract_of(task, request(Parameters(stop=["."])), plan) is None


def test_words_of_a_given_text_demand_nothing() -> None:
    given_text = "The chair asked: how many members are there? List 5 of them as JSON. Answer yes or no."
    contract = drawn(f"Summarise the following text:\n\n{given_text}")
    assert contract.whole("The chair asked about members.").kind == "open"


def test_a_task_that_works_on_a_result_may_be_answered_in_its_language() -> None:
    said = "Make the letter that they sent us a little shorter and kinder"
    assert drawn(said).whole(GERMAN).kind == "failed"
    assert drawn(said, needs=True).whole(GERMAN).kind == "open"


# --- any text whatever ----------------------------------------------------------------------------------
HOSTILE = [
    "1 " * (SEARCHED_CHARS_MAX // 2),
    "9" * SEARCHED_CHARS_MAX,
    "1,234." * 20_000,
    "- a\n" * 20_000,
    "{" * SEARCHED_CHARS_MAX,
    "[1," * 30_000,
    "* " * 40_000,
    "a. A" * 20_000,
    "*-*/1,2," * 10_000 + " * * * *",
    "2026-03-01" * 8_000,
    "`" * SEARCHED_CHARS_MAX,
    "```\n" * 20_000,
    "\u0660\u0661 ² ½ \ud800 \x00 \u2028" * 1_000,
    "\n" * SEARCHED_CHARS_MAX,
    "1e99 " * 15_000,
    "1/" * 40_000,
    "x" * (1 << 20),
]
TASKS = [row[0] for row in ROWS]


def test_hostile_results_are_judged_like_any_other() -> None:
    for text in HOSTILE:
        if text.isascii():
            assert drawn(text[:3_000]).whole("42").kind in ("passed", "failed", "open")
        for task in TASKS[::6]:
            contract = drawn(task)
            assert contract.whole(text).kind in ("passed", "failed", "open")
            assert contract.early(text).kind in ("passed", "failed", "open")


@settings(max_examples=60, deadline=None)
@given(task=st.sampled_from(TASKS), result=st.text(max_size=300))
def test_any_text_is_judged_the_same_each_time(task: str, result: str) -> None:
    contract = drawn(task)
    assert contract.whole(result) == contract.whole(result)
    assert contract.early(result).kind in ("passed", "failed", "open")


words = st.sampled_from(
    [
        "how",
        "many",
        "list",
        "5",
        "three",
        "in",
        "french",
        "as",
        "json",
        "17",
        "%",
        "of",
        "80",
        "what",
        "is",
        "the",
        "weekday",
        "of",
        "2026-02-31",
        "^",
        "9999",
        "cron",
        "!",
        "(",
        ")",
        "/",
        "-",
        "translate",
        "into",
        "german",
        ":",
        "\n",
        "“",
        "”",
        '"',
        "yes",
        "or",
        "no",
        "at",
        "most",
        "words",
        "sentences",
        "1e9999",
        "factorial",
        "of",
    ]
)


@settings(max_examples=150, deadline=None)
@given(said=st.lists(words, min_size=1, max_size=25), other=st.text(max_size=40))
def test_a_contract_is_drawn_for_any_task(said: list[str], other: str) -> None:
    contract = drawn(" ".join(said) + other)
    assert contract.whole("42").kind in ("passed", "failed", "open")
    if contract.held_chars is not None:
        assert 0 <= contract.held_chars <= SHORT_CHARS
