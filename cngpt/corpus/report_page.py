"""The report of task=prepare as one self-contained page: what went in, what came out, and why, with examples to judge by."""

import difflib
from html import escape

from cngpt import page
from cngpt.corpus.report import RULE_DID, where_they_part

MARKED = 400  # characters of an example in which differences are marked
KEPT = 160  # characters of a document that is only shown as kept

DUPLICATES = {
    "documents": "documents compared",
    "exact": "copies, to the letter but for spaces and punctuation",
    "near": "near copies",
    "candidates": "pairs that looked alike",
    "compared": "pairs compared character by character",
    "lines": "different lines that came too often",
}


def render(report: dict) -> str:
    """report.json -> HTML without scripts and links to elsewhere."""
    parts = [
        overview(report),
        "<h2>Sources</h2>",
        sources(report["sources"]),
        "<h2>One pass over the shards</h2>",
        mixture(report["mixture"]),
        "<h2>Rules, in their order</h2>",
        *rules(report),
        "<h2>Kept, and dropped</h2>",
        kept_and_dropped(report),
        "<h2>Not read, and why</h2>",
        *(reason(name, what) for name, what in report["skipped"].items()),
        "" if report["skipped"] else "<p>none</p>",
        *duplicates(report["duplicates"]),
        "<h2>Lengths of the documents kept</h2>",
        page.bars(list(report["lengths"].items()), "characters, from", "documents"),
        "<h2>Commonest characters that the tokenizer does not know</h2>",
        page.table(["character", "code", "times"], [[c, f"U+{ord(c):04X}", n] for c, n in report["unknown"]["characters"]]),
        *examples(report["shown"]),
        "<h2>Seconds</h2>",
        page.table(["stage", "seconds"], [[name, round(seconds, 1)] for name, seconds in report["stages"].items()]),
    ]
    return page.document(f"What became of {', '.join(report['sources'])}", parts)


def overview(report: dict) -> str:
    documents, unknown = report["documents"], report["unknown"]
    return page.facts(
        [
            ("documents read", f"{documents['read']:,}"),
            ("kept", f"{documents['kept']:,}"),
            ("dropped", f"{documents['dropped']:,}"),
            ("records not read", f"{documents['skipped']:,}"),
            ("characters", f"{report['characters']:,}"),
            ("tokens", f"{report['tokens']:,}"),
            ("tokens a character", f"{report['tokens_per_character']:.3f}"),
            ("[UNK] of all tokens", f"{unknown['share']:.3%}"),
            ("documents for validation", f"{report['valid']['documents']:,}"),
        ]
    )


def sources(found: dict) -> str:
    columns = {
        "documents": "documents in",
        "kept": "kept",
        "characters read": "characters in",
        "characters": "kept",
        "tokens": "tokens",
    }
    rows = [[name, *(source.get(key, 0) for key in columns)] for name, source in found.items()]
    return page.table(["source", *columns.values()], rows)


def mixture(rows: list[dict]) -> str:
    """What train holds of each source; a document of valid comes once and is no part of it."""
    whole = sum(row["train"]["tokens"] for row in rows) or 1
    head = [
        "source",
        "weight",
        "documents",
        "tokens",
        "of them for validation",
        "tokens in one pass",
        "share of the pass",
        "read",
    ]
    return page.table(
        head,
        [
            [
                row["source"],
                row["weight"],
                row["documents"],
                row["tokens"],
                row["valid"]["tokens"],
                row["train"]["tokens"],
                f"{row['train']['tokens'] / whole:.1%}",
                f"{row['times']:.2f} times",
            ]
            for row in rows
        ],
    )


def rules(report: dict) -> list[str]:
    """What each did, and behind its name the same for each source, with examples."""
    head = ["documents changed", "characters taken away", "documents dropped"]
    names = dict.fromkeys([*report["settings"]["rules"], *report["rules"]])  # dedup adds some
    totals = {name: [sum(did[what] for did in report["rules"].get(name, {}).values()) for what in RULE_DID] for name in names}
    parts = [page.table(["rule", *head], [[name, *total] for name, total in totals.items()])]
    for name in (name for name in names if name in report["rules"]):
        did_to, pairs = report["rules"][name], report["shown"].get(f"rule {name}", [])
        inside = page.table(["source", *head], [[source, *(did[what] for what in RULE_DID)] for source, did in did_to.items()])
        inside += "".join(side_by_side(pair, "before", "after") for pair in pairs)
        parts.append(f"<details><summary>{escape(name)}, by source, with examples</summary>{inside}</details>")
    return parts


def kept_and_dropped(report: dict) -> str:
    """Two columns to compare: documents that stayed, and those that went, with the reason."""
    kept = "".join(
        f"<li>{escape(example['id'])}: {escape(example['after'][:KEPT])}</li>" for example in report["shown"].get("kept", [])
    )
    dropped = "".join(reason(name, what, True) for name, what in report["dropped"].items()) or "<p>none</p>"
    return f'<div class="pair"><p class="head">kept</p><p class="head">dropped</p><ul>{kept}</ul><div>{dropped}</div></div>'


def reason(name: str, what: dict, open: bool = False) -> str:
    shown = "".join(f"<li>{escape(example)}</li>" for example in what["examples"])
    return f"<details{' open' * open}><summary>{escape(name)}: <b>{what['count']:,}</b></summary><ul>{shown}</ul></details>"


def duplicates(found: dict) -> list[str]:
    rows = [
        [DUPLICATES.get(name, name), round(number, 1)] for name, number in found.items() if not isinstance(number, list | dict)
    ]
    return ["<h2>Duplicates</h2>", page.table(["", "number"], rows)] if rows else []


def examples(shown: dict[str, list[dict]]) -> list[str]:
    parts = []
    for what, pairs in shown.items():
        if what == "kept" or what.startswith("rule "):  # shown above
            continue
        copies = what.startswith("the document that stayed")
        left, right = what.split(", and its ") if copies else ("before", "after")
        parts.append(f"<h2>{'Duplicates' if copies else 'Before and after'}: {escape(right if copies else what)}</h2>")
        parts += [side_by_side(pair, left, right) for pair in pairs]
    return parts


def side_by_side(example: dict, left: str, right: str) -> str:
    """The two texts around their first difference: what only the left one has is marked there, and so on the right."""
    before, after = example["before"], example["after"]
    start = where_they_part(before, after)
    cut = "…" if start or example["from"] else ""
    open_end = max(len(before), len(after)) > start + MARKED
    before, after = before[start : start + MARKED], after[start : start + MARKED]
    marked, new = cut, cut
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old, fresh = escape(before[a:b]), escape(after[c:d])
        if open_end and (a == len(before) or c == len(after)):
            kind = "equal"  # it has no fellow because the other side is cut off here
        marked += old if kind == "equal" else f"<del>{old}</del>" if old else ""
        new += fresh if kind == "equal" else f"<ins>{fresh}</ins>" if fresh else ""
    heads = f'<p class="id">{escape(example["id"])}</p><p class="head">{escape(left)}</p><p class="head">{escape(right)}</p>'
    end = "…" if open_end else ""
    return f'<div class="pair">{heads}<pre>{marked}{end}</pre><pre>{new}{end}</pre></div>'
