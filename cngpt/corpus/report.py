"""What happened to the documents: counted, as a dict for report.json, as a table and a progress bar for a person."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cngpt.corpus.document import EXAMPLES, Tally, drawn, sample_key, writable
from cngpt.corpus.resumable import CannotResume

RULE_DID = ("changed", "characters", "dropped")  # what is counted of a rule
SHOWN_UNKNOWN = 20  # of the commonest characters that became [UNK]
SHOWN_CHARACTERS = 1000  # of a document before and after
LEAD = 60  # of them before the first difference
# the fields of an Account, by their kind
COUNTERS = ("counts", "by_source", "rules", "unknown", "lengths")
TALLIES = ("dropped", "skipped")


@dataclass
class Account:
    """What happened to the documents; accounts of units add up to that of the whole, in whatever order."""

    counts: Counter = field(default_factory=Counter)  # read, cleaned, kept, bytes, unknown
    by_source: Counter = field(default_factory=Counter)  # (source, what)
    rules: Counter = field(default_factory=Counter)  # as Cleaner.done: (rule, source, what)
    unknown: Counter = field(default_factory=Counter)  # characters that became [UNK]
    lengths: Counter = field(default_factory=Counter)  # documents, by the number of binary digits of their characters
    dropped: Tally = field(default_factory=Tally)
    skipped: Tally = field(default_factory=Tally)
    duplicates: dict = field(default_factory=dict)  # as dedup.decide counts them
    shown: dict[str, list[dict]] = field(default_factory=dict)  # by what was done: {"id", "before", "after"}, drawn at random

    def show(self, what: str, id: str, before: str, after: str) -> None:
        """Perhaps keeps this document as an example of what was done to it."""
        if before == after or not self.wants(what, id):
            return
        start = first_difference(before, after)
        before, after = (writable(text[start : start + SHOWN_CHARACTERS]) for text in (before, after))
        self._draw(what, [{"id": writable(id), "from": start, "before": before, "after": after}])

    def wants(self, what: str, id: str) -> bool:
        """Whether `show` would keep this one, as things stand."""
        kept = self.shown.get(what, [])
        return len(kept) < EXAMPLES or sample_key(id) <= sample_key(kept[-1]["id"])

    def _draw(self, what: str, more: list[dict]) -> None:
        self.shown[what] = drawn([*self.shown.get(what, []), *more], lambda example: example["id"])

    def __iadd__(self, other: "Account") -> "Account":
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in TALLIES:
            getattr(self, name).merge(getattr(other, name))
        for what, examples in other.shown.items():
            self._draw(what, examples)
        return self

    def as_dict(self) -> dict:
        counters = {name: [[key, n] for key, n in sorted(getattr(self, name).items())] for name in COUNTERS}
        tallies = {name: getattr(self, name).as_dict() for name in TALLIES}
        return {**counters, **tallies, "duplicates": self.duplicates, "shown": self.shown}

    @classmethod
    def from_dict(cls, value: dict) -> "Account":
        account = cls(duplicates=value["duplicates"], shown=value["shown"])
        for name in COUNTERS:
            getattr(account, name).update({tuple(key) if isinstance(key, list) else key: n for key, n in value[name]})
        for name in TALLIES:
            setattr(account, name, Tally.from_dict(value[name]))
        return account


def first_difference(before: str, after: str) -> int:
    """LEAD characters before the first difference, or 0."""
    same, most = 0, min(len(before), len(after))
    while same < most:  # by halves: comparing slices is a hundred times as fast as characters one by one
        half = (same + most + 1) // 2
        if before[same:half] == after[same:half]:
            same = half
        else:
            most = half - 1
    return same - LEAD if same > LEAD else 0


def report_of(account: Account) -> dict:
    sources: dict[str, dict[str, int]] = {}
    for (source, what), number in account.by_source.items():
        sources.setdefault(source, {})[what] = number
    read, kept, unknown = (account.counts[key] for key in ("read", "kept", "unknown"))
    tokens = sum(source.get("tokens", 0) for source in sources.values())
    return {
        "documents": {"read": read, "kept": kept, "dropped": read - kept, "skipped": account.skipped.counts.total()},
        "sources": sources,
        "rules": rules_of(account.rules),
        "duplicates": account.duplicates,
        "dropped": account.dropped.as_dict(),
        "skipped": account.skipped.as_dict(),
        "lengths": {f"{1 << (bits - 1) if bits else 0:,}": n for bits, n in sorted(account.lengths.items())},
        "shown": account.shown,
        "unknown": {
            "tokens": unknown,
            "share": unknown / tokens if tokens else 0.0,
            "characters": sorted(account.unknown.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_UNKNOWN],
        },
        "bytes": account.counts["bytes"],
    }


def rules_of(counted: Counter) -> dict[str, dict[str, dict[str, int]]]:
    """rule -> source -> documents changed and dropped, characters taken away."""
    rules: dict[str, dict[str, dict[str, int]]] = {}
    for (rule, source, what), number in sorted(counted.items()):
        rules.setdefault(rule, {}).setdefault(source, dict.fromkeys(RULE_DID, 0))[what] = number
    return rules


def nothing_kept(sources: Sequence[Mapping], report: dict) -> CannotResume:
    return CannotResume(f"nothing was kept of {len(sources)} sources: {reasons(report)}")


def reasons(report: dict) -> str:
    counted = {**report["skipped"], **report.get("dropped", {})}
    parts = [f"{reason} ({n['count']:,} times, as in {(n['examples'] or ['?'])[0]})" for reason, n in counted.items()]
    return "; ".join(parts) or "the files are empty"


def show(report: dict) -> None:
    """The report as a short table on stderr; of texts that were not tokenized it has fewer lines."""
    documents = report["documents"]
    rows = [("documents read", f"{documents['read']:,}", f"{report['bytes'] / 1e6:.1f} MB in {report['seconds']:.1f} s")]
    for name, size in report["sources"].items():
        rows.append((f"  {name}", f"{size.get('kept', 0):,}", f"kept, {size.get('characters', 0):,} characters"))
    for reason, what in report["dropped"].items():
        rows.append((f"dropped: {reason}", f"{what['count']:,}", what["examples"][0]))
    rows += skipped_rows(report["skipped"])
    if "train" in report:
        for part in "train", "valid":
            rows.append((part, f"{report[part]['documents']:,}", f"{report[part]['tokens']:,} tokens"))
        rows.append(("characters", f"{report['characters']:,}", f"{report['tokens_per_character']:.3f} tokens per character"))
        unknown = report["unknown"]
        if unknown["tokens"]:
            common = " ".join(f"{character} {number:,}" for character, number in unknown["characters"][:10])
            rows.append(("[UNK]", f"{unknown['tokens']:,}", f"{unknown['share']:.3%} of tokens: {common}"))
    print_rows(rows)
    if "train" in report and not report["valid"]["documents"] and documents["kept"] == 1:
        print("valid is empty: the corpus is one document. Of a .txt, data.split=line or blank makes several.", file=sys.stderr)


def skipped_rows(skipped: dict) -> list[tuple[str, str, str]]:
    return [(f"skipped: {reason}", f"{what['count']:,}", (what["examples"] or [""])[0]) for reason, what in skipped.items()]


def print_rows(rows: list[tuple[str, str, str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, expand=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(stderr=True).print(table)
