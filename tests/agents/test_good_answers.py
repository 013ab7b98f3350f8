"""Good answers of capable models to usual requests: no contract may turn one away."""

from __future__ import annotations

import pytest

from monai_node.agents.contract import Contract, contract_of
from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

ENGLISH = (
    "The old keeper climbed the stairs every evening and lit the lamp, because the ships that passed in the"
    " dark would not have found their way without it."
)
GERMAN = (
    "Der alte Wärter stieg jeden Abend die Treppe hinauf und zündete die Lampe an, weil die Schiffe in der"
    " Nacht ohne sie nicht nach Hause gefunden hätten."
)
FRENCH = (
    "Le vieux gardien montait chaque soir les marches et allumait la lampe, parce que les bateaux qui"
    " passaient dans la nuit ne trouvaient pas leur chemin sans elle."
)
SPANISH = (
    "El viejo farero subía cada noche las escaleras y encendía la lámpara, porque los barcos que pasaban en"
    " la oscuridad no habrían encontrado el camino sin ella."
)
RUSSIAN = (
    "Старый смотритель маяка каждый вечер поднимался по лестнице и зажигал лампу для кораблей в темноте ночи."
)
_TEN_LONG = "\n\n".join(f"{at}. **Cause {at}**\n" + f"{ENGLISH} " * 6 for at in range(1, 11))
_DERIVATION = f"{ENGLISH} Take 3 of 4 first.\n" * 60

# A request, and an answer that the one who asked would be glad of.
GOOD: list[tuple[str, str]] = [
    # Numbers and calculations.
    ("Convert 5 miles to km", "5 miles = 8.05km"),
    ("convert 5 miles to km", "5 miles is about 8.047km (1 mile ≈ 1.609km)."),
    ("180 pounds in kg", "180lb ≈ 81.65kg"),
    ("What is 15% of 240?", "15% of 240 is **36**."),
    ("What is 5 / 2?", "5 / 2 = 2 1/2"),
    ("What is 5 / 2?", "5 / 2 = 2½"),
    ("What is 17 / 5?", "17 divided by 5 is 3 with a remainder of 2."),
    ("What is 1234 * 1000?", "12,34,000"),
    ("What is 37 * 49?", _DERIVATION + "So the result is 1813."),
    ("What is 9/11?", "The attacks of September 11, 2001 in the United States."),
    ("what is 50-50", "An even split between two."),
    ("What is 7/11", "A chain of some 80000 shops."),
    ("Convert 100 USD to EUR", "About 92 EUR at recent rates."),
    ("how much is 50 GBP in USD", "Some 63 dollars."),
    ("What is 12 squared?", "12² = 144"),
    ("What is 37 * 49?", "\\[37 \\times 49 = 37 \\times 50 - 37 = 1850 - 37 = \\boxed{1813}\\]"),
    ("Calculate the limit of 1/x as x approaches 0", "The limit does not exist."),
    ("How many stars are there in the universe?", "Nobody knows exactly; estimates vary a lot."),
    ("How many people will come to the party?", "It depends on who gets the invitation."),
    ("Wie viele Bundesländer hat Deutschland?", "Deutschland hat sechzehn Bundesländer."),
    ("Combien de côtés a un hexagone ?", "Un hexagone a six côtés."),
    ("¿Cuántos continentes hay?", "Hay siete continentes."),
    ("Give me 7 plus 5", "12"),
    ("Give me 5 factorial", "120"),
    ("Give me 5 squared", "25"),
    # Days.
    ("When is Easter 2027?", "2027年3月28日"),
    ("What is the ISO date format?", "Year, month and day with hyphens: YYYY-MM-DD."),
    ("What day of the week is best for laundry?", "Any day works, but weekdays are quieter."),
    ("What weekday is Christmas 2027?", "It falls on a Saturday."),
    ("What day is Christmas 2027?", "A Saturday."),
    ("Which weekday was 4 July 1776?", "July 4, 1776 fell on a **Thursday**."),
    # Yes or no.
    ("Should I say yes or no to the offer?", "Take it if the pay is right and the people are kind."),
    ("How do I answer a yes or no question politely?", "Give the short form first, then a reason."),
    ("Is a tomato a fruit? Answer yes or no.", "Absolutely."),
    ("Answer true or false for each: 1) ice is cold 2) fire is wet", "1) T\n2) F"),
    ("Is he guilty? Answer yes or no.", "Definitely not."),
    ("Will it rain? Answer with yes or no.", "That cannot be determined."),
    ("Är det sant? Answer yes or no", "Nej."),
    # JSON and cron.
    ("How do I write a comment in JSON?", "You cannot: the format has none. Use a key such as _comment."),
    ("Are trailing commas allowed in JSON?", "They are not, though some parsers accept them."),
    ("What is the best way to store dates in JSON?", "Use strings as RFC 3339 says."),
    ("Why are there no comments in JSON?", "Its author left them out so that nobody hid directives in them."),
    ("Return the three users as a JSON object each", '[{"name": "A"}, {"name": "B"}]'),
    ("List the planets as JSON", 'Here you go:\n\n```json\n["Mercury", "Venus"]\n```\n\nTell me [more]!'),
    ("Write a cron expression for Sunday to Thursday at 9", "0 9 * * SUN-THU"),
    ("Write a cron expression for weekdays at 9", "**0 9 * * 1-5**"),
    ("Write a cron expression for weekdays at 9", "0 9 \\* \\* 1-5"),
    ("Write a cron expression for weekdays at 9", "| 0 | 9 | * | * | 1-5 |"),
    ("Write a cron expression for weekdays at 9", "Use this one (0 9 * * 1-5)."),
    ("Give me a cron expression for the last day of each month", "0 0 L * ?"),
    ("Give me a cron expression for the first Monday of a month", "0 9 * * MON#1"),
    # How much.
    ("Summarise it in at most five bullet points", "- calm\n- clear\n- cold"),
    ("Summarise it in up to 5 bullets", "- calm\n- clear\n- cold"),
    ("Summarise it in 3-5 bullet points", "- calm\n- clear\n- cold"),
    ("Summarise it in three to five bullet points", "- calm\n- clear\n- cold\n- wide"),
    ("Give me at least 3 bullet points", "- a\n- b\n- c\n- d\n- e"),
    ("Give me about 5 bullet points on bees", "- a\n- b\n- c\n- d"),
    ("Pros and cons in three bullet points", "**Pros**\n- a\n- b\n- c\n\n**Cons**\n- d\n- e\n- f"),
    ("List 10 causes of the war in detail", _TEN_LONG),
    (
        "Give me three reasons to travel",
        "## Food\n\nIt is good.\n\n- Try it\n\n## People\n\nKind.\n\n## Sea\n\nBlue.",
    ),
    ("What is the git command to list 10 commits?", "`git log -10`"),
    ("How do I list 10 files in a folder?", "`ls | head`"),
    ("Give me 4 letter word for the sea", "Deep."),
    ("List 2 digit primes below 12", "11"),
    (
        "Describe the sea in 5 words",
        "Here are five words for the sea:\n\n1. Vast\n2. Deep\n3. Blue\n4. Salty\n5. Wild",
    ),
    (
        "Write an email to my boss about the leave, subject line under 10 words",
        f"Subject: Leave in May\n\nDear Ann,\n\n{ENGLISH}\n\nBest,\nTim",
    ),
    ("Write a report on bees. Keep sentences under 12 words.", "Bees fly. " * 40),
    ("Write a post on tea, with paragraphs of at most 20 words.", "Tea is good. " * 30),
    (
        "Write three bullet points with no more than 10 words per bullet",
        "- one two three four five six\n" * 3,
    ),
    ("How do you use a semicolon in a sentence?", "It joins two clauses. " * 6),
    ("What is the subject in a sentence?", "It is who acts. " * 6),
    ("Write a paragraph about bees that ends with a sentence about honey", "Bees fly. They dance. " * 4),
    ("Begin with a short sentence and then tell the story of Troy", "War came. The ships sailed. " * 6),
    ("Write five haiku about winter", "\n\n".join(["snow\nfalls on\nsnow"] * 5)),
    ("Write a haiku and explain what it says", "snow\nfalls on\nsnow\n\n" + "It is about snow.\n" * 8),
    # Languages.
    (
        'Translate "good morning" into German',
        "**Guten Morgen** is the usual greeting before noon. Among friends you can also just say Morgen, and"
        " in the north of the country many people say Moin at any time of the day.",
    ),
    (
        "Translate to French: thank you",
        "Merci. If you want to be more formal you can say je vous remercie, and to a friend merci beaucoup"
        " is what most of the people there would say to you.",
    ),
    (
        "Translate the letter into German",
        "Certainly! Here is the translation of the letter that you sent me into German,"
        " keeping to the tone of"
        f" the original as far as that is possible:\n\n{GERMAN}",
    ),
    (
        "Translate the letter into German",
        f"{GERMAN}\n\nNotes: " + "I kept the tone of the original and the order of the sentences. " * 5,
    ),
    (
        "Translate the letter into Serbian",
        "Stari čuvar svetionika se svako veče penjao uz stepenice i palio lampu, jer"
        " brodovi koji su prolazili"
        " u mraku ne bi našli put bez nje, a to je bilo važno za sve.",
    ),
    ("Write a paragraph about the gods in Greek mythology", f"{ENGLISH} {ENGLISH}"),
    ("Write a report on the use of herbs in Chinese medicine", f"{ENGLISH} {ENGLISH}"),
    ("Write a short piece on winters in German cities", f"{ENGLISH} {ENGLISH}"),
    ("Show me the original text of the anthem that the French sing", FRENCH),
    ("Give me a well known poem by the poet who wrote Faust", GERMAN),
    ("Antworte auf Spanisch: warum ist das Meer salzig?", SPANISH),
    ("Переведи письмо на английский язык, пожалуйста, и сохрани тон", ENGLISH),
    ("Напиши короткий рассказ про старый маяк и его смотрителя", RUSSIAN),
    (
        "Escriu una carta curta al meu veí sobre el soroll que fa a la nit",
        "Benvolgut veí, t'escric perquè el soroll que fas a la nit no ens deixa dormir, i"
        " voldríem que poguéssim parlar-ne amb calma un dia d'aquests.",
    ),
    (
        "Skriv ett kort brev till min granne om ljudet på natten",
        "Hej! Jag skriver för att ljudet på natten gör det svårt för oss att sova, och vi"
        " skulle vilja prata med dig om det när du har tid.",
    ),
    (
        "Skriv en kort fortælling om en gammel fyrpasser og hans hund",
        "Der var engang en gammel fyrpasser, som hver aften gik op ad trappen og tændte"
        " lampen, for at skibene kunne finde vej hjem i mørket.",
    ),
    (
        "Scrie o scrisoare scurtă vecinului meu despre zgomotul din timpul nopții",
        "Dragă vecine, îți scriu pentru că zgomotul din timpul nopții nu ne lasă să dormim"
        " și am vrea să vorbim despre asta când ai timp.",
    ),
    # The task is English, whatever its few words look like.
    ("Explain photosynthesis in two sentences", ENGLISH),
    ("Compare trains in Norway", f"{ENGLISH} {ENGLISH}"),
    # Nothing changed.
    ("Correct it: The cat sat on the mat and slept.", "The cat sat on the mat and slept."),
]


def drawn(text: str, *earlier: ChatMessage) -> Contract:
    request = RunRequest(RunId("r"), (*earlier, ChatMessage(role="user", content=text)))
    task = Task(id="t", text=text)
    contract = contract_of(
        task, request, Plan(graph=TaskGraph(tasks=(task,)), reason="planned", shown=("t",))
    )
    assert contract is not None
    return contract


@pytest.mark.parametrize(("task", "answer"), GOOD, ids=[f"{row[0][:40]}-{at}" for at, row in enumerate(GOOD)])
def test_a_good_answer_is_shown(task: str, answer: str) -> None:
    contract = drawn(task)
    assert contract.whole(answer).kind != "failed"
    held_chars = contract.held_chars
    if held_chars and len(answer) > held_chars:
        for end in range(held_chars + 1, min(held_chars + 40, len(answer))):
            assert contract.early(answer[:end]).kind != "failed"


@pytest.mark.parametrize(
    ("system", "task", "answer"),
    [
        (
            "Correct the user's English. Reply with the text only.",
            "I have a dog and two cats.",
            "I have a dog and two cats.",
        ),
        ("Always answer in French.", "Tell me about the old lighthouse and its keeper", FRENCH),
        ("Classify what the user says as order or question.", "List 5 fruits", "order"),
        (
            "Translate what the user says into German.",
            "How many people live in the old town?",
            "Wer weiß das schon?",
        ),
    ],
)
def test_under_a_system_message_results_may_be_anything(system: str, task: str, answer: str) -> None:
    assert drawn(task, ChatMessage(role="system", content=system)).whole(answer).kind != "failed"


def test_a_system_message_that_asks_for_nothing_changes_nothing() -> None:
    usual = ChatMessage(role="system", content="You are a helpful AI assistant.")
    assert drawn("How many moons does Mars have?", usual).whole("Mars is red.").kind == "failed"
