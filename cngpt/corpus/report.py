"""What happened to the documents: counted, as a dict for report.json, as a table and a progress bar for a person."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cngpt.corpus.document import Tally
from cngpt.errors import UserError

SHOWN_UNKNOWN = 20  # of the commonest characters that became [UNK]


@dataclass
class Account:
    """What happened to the documents; accounts of batches add up to that of the whole."""

    counts: Counter = field(default_factory=Counter)  # read, kept, bytes, unknown
    by_source: Counter = field(default_factory=Counter)  # (source, what)
    changed: Counter = field(default_factory=Counter)  # documents, by rule
    unknown: Counter = field(default_factory=Counter)  # characters that became [UNK]
    dropped: Tally = field(default_factory=Tally)

    def __iadd__(self, later: "Account") -> "Account":
        self.counts += later.counts
        self.by_source += later.by_source
        self.changed += later.changed
        self.unknown += later.unknown
        self.dropped.merge(later.dropped)
        return self


def report_of(account: Account, skipped: Tally) -> dict:
    sources: dict[str, dict[str, int]] = {}
    for (source, what), number in account.by_source.items():
        sources.setdefault(source, {})[what] = number
    read, kept, unknown = (account.counts[key] for key in ("read", "kept", "unknown"))
    tokens = sum(source.get("tokens", 0) for source in sources.values())
    return {
        "documents": {"read": read, "kept": kept, "dropped": read - kept, "skipped": skipped.counts.total()},
        "sources": sources,
        "changed": dict(account.changed.most_common()),
        "dropped": account.dropped.as_dict(),
        "skipped": skipped.as_dict(),
        "unknown": {
            "tokens": unknown,
            "share": unknown / tokens if tokens else 0.0,
            "characters": sorted(account.unknown.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_UNKNOWN],
        },
        "bytes": account.counts["bytes"],
    }


def nothing_kept(sources: Sequence[Mapping], report: dict) -> UserError:
    return UserError(f"nothing was kept of {len(sources)} sources: {reasons(report)}")


def reasons(report: dict) -> str:
    found = {**report["skipped"], **report.get("dropped", {})}
    parts = [f"{reason} ({what['count']:,} times, as in {what['examples'][:1]})" for reason, what in found.items()]
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
