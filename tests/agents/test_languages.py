from __future__ import annotations

import pytest

from monai_node.agents.languages import LANGUAGE_NAMES, TOLD_LANGUAGES, language_of

SENTENCES = {
    "English": (
        "The black cat sleeps on the chair while the children play in the garden with their red ball."
    ),
    "German": (
        "Die schwarze Katze schläft auf dem Stuhl, während die Kinder im Garten mit einem Ball spielen."
    ),
    "French": (
        "Nous avons reçu votre lettre et nous vous répondrons dès que possible, mais il est tard pour cette"
        " semaine."
    ),
    "Spanish": (
        "El gato negro duerme en la silla mientras los niños juegan en el jardín con una pelota roja."
    ),
    "Italian": (
        "Il gatto nero dorme sulla sedia mentre i bambini giocano nel giardino con una palla che è della zia."
    ),
    "Portuguese": (
        "Recebemos a sua carta e também o livro, mas não sabemos quando você pode passar aqui para falar com"
        " ele."
    ),
    "Dutch": (
        "De zwarte kat slaapt op de stoel terwijl de kinderen in de"
        " tuin spelen met een rode bal van hun vader."
    ),
    "Polish": (
        "Czarny kot śpi na krześle, a dzieci bawią się w ogrodzie z"
        " piłką, którą kupił im ojciec, i jest im miło."
    ),
    "Cyrillic": (
        "Чёрный кот спит на стуле, а дети играют в саду с красным мячом, который им купил отец вчера вечером."
    ),
    "Greek": (
        "Η μαύρη γάτα κοιμάται στην καρέκλα ενώ τα παιδιά παίζουν"
        " στον κήπο με μια κόκκινη μπάλα του πατέρα τους."
    ),
    "Japanese": "黒い猫は椅子の上で寝ていて、子供たちは庭で赤いボールで遊んでいます。" * 3,
    "Chinese": "黑猫睡在椅子上，孩子们在花园里玩父亲给他们买的红球，大家都很高兴。" * 4,
    "Korean": "검은 고양이는 의자에서 자고 아이들은 정원에서 아버지가 사 준 빨간 공을 가지고 놀고 있습니다."
    * 3,
    "Arabic": (
        "القطة السوداء تنام على الكرسي بينما يلعب الأطفال في الحديقة"
        " بكرة حمراء اشتراها لهم والدهم أمس مساء في المدينة."
    ),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert language_of(SENTENCES[language], letters_min=60) == language
    assert language in TOLD_LANGUAGES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The cat sleeps.",
        "apple pear plum fig kiwi " * 8,
        "Den svarta katten sover på stolen medan barnen leker i trädgården med en boll från pappa",
        SENTENCES["English"] + SENTENCES["German"],
        SENTENCES["English"] + SENTENCES["Cyrillic"],
        "12345 67890 " * 40,
        "```\n" + SENTENCES["English"] + "\n```\n",
    ],
)
def test_what_is_short_mixed_or_unknown_tells_none(text: str) -> None:
    assert language_of(text, letters_min=60) == ""


@pytest.mark.parametrize(
    ("name", "language"),
    [("deutsch", "German"), ("französische", "French"), ("inglés", "English"), ("tschechische", "another")],
)
def test_languages_are_named_in_several(name: str, language: str) -> None:
    assert LANGUAGE_NAMES[name] == language
