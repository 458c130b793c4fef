"""A tokenizer of one's own, learned from texts by the trainers of `tokenizers`."""

import json
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from cngpt.errors import UserError
from cngpt.tokens.tokenizer import SURROGATE, Tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool = False, name: str = "wordpiece") -> Tokenizer:
    """At most `vocab_size` entries: [PAD] [UNK] [CLS] [SEP] [MASK] and the line end, ASCII, characters, then pieces of words.

    Other single characters take up to three quarters of the vocabulary, the most frequent ones where not all have room.
    The same texts give the same vocabulary. The WordPiece trainer of `tokenizers` gives ids in the order of a hash map, so its BPE
    trainer is used instead, on words in which a letter and its `##` form are two different characters.
    """
    controls = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\n"]
    ascii_signs = [c for c in map(chr, range(0x21, 0x7F)) if not (lowercase and c.isupper())]
    fixed = [*controls, *ascii_signs, *("##" + c for c in ascii_signs if c.isalnum())]
    if vocab_size < len(fixed):
        raise UserError(f"vocab_size={vocab_size} is too small for WordPiece; control tokens and ASCII alone are {len(fixed)}")

    words, frequency = _count_words(texts, lowercase), Counter()
    for word, n in words.items():
        for piece in _characters(word):
            frequency[piece] += n
    ranked = sorted(frequency.keys() - set(fixed), key=lambda piece: (-frequency[piece], piece))
    tokens = [*fixed, *ranked[: max(0, vocab_size * 3 // 4 - len(fixed))]]
    tokens += _merges(words, tokens, vocab_size - len(tokens))
    return Tokenizer.from_vocab(tokens, name=name, lowercase=lowercase)


def _count_words(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    normalizer, cutter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words = Counter()
    for text in texts:
        words.update(word for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(_without_surrogates(text))))
    return words


def _merges(words: Counter[str], tokens: list[str], room: int) -> list[str]:
    """Up to `room` pieces of two characters or more, in the order in which BPE merges them."""
    # each entry is written as one character, so that BPE sees a letter and its ## form as different
    sign_of = {entry: chr(0x10000 + n) for n, entry in enumerate(tokens)}
    spelled = {word: [sign_of.get(piece) for piece in _characters(word)] for word in words if 1 < len(word) <= 100}
    counts = {"".join(signs): words[word] for word, signs in spelled.items() if None not in signs}
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=len(set().union(*counts)) + room, min_frequency=2, show_progress=False)
    backend.train_from_iterator((f"{word} " * n for word, n in counts.items()), trainer)
    vocab = backend.get_vocab()
    pieces = ([tokens[ord(s) - 0x10000] for s in signs] for signs in sorted(vocab, key=vocab.__getitem__) if len(signs) > 1)
    return [first + "".join(piece[2:] for piece in rest) for first, *rest in pieces]


def _characters(word: str) -> list[str]:
    return [word[0], *("##" + c for c in word[1:])]


def train_bpe(texts: Iterable[str], vocab_size: int, lowercase: bool = False, name: str = "bpe") -> Tokenizer:
    """Byte-level BPE as in GPT-2: <|pad|>, <|endoftext|>, 256 bytes, then merges up to `vocab_size`; nothing is unknown to it.

    It gives back every text as it was, so lowercase=True is refused.
    """
    if lowercase:
        raise UserError("lowercase=true: byte-level BPE keeps case; leave it out, or take kind=wordpiece")
    controls, alphabet = ["<|pad|>", "<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < (least := len(controls) + len(alphabet)):
        raise UserError(f"vocab_size={vocab_size} is too small for byte-level BPE; it needs {least} or more")
    backend = Backend(models.BPE())
    # else 在Ubuntu may become one token
    split = pre_tokenizers.Split(Regex(r"\p{Han}+"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=controls, initial_alphabet=sorted(alphabet), min_frequency=2, show_progress=False
    )
    backend.train_from_iterator(map(_without_surrogates, texts), trainer)
    spec = json.loads(backend.to_str())
    spec["decoder"]["cngpt"] = {"name": name, "manner": "hf", "eos": "<|endoftext|>"}
    return Tokenizer(spec)


def _without_surrogates(text: str) -> str:
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


# by the key `kind` of task=tokenizer: (texts, vocab_size, lowercase) -> Tokenizer
TRAINERS = {"wordpiece": train_wordpiece, "bpe": train_bpe}
