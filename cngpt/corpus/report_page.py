"""The report of task=prepare as one self-contained page: what went in, what came out, and why, with examples to judge by."""

import difflib
from html import escape

from cngpt import html
from cngpt.corpus.report import RULE_DID, first_difference

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
        html.bars(list(report["lengths"].items()), "characters, from", "documents"),
        "<h2>Commonest characters that the tokenizer does not know</h2>",
        html.table(["character", "code", "times"], [[c, f"U+{ord(c):04X}", n] for c, n in report["unknown"]["characters"]]),
        *examples(report["shown"]),
        "<h2>Seconds</h2>",
        html.table(["stage", "seconds"], [[name, round(seconds, 1)] for name, seconds in report["stages"].items()]),
    ]
    return html.document(f"What became of {', '.join(report['sources'])}", parts)


def overview(report: dict) -> str:
    documents = report["documents"]
    counted = {"documents read": documents["read"], "kept": documents["kept"], "dropped": documents["dropped"]}
    counted |= {"records not read": documents["skipped"], "characters": report["characters"], "tokens": report["tokens"]}
    facts = [(name, f"{number:,}") for name, number in counted.items()]
    facts.append(("tokens a character", f"{report['tokens_per_character']:.3f}"))
    facts.append(("[UNK] of all tokens", f"{report['unknown']['share']:.3%}"))
    return html.facts([*facts, ("documents for validation", f"{report['valid']['documents']:,}")])


def sources(counted: dict) -> str:
    keys = ("documents", "kept", "characters read", "characters", "tokens")
    rows = [[name, *(source.get(key, 0) for key in keys)] for name, source in counted.items()]
    return html.table(["source", "documents in", "kept", "characters in", "kept", "tokens"], rows)


def mixture(rows: list[dict]) -> str:
    """What train holds of each source; a document of valid comes once and is no part of it."""
    total, keys, cells = sum(row["train"]["tokens"] for row in rows) or 1, ("source", "weight", "documents", "tokens"), []
    for row in rows:
        tokens = row["train"]["tokens"]
        cells.append([*map(row.get, keys), row["valid"]["tokens"], tokens, f"{tokens / total:.1%}", f"{row['times']:.2f} times"])
    return html.table([*keys, "of them for validation", "tokens in one pass", "share of the pass", "read"], cells)


def rules(report: dict) -> list[str]:
    """What each did, and behind its name the same for each source, with examples."""
    head = ["documents changed", "characters taken away", "documents dropped"]
    names = dict.fromkeys([*report["settings"]["rules"], *report["rules"]])  # dedup adds some
    totals = {name: [sum(did[what] for did in report["rules"].get(name, {}).values()) for what in RULE_DID] for name in names}
    parts = [html.table(["rule", *head], [[name, *total] for name, total in totals.items()])]
    for name in (name for name in names if name in report["rules"]):
        did_to, pairs = report["rules"][name], report["shown"].get(f"rule {name}", [])
        inside = html.table(["source", *head], [[source, *(did[what] for what in RULE_DID)] for source, did in did_to.items()])
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


def duplicates(counted: dict) -> list[str]:
    rows = [[DUPLICATES.get(name, name), round(number, 1)] for name, number in counted.items()]
    return ["<h2>Duplicates</h2>", html.table(["", "number"], rows)] if rows else []


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
    start = first_difference(before, after)
    cut = "…" if start or example["from"] else ""
    open_end = max(len(before), len(after)) > start + MARKED
    before, after = before[start : start + MARKED], after[start : start + MARKED]
    marked, new = cut, cut
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old, fresh = escape(before[a:b]), escape(after[c:d])
        if open_end and (a == len(before) or c == len(after)):
            kind = "equal"  # its counterpart is beyond the cut
        marked += old if kind == "equal" else f"<del>{old}</del>" if old else ""
        new += fresh if kind == "equal" else f"<ins>{fresh}</ins>" if fresh else ""
    heads = f'<p class="id">{escape(example["id"])}</p><p class="head">{escape(left)}</p><p class="head">{escape(right)}</p>'
    end = "…" if open_end else ""
    return f'<div class="pair">{heads}<pre>{marked}{end}</pre><pre>{new}{end}</pre></div>'
