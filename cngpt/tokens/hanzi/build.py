"""Makes the bundled vocabulary: python -m cngpt.tokens.hanzi.build

Nothing is read but this file, english.txt and Python's gb2312 codec, so the result is the same byte for byte everywhere.
Entries, in order: control tokens and the line end; ASCII; punctuation and symbols; the 6,763 characters of GB 2312 in its own
order (3,755 common ones by sound, 3,008 by radical) and a few hundred that it lacks; numbers; English words and pieces. Case is kept.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from cngpt.tokens.hanzi import FILE, SIZE
from cngpt.tokens.tokenizer import Tokenizer

CONTROLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\n"]

# What GB 2312 writes with another code point (its dash and middle dot are U+2015 and U+30FB), and what came after it.
MARKS = "“”‘’—…·–‑•‧∙〇〜〝〞﹏﹑﹐﹒﹔﹕﹖﹗﹙﹚﹛﹜﹝﹞︰⁄"
SIGNS = "®©™€£¥µ²³½₂₃℉✓✔♥♪⭐㎡㎞㎏の"
ACCENTED = "äåæçëîïñôöøßÅÉÖÜ"
# To BERT's rules these are neither Chinese nor punctuation, so they are part of a word where they touch one (50℃, 3～5): they get
# a ## form too.
INSIDE = "±×÷∶√°′″℃℉＋＝～￥＄＜＞£€¥²³½₂₃㎡㎞㎏→←↑↓★☆○●□■◆▲△※®©™①②③④⑤⑥⑦⑧⑨⑩ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ〇"

# Characters outside GB 2312 that today's news and the names in it use, then those of older prose, the frequent ones first.
MORE_HANZI = (
    "镕喆堃昇玥祎玙珺垚淏昉旻赟瑄璟烜翀翯骉燚犇珮祐琯旸晞颙璠瑀玦琍浐洺瑥珣玠璗瓘珹珽瑢璘瑱琎玹珒琇晳暐昺晛曈"
    "炤煐熺焜燊皞翛誾闿馃骃骎鹮勠潟蹚訚氹筼筜埼滘埗邨塱磡垟溇堨埈漄岕杧瞭粿僰梿鄠泃龘鱀鲌鲉鲹獴囧嗐屌碁啰"
    "镠镈锜鑙嬛婳嫚妧媖姮嫄偲侂倓伃傕俛僎亶佢咁咗嘢哋嚟冇攞喺嘅嗰"
    "茝薳萩芃苾苼柟橦湉湜渼滉濛泚洸汧沄湣涢漷潏"
    "祇纔衹珪硃脩彧郤颎赹弇勣笽愔惇鄩顗崐抃穀郃綝畤悰悆詗颋頔彊璹纮繬昪釐癉馞伋鉷竑鄘瞡崟惲綎邠菑奭皀绖豨鋋頠訫栻窻鄫箓"
    "陁侁頫卬偓謩牂牠呎吋裡麵複閒餘鍾瞔鶸萛蠧傒愬蚡舖粧砲暱釆槑"
)

# English words and pieces of words, one a line, which fill the vocabulary. `##` continues a word. Greedy longest match makes every
# ASCII word out of these and single letters.
ENGLISH = FILE.with_name("english.txt")


def build() -> Tokenizer:
    tokens = list(dict.fromkeys(_entries()))
    assert len(tokens) == SIZE, f"{len(tokens):,} entries instead of {SIZE:,}: add to {ENGLISH.name} or take from it"
    return Tokenizer.from_vocab(tokens, name="hanzi", lowercase=False)


def _entries() -> Iterable[str]:
    ascii_signs = [chr(code) for code in range(0x21, 0x7F)]
    yield from CONTROLS
    yield from ascii_signs
    yield from ("##" + c for c in ascii_signs if c.isalnum())
    # rows 6 and 8: Greek and Pinyin; no Kana
    for char in [*MARKS, *_gb2312(1, 3), *SIGNS, *_gb2312(6, 6), *_gb2312(8, 8)[:26], *ACCENTED]:
        yield char
        if char in INSIDE or char.isalpha() or "０" <= char <= "９":
            yield "##" + char
    yield from _gb2312(16, 87)
    yield from MORE_HANZI
    two = [f"{n:02}" for n in range(100)]
    yield from two
    yield from ("##" + n for n in two)
    yield from (str(100 * n) for n in range(1, 11))
    yield from ("000", "##000")
    yield from (str(year) for year in range(1900, 2036))
    yield from ENGLISH.read_text(encoding="utf-8").splitlines()


def _gb2312(first_row: int, last_row: int) -> list[str]:
    """The characters of these rows of the standard's 94 x 94 table, without the ideographic space."""
    characters = []
    for row in range(first_row, last_row + 1):
        for cell in range(1, 95):
            char = bytes([0xA0 + row, 0xA0 + cell]).decode("gb2312", errors="ignore")
            if char and not char.isspace():
                characters.append(char)
    return characters


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    tokenizer = build()
    tokenizer.save(path)
    print(f"{path}: {tokenizer}")
