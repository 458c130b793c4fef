"""Which checkpoint a path means, and what a file is that was given for one by mistake."""

import mmap
import os
import re
import zipfile
from pathlib import Path

from cngpt.errors import ConfigError, UserError
from cngpt.files import is_remote
from cngpt.interop.gpt2ml import table
from cngpt.interop.gpt2ml.wire import WireError, explained

DATA_FILE = re.compile(r"(.+)\.data-(\d{5})-of-(\d{5})", re.DOTALL)
NAMED = re.compile(rb'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
AGAIN = "copy or download it again"
GIVE = "give the prefix of a checkpoint (.../model.ckpt-100000), its .index file or its folder"
V1 = "in TensorFlow 1's older format (V1): load it in TensorFlow 1 and save it with tf.train.Saver (V2: .index and .data files)"
PYTORCH = (
    "a PyTorch file, and this reads gpt2-ml's TensorFlow checkpoints; a folder of Hugging Face is read with from=huggingface"
)
SAFETENSORS = PYTORCH.replace("PyTorch", "safetensors")


def find(path: str | Path) -> tuple[Path, Path | None]:
    """(prefix of a checkpoint whose .index exists, the .data file that was given, if it was one); see `Bundle.open`.

    UserError where there is none: what is there instead, and what to do.
    """
    refuse_remote(path)
    path = Path(path)
    with explained(path):
        if path.is_dir() and not beside(path, ".index").exists():
            return _in_folder(path), None
        if path.name == "checkpoint" and path.is_file():
            return _named_by(path), None
        if match := DATA_FILE.fullmatch(path.name):
            prefix = path.with_name(match[1])
        else:
            prefix = path.with_suffix("") if path.suffix in (".index", ".meta") else path
        if beside(prefix, ".index").exists() and (path.exists() or path == prefix):
            return prefix, path if match else None
        if path == prefix and path.is_file():
            what = mistaken(path)
            raise UserError(f"{path} is {what}" if what else f"{path} is no part of a checkpoint: {GIVE}")
        raise _none(path, prefix)


def data_files(prefix: Path) -> list[str]:
    """Names of all data files of the checkpoint that are there, sorted, however many they say they are."""
    found = map(DATA_FILE.fullmatch, _names(prefix.parent))
    return [match[0] for match in found if match and match[1] == prefix.name]


def beside(prefix: Path, end: str) -> Path:
    return Path(f"{prefix}{end}")


def refuse_remote(path: str | Path) -> None:
    if is_remote(path):
        raise UserError(f"{path} is remote and cannot be mapped into memory: copy it here first")


def mistaken(path: Path) -> str | None:
    """What the file is that is no part of a V2 checkpoint, by its first and last bytes, and what to do: "a zip: unpack it".

    None if that is not to be seen.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        file.seek(max(0, size - len(table.MAGIC)))
        tail = file.read()
    if not head:
        return f"empty: {AGAIN}"
    if tail == table.MAGIC:
        return _table(path)
    if head.startswith(b"PK\3\4"):
        return _zip(path)
    if head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j"):  # the magic number of PyTorch before 1.6, pickled
        return PYTORCH
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < size:
        return SAFETENSORS
    if head.startswith(b"\x89HDF\r\n"):
        return "an HDF5 file of Keras: give a checkpoint's .index and .data files"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive: unpack it and give the folder"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: `git lfs pull` brings the file itself"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page instead of the file: download it again, in a browser if need be"
    return None


def is_v1(header: bytes) -> bool:
    """What the empty key has in V1 (SavedTensorSlices) begins with a message, in V2 (BundleHeaderProto) with a number."""
    return header.startswith(b"\x0a")


def _table(path: Path) -> str:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _, header = next(table.pairs(data), (b"", b""))
        except WireError as error:
            return f"a damaged file of TensorFlow ({error}): {AGAIN}"
    return V1 if is_v1(header) else "a checkpoint's index under another name: call it X.index, beside X.data-00000-of-00001"


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return f"a zip that is cut off or damaged: {AGAIN}"
    return PYTORCH if any(name.endswith("data.pkl") for name in names) else "a zip: unpack it and give the folder"


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _prefixes(folder: Path) -> list[str]:
    return [name.removesuffix(".index") for name in _names(folder) if name.endswith(".index")]


def _offer(folder: Path) -> str:
    """What to do, by what the folder has."""
    there = _prefixes(folder)
    return f"{folder} has {', '.join(there[:8])}{', ...' if there[8:] else ''}; give one of them" if there else GIVE


def _none(path: Path, prefix: Path) -> UserError:
    """What to say where `path` is not there, or not with all that it needs."""
    data = data_files(prefix)
    if beside(prefix, ".index").exists() or not (data or beside(prefix, ".meta").exists()):
        return ConfigError(f"path={path}: there is nothing of this name: {_offer(prefix.parent)}")
    if data:
        return UserError(f"{prefix}.index is missing beside {data[0]}: copy it there too")
    return UserError(
        f"{prefix}.meta holds the graph and no weights: copy the .data file beside it, and the .index if there is one"
    )


def _in_folder(folder: Path) -> Path:
    """The prefix of the folder's checkpoint."""
    if (folder / "checkpoint").is_file():
        return _named_by(folder / "checkpoint")
    prefixes = _prefixes(folder)
    if len(prefixes) == 1:
        return folder / prefixes[0]
    if prefixes:
        raise UserError(f"several checkpoints, and no file `checkpoint` that names one: {_offer(folder)}")
    for name in _names(folder):
        match = DATA_FILE.fullmatch(name)
        if match or name.endswith(".meta"):
            raise _none(folder, folder / (match[1] if match else name.removesuffix(".meta")))
        if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".zip", ".gz")) and (what := mistaken(folder / name)):
            raise UserError(f"{folder} has no checkpoint; {name} is {what}")
    raise UserError(f"{folder} has no checkpoint (.index and .data files): {GIVE}")


def _named_by(file: Path) -> Path:
    """The prefix that a file `checkpoint` names (a CheckpointState in protobuf's text format)."""
    named = NAMED.search(file.read_bytes())
    if not named:
        raise UserError(f"{file} names no checkpoint (model_checkpoint_path): {_offer(file.parent)}")
    name = re.sub(rb"\\([0-7]{1,3}|.)", _unescaped, named[1]).decode(errors="replace")
    here = file.parent / name.replace("\\", "/").rpartition("/")[2]
    far = is_remote(name) or Path(name).is_absolute()  # where it was written, which may be another machine
    for prefix in (here,) if is_remote(name) else (here, Path(name)) if far else (file.parent / name,):
        if beside(prefix, ".index").exists():
            return prefix
    raise UserError(f"{file} names {name!r}, whose .index is not here: {_offer(file.parent)}")


def _unescaped(match: re.Match) -> bytes:
    octal = match[1]
    return bytes([int(octal, 8) & 0xFF]) if octal[:1].isdigit() and octal[:1] < b"8" else octal
