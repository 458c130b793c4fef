"""What a benchmark of the preparation reads: a fair part of the corpus, and text that looks like English."""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cngpt.corpus.document import Document, Tally
from cngpt.corpus.readers import open_source, without_weight

STEMS = "act build call do form go hold join keep load make name open play read set take use"


def evenly(sources: Sequence[Mapping], megabytes: float) -> list[Document]:
    """About so many MB of documents, an equal share of each file (of a small one, all), interleaved."""
    readers = [open_source(without_weight(source)) for source in sources]
    raws = [(reader, raw) for reader in readers for raw in reader.all_raws(Tally())]
    random.Random(0).shuffle(raws)  # of 800,000 files the first that are enough
    raws.sort(key=lambda pair: pair[1].size)  # small ones first: what they lack, the larger ones give
    if sum(raw.size for _, raw in raws) > 20e6 * megabytes:
        random.Random(0).shuffle(raws)
    missing, taken = megabytes * 1e6, []
    for number, (reader, raw) in enumerate(raws):
        share, size, documents = max(missing / (len(raws) - number), 1e5), 0, []
        for document in reader.documents_of(raw, Tally()):
            documents.append(document)
            size += bytes_of(document)
            if size >= share:
                break
        missing -= size
        taken += [((index + 0.5) / len(documents), number, document) for index, document in enumerate(documents)]
        if missing <= 0:
            break
    return [document for _, _, document in sorted(taken, key=lambda entry: entry[:2])]


def bytes_of(document: Document) -> int:
    return len(document.title.encode(errors="replace")) + len(document.text.encode(errors="replace"))


def write(documents: Sequence[Document], path: Path) -> int:
    """Json-lines; the bytes of their titles and texts."""
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps({"title": d.title, "text": d.text}, ensure_ascii=False) + "\n" for d in documents)
    return sum(map(bytes_of, documents))


def latin(texts: Sequence[str], megabytes: float, seed: int = 0) -> list[str]:
    """Text that reads like English and is none: words of these texts, as often as they stand in them, in sentences; one in
    twenty is a word that never came before, as names and numbers are."""
    words = Counter(word for text in texts for word in re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*", text))
    if len(words) < 1000:  # hardly any
        words.update(f"{a}{b}" for a in ("", "pre", "un", "re", "de", "inter", "over") for b in STEMS.split())
    rng, documents, size = random.Random(seed), [], 0
    kinds, sums = list(words), list(itertools.accumulate(words.values()))
    while size < megabytes * 1e6:
        sentences = []
        for _ in range(rng.randint(5, 40)):
            sentence = rng.choices(kinds, cum_weights=sums, k=rng.randint(4, 24))
            sentence = [_new_word(rng) if rng.random() < 0.05 else word for word in sentence]
            commas = ", ".join(" ".join(sentence[n : n + 9]) for n in range(0, len(sentence), 9))
            sentences.append(f"{commas[0].upper()}{commas[1:]}.")
        documents.append(" ".join(sentences))
        size += len(documents[-1])
    return documents


def _new_word(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return f"{rng.randint(1, 99_999)}"
    return "".join(rng.choices("aeioubcdfglmnprst", k=rng.randint(4, 11)))
