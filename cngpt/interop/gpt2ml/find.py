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
PATH_FIELD = re.compile(rb'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
AGAIN = "copy or download it again"
GIVE = "give the prefix of a checkpoint (.../model.ckpt-100000), its .index file or its folder"
V1 = "in TensorFlow 1's older format (V1): load it in TensorFlow 1 and save it with tf.train.Saver (V2: .index and .data files)"
PYTORCH = (
    "a PyTorch file, and this reads gpt2-ml's TensorFlow checkpoints; a folder of Hugging Face is read with from=huggingface"
)
# in lower case, as a web page may begin in either
FIRST_BYTES = {
    # the magic number of PyTorch before 1.6, pickled
    b"\x80\x02\x8a\nl\xfc\x9cf\xf9 j": PYTORCH,
    b"\x89hdf\r\n": "an HDF5 file of Keras: give a checkpoint's .index and .data files",
    b"\x1f\x8b": "a gzip archive: unpack it and give the folder",
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` brings the file itself",
    b"<!doctype html": "a web page instead of the file: download it again, in a browser if need be",
    b"<html": "a web page instead of the file: download it again, in a browser if need be",
}
OTHER_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".zip", ".gz")


def find_checkpoint(path: str | Path) -> tuple[Path, Path | None]:
    """(prefix of a checkpoint whose .index exists, the .data file that was given, if it was one); see `Bundle.open`.

    UserError where there is none: what is there instead, and what to do.
    """
    refuse_remote(path)
    path = Path(path)
    with explained(path):
        if path.is_dir() and not index_of(path).exists():
            return _only_checkpoint(path), None
        if path.name == "checkpoint" and path.is_file():
            return _named_checkpoint(path), None
        prefix = prefix_of(path)
        if index_of(prefix).exists() and (path.exists() or path == prefix):
            return prefix, path if DATA_FILE.fullmatch(path.name) else None
        if path == prefix and path.is_file():
            refuse_mistaken(path)
            raise UserError(f"{path} is no part of a checkpoint: {GIVE}")
        raise _incomplete(path, prefix)


def prefix_of(path: Path) -> Path:
    """What the names of all files of a checkpoint begin with, from any of them."""
    if match := DATA_FILE.fullmatch(path.name):
        return path.with_name(match[1])
    return path.with_suffix("") if path.suffix in (".index", ".meta") else path


def index_of(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def data_files(prefix: Path) -> list[str]:
    """Names of all data files of the checkpoint that are there, sorted, however many they say they are."""
    files = prefix.parent.glob("*.data-*")
    return sorted(file.name for file in files if DATA_FILE.fullmatch(file.name) and prefix_of(file).name == prefix.name)


def refuse_remote(path: str | Path) -> None:
    if is_remote(path):
        raise UserError(f"{path} is remote and cannot be mapped into memory: copy it here first")


def refuse_one_of_several(data: str | Path) -> None:
    """UserError for a data file that cannot be read without its .index."""
    refuse_remote(data)
    match = DATA_FILE.fullmatch(Path(data).name)
    if match and int(match[3]) != 1:
        raise UserError(f"{data} is one of {int(match[3])} data files, which cannot be read without the .index: copy that too")


def refuse_mistaken(path: Path, context: str = "") -> None:
    """UserError for a file that is no part of a V2 checkpoint, if its first and last bytes tell what it is."""
    if kind := _kind_of(path):
        raise UserError(f"{context}{path} is {kind}")


def is_v1(header: bytes) -> bool:
    """What the empty key has in V1 (SavedTensorSlices) begins with a message, in V2 (BundleHeaderProto) with a number."""
    return header.startswith(b"\x0a")


def _kind_of(path: Path) -> str | None:
    """What a file is, and what to do: "a zip: unpack it"."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        file.seek(max(0, size - len(table.MAGIC)))
        tail = file.read()
    if not head:
        return f"empty: {AGAIN}"
    if tail == table.MAGIC:
        return _kind_of_table(path)
    if head.startswith(b"PK\3\4"):
        return _kind_of_zip(path)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < size:
        return PYTORCH.replace("PyTorch", "safetensors")
    return next((kind for start, kind in FIRST_BYTES.items() if head.lstrip().lower().startswith(start)), None)


def _kind_of_table(path: Path) -> str:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _, header = next(table.pairs(data), (b"", b""))
        except WireError as error:
            return f"a damaged file of TensorFlow ({error}): {AGAIN}"
    return V1 if is_v1(header) else "a checkpoint's index under another name: call it X.index, beside X.data-00000-of-00001"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return f"a zip that is cut off or damaged: {AGAIN}"
    return PYTORCH if any(name.endswith("data.pkl") for name in names) else "a zip: unpack it and give the folder"


def _prefixes(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.index"))


def _suggestion(folder: Path) -> str:
    """What to do, by what the folder has."""
    prefixes = _prefixes(folder)
    return f"{folder} has {', '.join(prefixes[:8])}{', ...' if prefixes[8:] else ''}; give one of them" if prefixes else GIVE


def _incomplete(path: Path, prefix: Path) -> UserError:
    """`path` is not there, or not with all that it needs."""
    data = data_files(prefix)
    if index_of(prefix).exists() or not (data or Path(f"{prefix}.meta").exists()):
        return ConfigError(f"path={path}: there is nothing of this name: {_suggestion(prefix.parent)}")
    if data:
        return UserError(f"{prefix}.index is missing beside {data[0]}: copy it there too")
    return UserError(
        f"{prefix}.meta holds the graph and no weights: copy the .data file beside it, and the .index if there is one"
    )


def _only_checkpoint(folder: Path) -> Path:
    """The prefix of the folder's checkpoint."""
    if (folder / "checkpoint").is_file():
        return _named_checkpoint(folder / "checkpoint")
    prefixes = _prefixes(folder)
    if len(prefixes) == 1:
        return folder / prefixes[0]
    if prefixes:
        raise UserError(f"several checkpoints, and no file `checkpoint` that names one: {_suggestion(folder)}")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".meta" or DATA_FILE.fullmatch(path.name):
            raise _incomplete(folder, prefix_of(path))
        if path.suffix in OTHER_ENDINGS:
            refuse_mistaken(path, f"{folder} has no checkpoint; ")
    raise UserError(f"{folder} has no checkpoint (.index and .data files): {GIVE}")


def _named_checkpoint(file: Path) -> Path:
    """The prefix that a file `checkpoint` names (a CheckpointState in protobuf's text format)."""
    try:
        escaped = PATH_FIELD.search(file.read_bytes())[1]
        name = escaped.decode("unicode_escape").encode("latin-1").decode(errors="replace")
    except (TypeError, ValueError):
        raise UserError(f"{file} names no checkpoint (model_checkpoint_path): {_suggestion(file.parent)}") from None
    beside = file.parent / name.replace("\\", "/").rpartition("/")[2]
    # an absolute path may be one of the machine that wrote the checkpoint
    candidates = [beside] if is_remote(name) else [beside, Path(name)] if Path(name).is_absolute() else [file.parent / name]
    for prefix in candidates:
        if index_of(prefix).exists():
            return prefix
    raise UserError(f"{file} names {name!r}, whose .index is not here: {_suggestion(file.parent)}")
