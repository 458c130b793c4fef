"""Deduplication: what a copy is, what the fingerprints promise, and that who goes depends on nothing but the documents' order."""

import json
import os
import random
import sys
import tracemalloc
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from cngpt.corpus.dedup import index, near, normal
from cngpt.corpus.dedup.decide import Decisions, decide
from cngpt.corpus.dedup.fingerprints import (
    Fingerprints,
    FingerprintWriter,
    fingerprints,
    jaccard,
    minhash,
    shingle_sets,
    without_lines,
)
from cngpt.corpus.dedup.settings import EXACT, KEEP, NEAR, Dedup
from cngpt.errors import ConfigError, UserError
from cngpt.settings import show

LETTERS = [chr(0x4E00 + n) for n in range(3000)]
BUDGET = 1 << 30


def story(dice: random.Random, characters=400) -> str:
    return "".join(dice.choices(LETTERS, k=characters))


def edited(text: str, share: float, dice: random.Random) -> str:
    letters = list(text)
    for place in dice.sample(range(len(text)), round(share * len(text))):
        letters[place] = dice.choice(LETTERS)
    return "".join(letters)


def similarity(a: str, b: str, shingle=5) -> float:
    """By the definition, on letters that are all kept."""
    a, b = ({text[i : i + shingle] for i in range(len(text) - shingle + 1)} for text in (a, b))
    return len(a & b) / max(1, len(a | b))


def decided(units: list[list[str]], scratch, settings=Dedup(), memory=BUDGET, **also) -> Decisions:
    def read(places):
        return [units[unit][position] for unit, position in places]

    return decide([fingerprints(texts, settings) for texts in units], settings, read, memory, scratch, **also)


def corpus(seed=0, documents=300, letters=300) -> list[str]:
    """Stories, exact and near copies of earlier ones, chains of edits, short texts."""
    dice, texts = random.Random(seed), []
    for _ in range(documents):
        kind = dice.random()
        if kind < 0.5 or not texts:
            texts.append(story(dice, dice.choice([3, 12, 100, letters])))
        else:
            earlier = dice.choice(texts)
            texts.append(earlier if kind < 0.6 else edited(earlier, dice.choice([0.01, 0.02, 0.05, 0.1]), dice))
    return texts


# What is the same


@pytest.mark.parametrize(
    "a, b", [("今天，天气 很好。\n", "今天天气很好"), ("GPT-2 模型", "gpt2模型"), ("一\u200b二", "一二"), ("“好”", "「好」")]
)
def test_white_space_punctuation_and_case_make_no_other_text(a, b, tmp_path):
    assert decided([[a, b]], tmp_path).verdicts.tolist() == [KEEP, EXACT]


@pytest.mark.parametrize("a, b", [("今天", "明天"), ("！！", "？？"), ("１", "1"), ("", "。"), ("𠀀", "𠀁"), ("ab", "a\nc")])
def test_other_letters_make_another_text(a, b, tmp_path):
    assert decided([[a, b]], tmp_path).verdicts.tolist() == [KEEP, KEEP]


def test_lone_surrogates_and_texts_shorter_than_a_shingle_are_handled(tmp_path):
    assert decided([["\ud800今天", "", "一二三", "一二三", "一二四"]], tmp_path).verdicts.tolist() == [0, 0, 0, EXACT, 0]


def test_of_a_labelled_set_every_copy_is_found_and_no_original_is_lost(shared, tmp_path):
    rows = [json.loads(line) for line in shared("corpora/dev/dedup_labelled.jsonl").read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["kind"] != "orig")
    decisions = decided([[row["text"] for row in rows]], tmp_path)
    missed = dict.fromkeys(("orig", "exact", "edit2%", "wrapped", "edit10%", "half"), 0)
    for number, row in enumerate(rows):
        original = decisions.original(0, number)
        assert original is None or rows[original[1]]["cluster"] == row["cluster"]
        missed[row["kind"]] += original is None
    assert missed["orig"] == 350 and missed["exact"] == 0 and missed["edit2%"] <= 2 and missed["wrapped"] <= 2
    assert (missed["edit10%"], missed["half"]) == (128, 103)  # of as many: below the threshold, and texts of their own


# Fingerprints


def test_fingerprints_do_not_depend_on_the_batch_a_text_came_in(tmp_path):
    texts = ["", *corpus(documents=60), "短", "行一" * 9 + "\n" + "行二" * 9]
    settings = Dedup(lines=2)
    whole = fingerprints(texts, settings)
    parts = Fingerprints.joined(
        [fingerprints(texts[:7], settings), *(fingerprints([text], settings) for text in texts[7:])], settings
    )
    whole.save(tmp_path / "unit")
    for other in parts, Fingerprints.load(tmp_path / "unit"):
        for name, array in vars(whole).items():
            assert getattr(other, name).dtype == array.dtype
            np.testing.assert_array_equal(getattr(other, name), array)


def test_a_batch_is_cut_where_it_is_large(monkeypatch):
    texts = corpus(documents=40)
    whole = fingerprints(texts, Dedup(lines=2))
    monkeypatch.setattr(sys.modules["cngpt.corpus.dedup.fingerprints"], "BATCH_CHARACTERS", 100)
    for name, array in vars(fingerprints(texts, Dedup(lines=2))).items():
        np.testing.assert_array_equal(getattr(whole, name), array)


def test_fingerprints_are_the_same_today_as_when_they_were_saved():
    """Units on disk outlive a process, and the version of this code that made them."""
    made = fingerprints(["今天天气很好，我们去公园散步。\n明天呢？"], Dedup(lines=2, min_line_chars=8))
    assert made.exact.tolist() == [[16095195205947821938, 13652927503669697457]]
    assert made.signature.ravel()[:4].tolist() == [3004, 50158, 58245, 46088]
    assert made.lines.tolist() == [10945245444988820537]


def test_a_worker_may_begin_with_no_text_at_all(monkeypatch):
    monkeypatch.setattr(normal, "_powers", {})
    assert len(fingerprints([], Dedup(lines=2))) == 0 and len(fingerprints([""], Dedup(lines=2))) == 1


def test_what_the_settings_leave_out_takes_no_bytes():
    off = fingerprints(["今天天气很好"] * 3, Dedup(exact=False, near=False))
    assert len(off) == 3 and sum(array.nbytes for array in vars(off).values()) == off.sizes.nbytes


def test_a_damaged_file_and_other_settings_are_named(tmp_path):
    fingerprints(["今天"], Dedup()).save(tmp_path / "unit")
    with pytest.raises(UserError, match="other settings of dedup"):
        decide([tmp_path / "unit"], Dedup(bands=10), None, BUDGET, tmp_path)
    (tmp_path / "unit").write_bytes((tmp_path / "unit").read_bytes()[:-100])
    with pytest.raises(UserError, match="unit is not a whole file of fingerprints"):
        Fingerprints.load(tmp_path / "unit")


def test_shingle_sets_are_those_of_the_definition_and_never_cross_texts():
    texts = corpus(1, documents=40, letters=60)
    sets = shingle_sets(texts, 5)
    for (a, b), (x, y) in zip(combinations(texts, 2), combinations(sets, 2), strict=True):
        assert jaccard(x, y) == similarity(a, b)


@pytest.mark.parametrize("size", [1, 5, 40, 150, 2000])
def test_a_signature_estimates_the_similarity_of_sets_of_any_size(size):
    """Mean and spread over 400 pairs of sets; a slot agrees with probability s, and 120 slots spread by 0.04 at most."""
    numbers = np.random.default_rng(0).integers(0, 2**64, (400, 2 * size), np.uint64)
    shared_part = max(1, size // 2)
    a, b = numbers[:, :size], numbers[:, size - shared_part : 2 * size - shared_part]
    true = shared_part / (2 * size - shared_part)
    counts = np.full(400, size)
    estimates = (minhash(a.ravel(), counts, 120) == minhash(b.ravel(), counts, 120)).mean(axis=1)
    assert abs(estimates.mean() - true) < 0.01
    assert estimates.std() < 1.15 * (true * (1 - true) / 120) ** 0.5 + 1e-9


def test_repeated_shingles_count_once():
    hashes = np.random.default_rng(1).integers(0, 2**64, 50, np.uint64)
    once, twice = (minhash(h, np.array([len(h)]), 120) for h in (hashes, np.concatenate([hashes, hashes[::-1]])))
    np.testing.assert_array_equal(once, twice)


# Who goes


@trials(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.7, 0.9]))
def test_who_goes_is_similar_to_one_that_stays_and_no_close_pair_stays(tmp_path_factory, seed, threshold):
    texts = corpus(seed, documents=40, letters=200)
    decisions = decided([texts[:11], [], texts[11:]], tmp_path_factory.mktemp("scratch"), Dedup(threshold=threshold))
    for number in np.flatnonzero(decisions.verdicts == NEAR):
        original = int(decisions.originals[number])
        assert original < number and decisions.verdicts[original] == KEEP
        assert similarity(texts[number], texts[original]) >= threshold
    for number in np.flatnonzero(decisions.verdicts == EXACT):
        first = texts.index(texts[number])  # which may have gone as a near copy: then what stays is the original of both
        assert decisions.originals[number] == (first if decisions.verdicts[first] == KEEP else decisions.originals[first])
        assert decisions.verdicts[decisions.originals[number]] == KEEP
    for a, b in combinations(np.flatnonzero(decisions.verdicts == KEEP), 2):
        assert similarity(texts[a], texts[b]) < max(0.9, threshold) and texts[a] != texts[b]


def test_a_chain_of_edits_takes_only_what_is_similar_to_one_that_stays(tmp_path):
    dice = random.Random(5)
    a = story(dice, 1000)
    b = edited(a, 0.025, dice)
    c = edited(b, 0.025, dice)
    assert similarity(a, b) > 0.75 and similarity(b, c) > 0.75 and similarity(a, c) < 0.7
    assert decided([[a, b, c]], tmp_path).verdicts.tolist() == [KEEP, NEAR, KEEP]
    assert decided([[b, a, c]], tmp_path).verdicts.tolist() == [KEEP, NEAR, NEAR]


def test_neither_memory_nor_units_nor_spilling_change_the_result(tmp_path, monkeypatch):
    texts = [text + "\n" + "页脚说明" * (4 + n % 3) for n, text in enumerate(corpus(2, documents=400))]
    settings = Dedup(lines=3)
    whole = decided([texts], tmp_path, settings)
    assert min(whole.counts[key] for key in ("exact", "near", "lines")) > 0
    monkeypatch.setattr(near, "TEXT_CHARACTERS", 1000)
    monkeypatch.setattr(near, "SHINGLED_CHARACTERS", 500)
    for memory, cuts, parts in (
        (0, [400], 16),
        (60_000, [150, 400], 256),
        (BUDGET, [0, 1, 7, 399, 400], 256),
        (0, [200, 400], 3),
    ):
        monkeypatch.setattr(index, "MOST_PARTS", parts)
        units = [texts[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
        other = decided(units, tmp_path, settings, memory)
        np.testing.assert_array_equal(other.verdicts, whole.verdicts)
        np.testing.assert_array_equal(other.originals, whole.originals)
        np.testing.assert_array_equal(other.lines, whole.lines)
        assert other.counts == whole.counts
        assert memory == BUDGET or other.bytes_per_document["memory"] < whole.bytes_per_document["memory"] / 2
    assert not list(tmp_path.iterdir())


def test_the_memory_is_kept_whatever_the_number_of_documents(tmp_path):
    """9,000 documents, two thirds of them near copies, whose index would take 9 MB."""
    dice = np.random.default_rng(0)
    settings, n = Dedup(), 9_000
    empty = fingerprints([], settings)
    for unit in range(6):
        signature = dice.integers(0, 1 << 16, (20, n // 6, 6), np.uint16)
        signature[:, n // 18 :] = signature[:, dice.integers(0, n // 18, n // 9)]
        exact, sizes = dice.integers(0, 2**64, (n // 6, 2), np.uint64), np.full(n // 6, 400, np.uint32)
        replace(empty, exact=exact, sizes=sizes, signature=signature).save(tmp_path / f"{unit}")
    peaks = {}
    for memory in 1 << 30, 1 << 20:
        tracemalloc.start()
        decisions = decide(
            [tmp_path / f"{unit}" for unit in range(6)],
            settings,
            lambda places: ["今天天气很好"] * len(places),
            memory,
            tmp_path / "scratch",
        )
        peaks[memory] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert decisions.counts["near"] > 0.66 * n
    assert peaks[1 << 30] > 7 << 20 and peaks[1 << 20] < 3 << 20  # 2 MB for a batch of texts and what is read


def test_texts_are_asked_for_once_in_order_and_only_those_of_candidates(tmp_path):
    texts = corpus(3, documents=200)
    asked = []

    def read(places):
        assert len({unit for unit, _ in places}) == 1
        asked.extend(places)
        return [texts[100 * unit + position] for unit, position in places]

    units, shares = [fingerprints(texts[:100], Dedup()), fingerprints(texts[100:], Dedup())], []
    decisions = decide(units, Dedup(), read, BUDGET, tmp_path, shares.append)
    assert asked == sorted(set(asked)) and len(asked) == decisions.counts["candidates"] < 150
    assert sum(shares) == pytest.approx(1)


def test_five_thousand_versions_of_a_page_are_as_many_comparisons(tmp_path):
    dice = random.Random(4)
    page = story(dice, 200)
    decisions = decided([[edited(page, 0.01, dice) for _ in range(5000)]], tmp_path)
    assert decisions.counts["near"] >= 4990 and decisions.counts["compared"] < 6000


def test_decisions_come_back_from_their_file(tmp_path):
    texts = corpus(6, documents=50)
    made = decided([texts[:20], texts[20:]], tmp_path)
    made.save(tmp_path / "decisions")
    read = Decisions.load(tmp_path / "decisions")
    assert read.counts == made.counts and read.of(1).tolist() == made.verdicts[20:].tolist()
    assert [read.original(1, n) for n in range(30)] == [made.original(1, n) for n in range(30)]


def test_nothing_at_all_is_decided_about_nothing(tmp_path):
    for units in [], [[]], [[], ["今天天气很好"], []]:
        assert decided(units, tmp_path, Dedup(lines=2)).counts["near"] == 0


# Lines


def test_a_line_of_many_documents_goes_from_all_of_them(tmp_path):
    dice = random.Random(7)
    footer, heading = "版权所有，未经许可不得转载！", "第一章 总则"
    texts = [f"{heading}\n{story(dice)}\n{footer}\n{story(dice)}\n {footer}" for _ in range(5)]
    for least, gone in ((5, True), (6, False)):
        settings = Dedup(lines=least)
        lines = decided([texts], tmp_path, settings).lines
        left = without_lines(texts, lines, settings.min_line_chars)
        assert left == ([text.replace(f"\n {footer}", "").replace(f"\n{footer}", "") for text in texts] if gone else texts)


def test_copies_of_one_document_do_not_make_its_lines_boilerplate(tmp_path):
    dice = random.Random(8)
    text = "\n".join(story(dice, 60) for _ in range(10))
    copies = [text, text + "。", *(text + "\n" + story(dice, 20) for _ in range(5))]
    decisions = decided([copies], tmp_path, Dedup(lines=2))
    assert decisions.verdicts.tolist() == [KEEP, EXACT] + [NEAR] * 5 and not len(decisions.lines)


@trials(max_examples=100, deadline=None)
@given(st.lists(st.text("一二三A ，\n𠀀", max_size=12), max_size=6))
def test_lines_hashed_in_a_batch_are_the_lines_removed_from_a_text(texts):
    settings = Dedup(lines=2, min_line_chars=3)
    made = fingerprints(texts, settings)
    start = 0
    for text, count in zip(texts, made.line_counts.tolist(), strict=True):
        own = made.lines[start : start + count]
        start += count
        short = [line for line in text.split("\n") if len("".join(line.split()).replace("，", "").encode("utf-16-le")) < 6]
        assert without_lines([text], own, 3) == ["\n".join(short)]
        assert len(set(own.tolist())) == count
    assert start == len(made.lines)
    every = np.unique(made.lines)  # of a batch the same goes as of its texts one by one
    for drop in every, every[::2]:
        assert without_lines(texts, drop, 3) == [without_lines([text], drop, 3)[0] for text in texts]


def test_fingerprints_of_a_large_unit_are_written_in_parts_and_are_the_same_bytes(tmp_path, monkeypatch):
    texts = [text + "\n" + "页脚说明" * 4 for text in corpus(4, documents=70)]
    for settings in Dedup(lines=3), Dedup(near=False), Dedup(exact=False, lines=2):
        Fingerprints.joined([fingerprints(texts, settings)], settings).save(tmp_path / "whole")
        for part in 7, 70, 1000:
            monkeypatch.setattr(sys.modules["cngpt.corpus.dedup.fingerprints"], "PART", part)
            writer = FingerprintWriter(tmp_path / "parts", settings)
            for first in range(0, 70, 5):
                writer.add(texts[first : first + 5])
            writer.close()
            assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["parts", "whole"]


# Settings


@pytest.mark.parametrize(
    "key, value",
    [
        *(("threshold", value) for value in (2, 0, "hoch", True)),
        *(("shingle", 0), ("shingle", True), ("bands", 1.5), ("rows", 0)),
        *(("lines", 1), ("lines", -3), ("min_line_chars", 0), ("exact", 1), ("near", "no")),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError, match=f"^dedup.{key}={show(value)}: ") as error:
        Dedup(**{key: value})
    assert "\n" not in str(error.value)


def test_a_signature_that_is_too_long_is_refused():
    with pytest.raises(ConfigError, match=r"^dedup.bands=200 x dedup.rows=6 is 1200 slots"):
        Dedup(bands=200)
