"""The corpora: which files belong to one, and which fields of a record make a Document."""

import re
from collections.abc import Iterator

from cngpt import files
from cngpt.corpus.document import Document, Progress, Tally
from cngpt.corpus.readers.raw import BROKEN, Raw, files_below, is_zip, lines, records, suffix, unzip
from cngpt.errors import ConfigError

TEXT_FIELDS = ("text", "content", "body", "article", "正文", "内容", "文本")  # tried in this order
TITLE_FIELDS = ("title", "headline", "标题")
TEXT_LIMIT = 16 << 20  # characters of a .txt that are held at once; a longer one becomes several documents


class Reader:
    """A corpus below `root`. A subclass says which files it wants (`raws`) and what is in one (`read`)."""

    name = ""
    layouts = ""  # what may lie below root, for the error when nothing does
    origin = ""  # where the corpus is to be had
    options: tuple[str, ...] = ()

    def __init__(self, root: str):
        self.root = str(root)
        if not files.exists(self.root):
            if not files.exists(f"{self.root}.zip"):
                raise ConfigError(f"data.root={self.root} is not there. Accepted: {self.layouts}.{self.origin}")
            self.root += ".zip"

    def is_data(self, name: str) -> bool:
        """Whether a file, or a member of a zip, holds documents."""
        raise NotImplementedError

    def part_of(self, name: str) -> str | None:
        """What a zip may hold a second time, beside its unpacked folder."""
        return name

    def raws(self, tally: Tally) -> Iterator[Raw]:
        """The files to read, in order; others are counted."""
        listed = list(files_below(self.root, tally))
        unpacked = {self.part_of(file.name) for file in listed if self.is_data(file.name)}
        for file in listed:
            if is_zip(file.name) and self.part_of(file.name) in unpacked:
                tally.add("zip beside its unpacked folder", file.name)
                continue
            for raw in unzip(file, tally):
                if self.is_data(raw.name):
                    yield raw
                else:
                    tally.add("other kind of file", raw.name)

    def read(self, raw: Raw, tally: Tally, progress: Progress) -> Iterator[Document]:
        raise NotImplementedError

    def all_raws(self, tally: Tally) -> list[Raw]:
        """All of `raws`. ConfigError when there is nothing to read."""
        raws = list(self.raws(tally))
        if not raws:
            raise ConfigError(f"data.root={self.root} holds nothing to read. Looked for: {self.layouts}.{self.origin}")
        return raws

    def size(self) -> int:
        """Bytes on disk. ConfigError when there is nothing to read."""
        return sum(raw.size for raw in self.all_raws(Tally()))

    def documents(self, tally: Tally, progress: Progress = lambda _: None) -> Iterator[Document]:
        """All documents. A file that breaks off gives what it held until then, and is counted."""
        for raw in self.raws(tally):
            yield from self.documents_of(raw, tally, progress)

    def documents_of(self, raw: Raw, tally: Tally, progress: Progress = lambda _: None) -> Iterator[Document]:
        try:
            for document in self.read(raw, tally, progress):
                if document.text and not document.text.isspace():
                    yield document
                else:
                    tally.add("empty", document.id)
        except BROKEN as error:
            reason = "unreadable file" if type(error) in (OSError, PermissionError, FileNotFoundError) else "broken archive"
            tally.add(reason, f"{raw.name}: {error}")


class Thucnews(Reader):
    """THUCNews: the folder name is the category, the first line the title."""

    name = "thucnews"
    layouts = "<category>/<number>.txt below it, or THUCNews.zip"
    origin = " THUCNews is at thuctc.thunlp.org"

    def is_data(self, name: str) -> bool:
        return "/" in name and name.lower().endswith(".txt")

    def part_of(self, name: str) -> str:
        return self.name

    def read(self, raw: Raw, tally: Tally, progress: Progress) -> Iterator[Document]:
        title, _, text = "\n".join(line for _, line in lines(raw, tally, progress)).partition("\n")
        yield Document(text, title, self.name, raw.name)


# set: (what its paths contain, field of the title, fields of the text)
SETS = {
    "wiki2019zh": ("wiki", "title", ("text",)),
    "news2016zh": ("news|new2016", "title", ("content",)),
    "baike2018qa": ("baike", "title", ("desc", "answer")),
    "webtext2019zh": ("web_?text", "title", ("desc", "content")),
    "translation2019zh": ("translation", None, ("chinese",)),
}


class NlpChineseCorpus(Reader):
    """The five sets of nlp_chinese_corpus, json-lines each, told apart by the names of their folders, files or zips."""

    name = "nlp_chinese_corpus"
    layouts = (
        "wiki_zh/AA/wiki_00 ..., new2016zh/news2016zh_train.json, baike2018qa/baike_qa_train.json, "
        "webtext2019zh/web_text_zh_train.json, translation2019zh/translation2019zh_train.json, or their zips, any of them"
    )
    origin = " nlp_chinese_corpus is at github.com/brightmart/nlp_chinese_corpus"
    options = ("sets",)

    def __init__(self, root: str, sets: list[str] | None = None):
        super().__init__(root)
        for name in sets or ():
            if name not in SETS:
                raise ConfigError(f"data.sources: sets holds {name!r}, which is none of {', '.join(SETS)}")
        self.sets = tuple(sets or SETS)

    def raws(self, tally: Tally) -> Iterator[Raw]:
        return (raw for raw in super().raws(tally) if self.part_of(raw.name) in self.sets)

    def read(self, raw: Raw, tally: Tally, progress: Progress) -> Iterator[Document]:
        source = self.part_of(raw.name)
        _, title_field, text_fields = SETS[source]
        for number, record in records(raw, tally, progress):
            id = f"{raw.id}:{number}"
            if text_fields[-1] not in record:
                tally.add("missing field", f"{id}: no {text_fields[-1]} among {', '.join(record)}")
                continue
            title = _text(record.get(title_field))
            *before, text = (_text(record.get(field)) for field in text_fields)
            # questions carry a description, which often is empty or the title once more
            before = [part for part in before if part.strip() and part.strip() not in (title.strip(), text.strip())]
            yield Document("\n".join([*before, text]) if text.strip() else "", title, source, id)

    def part_of(self, name: str) -> str | None:
        for path in (name, self.root.replace("\\", "/").rstrip("/").rpartition("/")[2]):
            for source, (pattern, _, _) in SETS.items():
                if re.search(pattern, path.lower()):
                    return source
        return None

    def is_data(self, name: str) -> bool:
        return suffix(name) in ("", ".json", ".jsonl") and self.part_of(name) is not None


class Files(Reader):
    """Anyone's own texts: .txt, .jsonl and .json, also .gz, .zst or inside .zip. Its options are described in corpus/settings.py."""

    name = "files"
    layouts = "a .txt, .jsonl or .json file, also .gz, .zst or zipped, or a folder of them"
    options = ("text", "title", "split")

    def __init__(self, root: str, text: str = "auto", title: str = "auto", split: str = "file"):
        super().__init__(root)
        if split not in ("file", "line", "blank"):
            raise ConfigError(f"data.split={split} is none of file, line, blank")
        self.text_fields = TEXT_FIELDS if text in ("auto", None) else (text,)
        self.title_fields = TITLE_FIELDS if title in ("auto", None) else (title,)
        self.split = split

    def is_data(self, name: str) -> bool:
        return suffix(name) in (".txt", ".jsonl", ".json")

    def read(self, raw: Raw, tally: Tally, progress: Progress) -> Iterator[Document]:
        if suffix(raw.name) == ".txt":
            for number, text in self._texts(raw, tally, progress):
                yield Document(text, "", self.name, f"{raw.id}:{number}")
            return
        for number, record in records(raw, tally, progress):
            id = f"{raw.id}:{number}"
            values = [record[field] for field in self.text_fields if record.get(field) is not None]
            text = next((value for value in values if _text(value).strip()), values[0] if values else None)
            if text is None:
                wanted = " or ".join(self.text_fields)
                tally.add("missing field", f"{id}: no {wanted} among {', '.join(map(str, record))}")
            elif not isinstance(text, str | list):
                tally.add("field is no text", f"{id}: {text!r:.80}")
            else:
                title = next((title for field in self.title_fields if (title := _text(record.get(field))).strip()), "")
                yield Document(_text(text), title, self.name, id)

    def _texts(self, raw: Raw, tally: Tally, progress: Progress) -> Iterator[tuple[int, str]]:
        """(number of its first line, text) of each document in a .txt."""
        block, first, length, broken = [], 1, 0, None
        try:
            for number, line in lines(raw, tally, progress):
                ends = self.split == "line" or (self.split == "blank" and not line.strip())
                if block and (ends or length > TEXT_LIMIT):
                    yield first, "\n".join(block)
                    block, length = [], 0
                if ends:
                    if line.strip():
                        yield number, line
                    continue
                first = first if block else number
                block.append(line)
                length += len(line) + 1
        except BROKEN as error:
            broken = error
        if block:
            yield first, "\n".join(block)
        if broken is not None:
            raise broken


def _text(value: object) -> str:
    """A field as text: strings as they are, lists of strings as paragraphs, anything else as none."""
    if isinstance(value, list):
        return "\n".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
