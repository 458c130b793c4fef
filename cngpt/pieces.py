"""A training checkpoint that lies in pieces, read as if it were one file, on the CPU and without a process group.

Every strategy that cuts weights writes the same folder, torch's distributed checkpoint:

    meta.pt      all but the tensors, as Lightning names it: counters, schedulers, our header "cngpt"
    .metadata    which tensor lies where, a pickle; read with an allow-list of the few classes that belong in it
    *.distcp     the pieces, each a small file as torch.save writes it

FSDP2 cuts tensors along their dimensions. ZeRO cuts them flattened; meta.pt then holds their shapes under "flat".
What is missing or damaged raises UserError: one line with the file and the remedy.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt import files
from cngpt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

REST, INDEX = "meta.pt", ".metadata"
FLAT = "flat"  # in meta.pt: {name: shape} of tensors that were cut flattened
WEIGHTS, OPTIMIZER = "state_dict", "optimizer_0"  # the keys under which Lightning saves them


def are_in(path: Path) -> bool:
    """Whether a folder is a checkpoint in pieces, whole or damaged."""
    return path.is_dir() and (path.suffix == ".ckpt" or (path / REST).exists() or (path / INDEX).exists())


def damaged(path: Path, what: str) -> UserError:
    """The error of a checkpoint, a file or a folder, that names the one before it."""
    place = path if path.suffix == ".ckpt" else path.parent  # of a file inside the folder
    before = max((p for p in place.parent.glob("step_*.ckpt") if p.name < place.name), default=None)
    remedy = f"the one before it is {before}" if before else "there is none before it in its folder"
    return UserError(f"{path} is damaged or no checkpoint ({what}); {remedy}")


class Lazy(Mapping):
    """A mapping whose values are read when they are asked for, so that a large checkpoint is never in memory as a whole."""

    def __init__(self, values: dict[object, Callable[[], object]]):
        self._values = values

    def __getitem__(self, key):
        return self._values[key]()

    def __iter__(self) -> Iterator:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def read(path: Path) -> dict:
    """The folder as `torch.load` gives a checkpoint of one file; "state_dict" and the optimizer's "state" are `Lazy`."""
    pieces = Pieces(path)
    whole = pieces.rest()
    shapes = whole.pop(FLAT, {})

    def thing(key: str, name: str) -> Callable[[], object]:
        if not (size := pieces.size(key)):  # a single number, whole whatever its weight is
            return lambda: pieces.tensor(key) if size is not None else pieces.value(key)
        return lambda: pieces.tensor(key).view(shapes.get(name, size))

    weights: dict[str, Callable] = {}
    slots: dict[str, dict[str, Callable]] = {}
    groups: dict[int, dict] = {}
    for key, way in pieces.ways.items():
        match way:
            case (_, str(name)) if way[0] == WEIGHTS:
                weights[name] = thing(key, name)
            case (_, "state", name, slot) if way[0] == OPTIMIZER:
                slots.setdefault(name, {})[slot] = thing(key, name)
            case (_, "param_groups", int(n), option) if way[0] == OPTIMIZER:
                groups.setdefault(n, {})[option] = pieces.value(key)
    whole["state_dict"] = Lazy(weights)
    if groups:
        numbers: dict[str, int] = {}
        for _, group in sorted(groups.items()):
            group["params"] = [numbers.setdefault(name, len(numbers)) for name in group["params"]]

        def state(name: str) -> Callable[[], dict]:
            return lambda: {slot: read() for slot, read in slots[name].items()}

        by_number = {number: state(name) for name, number in numbers.items() if name in slots}
        whole["optimizer_states"] = [{"state": Lazy(by_number), "param_groups": [g for _, g in sorted(groups.items())]}]
    return whole


def read_file(path: Path):
    """What torch.save wrote, plain values and tensors alone; tensors stay on disk until they are used."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # RuntimeError, UnpicklingError, EOFError, ValueError ... by the kind of damage
        raise damaged(path, f"{type(error).__name__}: {files.first_line(error)}") from None


def verify(path: Path) -> None:
    """Raises UserError unless every byte of every piece is as it was written: torch.load does not compare checksums."""
    pieces = Pieces(path)
    pieces.rest()
    try:
        with zipfile.ZipFile(path / REST) as archive:
            if broken := archive.testzip():
                raise damaged(path / REST, f"{broken} is not what was written")
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise damaged(path / REST, files.first_line(error)) from None
    for info in pieces.places.values():
        data = pieces.bytes_of(info)
        try:
            with zipfile.ZipFile(data) as archive:
                broken = archive.testzip()
        except Exception as error:  # BadZipFile, EOFError, NotImplementedError, zlib.error ... by the kind of damage
            broken = files.first_line(error)
        if broken:
            raise damaged(path / info.relative_path, f"{broken} at byte {info.offset}")


class Pieces:
    """A folder of pieces: `ways` names each thing in it, as the path of keys that leads there."""

    def __init__(self, path: Path):
        self.path = path
        for name in (REST, INDEX):
            if not (path / name).is_file():
                raise damaged(path / name, "the file is missing")
        try:
            with open(path / INDEX, "rb") as file:
                index = Index(file).load()
            self.found, self.places = index.state_dict_metadata, index.storage_data
            self.ways: dict[str, tuple] = index.planner_data
        except Exception as error:  # whatever damage does to a pickle
            raise damaged(path / INDEX, f"{type(error).__name__}: {files.first_line(error)}") from None

    def rest(self) -> dict:
        """All but the tensors."""
        if isinstance(rest := read_file(self.path / REST), dict):
            return rest
        raise damaged(self.path / REST, f"it holds a {type(rest).__name__}")

    def size(self, key: str) -> tuple[int, ...] | None:
        """The shape of a tensor as it lies in the folder; None of what is no tensor."""
        size = getattr(self.found[key], "size", None)
        return None if size is None else tuple(size)

    def tensor(self, key: str) -> "Tensor":
        """A whole tensor, put together of its pieces."""
        import torch
        from torch.distributed.checkpoint.metadata import MetadataIndex

        about = self.found[key]
        made = torch.empty(about.size, dtype=about.properties.dtype)
        missing = made.numel()
        for chunk in about.chunks:
            place = made[tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))]
            piece = self._load(self.places[MetadataIndex(key, chunk.offsets)])
            if piece.shape != place.shape:
                raise damaged(self.path, f"a piece of {key} is {tuple(piece.shape)}, {tuple(place.shape)} is written in {INDEX}")
            place.copy_(piece)
            missing -= piece.numel()
        if missing:
            raise damaged(self.path, f"{missing:,} numbers of {key} are in no piece")
        return made

    def value(self, key: str) -> object:
        """What is no tensor: an option of the optimizer."""
        from torch.distributed.checkpoint.metadata import MetadataIndex

        return self._load(self.places[MetadataIndex(key)])

    def _load(self, info):
        import torch

        data = self.bytes_of(info)
        try:
            return torch.load(data, map_location="cpu", weights_only=True)
        except Exception as error:
            what = f"{type(error).__name__}: {files.first_line(error)}"
            raise damaged(self.path / info.relative_path, what) from None

    def bytes_of(self, info) -> io.BytesIO:
        """The bytes of one piece."""
        path = self.path / Path(info.relative_path).name  # a name with folders in it would lead elsewhere
        try:
            with open(path, "rb") as file:
                file.seek(info.offset)
                data = file.read(info.length)
        except FileNotFoundError:
            raise damaged(path, "the file is missing") from None
        except OSError as error:
            raise damaged(path, files.first_line(error)) from None
        if len(data) < info.length:
            raise damaged(path, f"it ends at byte {info.offset + len(data):,}, {info.offset + info.length:,} were written")
        return io.BytesIO(data)


class Index(pickle.Unpickler):
    """Reads .metadata, which is a pickle, and refuses anything that a list of places does not need."""

    ALLOWED = {  # noqa: RUF012
        "torch.distributed.checkpoint.metadata": {
            "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
            "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch": {"Size"},
        "torch.serialization": {"_get_layout"},
        "collections": {"OrderedDict"},
        "pathlib": {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
        "pathlib._local": {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
    }  # fmt: skip

    def find_class(self, module: str, name: str):
        import torch

        if name in self.ALLOWED.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into it")
