"""Documents are short where one starts, say everything once, and keep to the field's words."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from bundle_documents import FENCED
from bundle_runs import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("bundles/*/docs/*.md"), *(ROOT / "shared" / "docs").rglob("*.md")]
LONGEST_README = 1200  # words
LONG = 8  # words, from which a sentence must not occur twice
# citations, which the model zoo asks for in every bundle, and where figures come from
SOURCES = re.compile(r"^#+ References\n.*?(?=^#|\Z)|\bData: [^\n]+|^Trained with [^\n]+", flags=re.M | re.S)
WORDS = r"trainings|shall|go(es)? on|is told|are told|belongs? into"


def sentences(text: str) -> set[tuple[str, ...]]:
    """The words of each sentence, item and cell of a document, without code blocks, citations and sources."""
    prose = SOURCES.sub("", FENCED.sub("\n\n", text))
    prose = re.sub(r"<!--.*?-->|\]\([^)]*\)", " ", prose, flags=re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[-#|]|\d+\. )|\||[.!?:](?=\s)", prose)
    found = [tuple(re.findall(r"[\w+]+", part.lower())) for part in parts]
    return {words for words in found if sum(not word.isnumeric() for word in words) >= LONG}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= LONGEST_README


def test_no_sentence_is_in_two_documents() -> None:
    places = defaultdict(list)
    for document in DOCUMENTS:
        for sentence in sentences(document.read_text(encoding="utf-8")):
            places[" ".join(sentence)].append(document.relative_to(ROOT).as_posix())
    assert {sentence: found for sentence, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One two three four five six seven. Short one.", []),
        ("One two three four five six seven 8.", []),
        ("One two three [four](a.md#b) five six\nseven `eight`. Nine.", ["one two three four five six seven eight"]),
        ("| a b c d e f g h | a b |\n|---|---|\n- i j k l m n o p\n", ["a b c d e f g h", "i j k l m n o p"]),
        ("```bash\na b c d e f g h\n```\n# References\na b c d e f g h\n", []),
        ("One. Data: a, by b c d e f g h i. Two.\nTrained with a, b, c, d, e, f, g\n", []),
        ("# References\nx\n# A title of eight words or even more\n", ["a title of eight words or even more"]),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert sorted(map(" ".join, sentences(text))) == found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_of_the_field(document: Path) -> None:
    prose = FENCED.sub("", document.read_text(encoding="utf-8"))
    assert [match[0] for match in re.finditer(rf"\b({WORDS})\b", prose, flags=re.IGNORECASE)] == []
