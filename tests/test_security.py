"""docs/security.md: each of its sentences is held by a test, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_documents import defined_tests

from urst_tiles.errors import DamagedFile
from urst_tiles.source.headers import MOST_WHOLE_BYTES
from urst_tiles.tiff import budget
from urst_tiles.workers.queues import certificate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"

#: Behind a sentence that says what to do, or why, and nothing about how the program behaves.
ADVICE = "advice"


def claims(text: str) -> list[tuple[str, list[str]]]:
    """Every sentence with the words of the comment behind it; no words where it has none."""
    body = "\n".join(line for line in text.splitlines() if not re.match(r"#|\|[-|]+$|\| how ", line))
    found = []
    pieces = re.split(r"<!--(.*?)-->", body, flags=re.DOTALL)
    for prose, comment in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        if re.search(r"\w", prose):
            found.append((" ".join(prose.split()), re.findall(r"\w+", comment)))
    return found


def faults(text: str) -> list[str]:
    """What is wrong with the page: sentences without a test, and tests that are not there."""
    wrong = []
    for prose, words in claims(text):
        if not words:
            wrong.append(f"no test: {prose}")
        elif words != [ADVICE]:
            wrong += [f"no such test: {word}" for word in words if word not in defined_tests()]
            plain = re.sub(r"\*\*.*?\*\*|`[^`]*`", "x", prose)
            if len(re.findall(r"[.!?](?=\s+[A-Zx]|$)", plain.strip(" |()"))) > 1:
                wrong.append(f"two sentences, one test: {prose}")
    return wrong


def test_every_sentence_is_held_by_a_test() -> None:
    text = PAGE.read_text()
    assert not faults(text)
    assert len(claims(text)) > 50


def test_these_checks_can_fail() -> None:
    held = "A thing is so. <!-- test_every_sentence_is_held_by_a_test -->"
    assert not faults(held) and not faults(f"# Heading\n\n{held}\nDo this. And that. <!-- advice -->\n")
    assert faults(f"{held} Another is so.") == ["no test: Another is so."]
    assert faults("A thing is so. <!-- test_nosuch -->") == ["no such test: test_nosuch"]
    assert faults(f"One is so. {held}") == ["two sentences, one test: One is so. A thing is so."]


def test_the_numbers_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text().split())
    assert f"refused above {MOST_WHOLE_BYTES >> 30} GiB" in text and budget.TIMES == 2
    assert f"twice as long as the file and {budget.MORE_BYTES >> 20} MiB longer" in text
    assert f"may have {budget.MOST_ENTRIES} entries, and take {budget.MOST_SECONDS:.0f} seconds" in text
    assert f"taken into memory may have {budget.MOST_VALUE_BYTES >> 20} MiB" in text
    assert f"GDAL's metadata may have {budget.MOST_TEXT_BYTES >> 20} MiB" in text


def test_reading_directories_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 29.0, 31.0])
    monkeypatch.setattr(budget.time, "thread_time", lambda: next(clock))
    spent = budget.Budget(Path("scene.tif"), 1000)
    spent.spend(entries=10)
    with pytest.raises(DamagedFile, match=r"scene\.tif: .* damaged or made to harm"):
        spent.spend(entries=10)


def test_each_run_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        with certificate(tmp_path) as security:
            files = security.get_tls_config_for_role("worker")
            keys |= {Path(files[part]).read_bytes() for part in ("cert", "key")}
        assert not list(tmp_path.iterdir())  # it goes with the run
    assert len(keys) == 4
