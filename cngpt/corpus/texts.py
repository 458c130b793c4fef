"""Clean texts on disk: json-lines, zstd-compressed in frames of about a hundred documents, so that any text is read without those before it.

00000.jsonl.zst     {"id", "source", "text"} a line; `zstd -d` and any reader of json-lines open it too
00000.json          {"documents": n, "frames": [[byte where it begins, number of its first document], ...]}
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import IO

import orjson
import zstandard

from cngpt import files
from cngpt.corpus.document import batches
from cngpt.errors import UserError

FRAME = 100  # documents: to read one, these are unpacked
BATCH = 1 << 20  # characters, at least, in what `batches` gives
LEVEL = 1  # 400 MB/s; 3 saves a tenth of the space in twice the time


@dataclass(frozen=True, slots=True)
class Text:
    """A document after cleaning: title, line end, text."""

    text: str
    source: str
    id: str


class TextWriter:
    """Writes `<path>.jsonl.zst`; `close` writes the index beside it. The caller gives the folder its name when all is written."""

    def __init__(self, path: Path):
        self._path = path
        self._file: IO[bytes] = open(_data(path), "wb")  # noqa: SIM115 (closed in close)
        self._compress = zstandard.ZstdCompressor(level=LEVEL).compress
        self._frames: list[list[int]] = []
        self._documents = 0

    def add(self, texts: Sequence[Text]) -> None:
        lines = [orjson.dumps({"id": t.id, "source": t.source, "text": t.text}, option=orjson.OPT_APPEND_NEWLINE) for t in texts]
        for first in range(0, len(lines), FRAME):
            frame = lines[first : first + FRAME]
            self._frames.append([self._file.tell(), self._documents])
            self._file.write(self._compress(b"".join(frame)))
            self._documents += len(frame)

    def close(self) -> None:
        files.close_on_disk(self._file)
        files.write_text(_index(self._path), json.dumps({"documents": self._documents, "frames": self._frames}))

    def __enter__(self) -> "TextWriter":
        return self

    def __exit__(self, *error) -> None:
        self._file.close()


class Texts:
    """What a TextWriter wrote. Damage raises UserError with the file's name."""

    def __init__(self, path: Path):
        self._path = path
        self._frames: list[list[int]] = json.loads(_index(path).read_text())["frames"]

    def batches(self) -> Iterator[list[Text]]:
        """All texts in order, about 3 MB at a time."""
        with open(_data(self._path), "rb") as file:
            frames = (self._read(file, n) for n in range(len(self._frames)))
            for some in batches(frames, BATCH, lambda frame: sum(len(text.text) for text in frame)):
                yield list(chain.from_iterable(some))

    def at(self, positions: Sequence[int]) -> list[str]:
        """The texts at these ascending positions; reads the frames that hold them, and no others."""
        starts, wanted = [start for _, start in self._frames], []
        with open(_data(self._path), "rb") as file:
            for frame, of_frame in groupby(positions, lambda position: bisect_right(starts, position) - 1):
                texts = self._read(file, frame)
                wanted += [texts[position - starts[frame]].text for position in of_frame]
        return wanted

    def _read(self, file: IO[bytes], n: int) -> list[Text]:
        start = self._frames[n][0]
        end = self._frames[n + 1][0] if n + 1 < len(self._frames) else _data(self._path).stat().st_size
        file.seek(start)
        try:
            lines = zstandard.ZstdDecompressor().decompressobj().decompress(file.read(end - start)).splitlines()
            return [Text(record["text"], record["source"], record["id"]) for record in map(orjson.loads, lines)]
        except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError) as error:
            raise UserError(f"{_data(self._path)} is damaged ({error}); prepare the texts again with overwrite=true") from None


def _data(path: Path) -> Path:
    return path.with_name(path.name + ".jsonl.zst")


def _index(path: Path) -> Path:
    return path.with_name(path.name + ".json")
