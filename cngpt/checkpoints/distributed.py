"""A distributed training checkpoint, a folder, read as if it were one file, on the CPU and without a process group.

Every strategy that cuts weights writes the same folder, torch's distributed checkpoint:

    meta.pt      all but the tensors, as Lightning names it: counters, schedulers, our header "cngpt"
    .metadata    which tensor lies where, a pickle; read with an allow-list of the few classes that belong in it
    *.distcp     the shards, each a small file as torch.save writes it

FSDP2 cuts tensors along their dimensions. ZeRO cuts them flattened; meta.pt then holds their shapes under "flat".
What is missing or damaged raises UserError: one line with the file and the remedy.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt.checkpoints import single_file
from cngpt.checkpoints.single_file import damaged
from cngpt.errors import first_line
from cngpt.runs import INDEX, SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

REST = "meta.pt"
FLAT = "flat"  # in meta.pt: {name: shape} of tensors that were cut flattened
WEIGHTS, OPTIMIZER = "state_dict", "optimizer_0"  # the keys under which Lightning saves them


def is_distributed(path: Path) -> bool:
    """Whether a folder is such a checkpoint, whole or damaged."""
    return path.is_dir() and (path.suffix == SUFFIX or (path / REST).exists() or (path / INDEX).exists())


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
    reader = Reader(path)
    checkpoint = reader.rest()
    flat_shapes = checkpoint.pop(FLAT, {})

    def value_of(key: str, name: str) -> Callable[[], object]:
        size = reader.size(key)
        if size is None:
            return lambda: reader.value(key)
        # a single number was never flattened
        return lambda: reader.tensor(key).view(flat_shapes.get(name, size) if size else size)

    weights: dict[str, Callable] = {}
    slots: dict[str, dict[str, Callable]] = {}
    groups: dict[int, dict] = {}
    for key, key_path in reader.key_paths.items():
        match key_path:
            case (_, str(name)) if key_path[0] == WEIGHTS:
                weights[name] = value_of(key, name)
            case (_, "state", name, slot) if key_path[0] == OPTIMIZER:
                slots.setdefault(name, {})[slot] = value_of(key, name)
            case (_, "param_groups", int(n), option) if key_path[0] == OPTIMIZER:
                groups.setdefault(n, {})[option] = reader.value(key)
    checkpoint["state_dict"] = Lazy(weights)
    if groups:
        checkpoint["optimizer_states"] = [_optimizer_state(slots, [group for _, group in sorted(groups.items())])]
    return checkpoint


def _optimizer_state(slots: dict[str, dict[str, Callable]], groups: list[dict]) -> dict:
    """As `Optimizer.state_dict()` has it: parameters by number, where the folder has their names."""
    numbers: dict[str, int] = {}
    for group in groups:
        group["params"] = [numbers.setdefault(name, len(numbers)) for name in group["params"]]

    def state(name: str) -> Callable[[], dict]:
        return lambda: {slot: read_slot() for slot, read_slot in slots[name].items()}

    return {
        "state": Lazy({number: state(name) for name, number in numbers.items() if name in slots}),
        "param_groups": groups,
    }


def verify(path: Path) -> None:
    """Raises UserError unless every byte of every shard is as it was written: torch.load does not compare checksums."""
    reader = Reader(path)
    reader.rest()
    single_file.verify(path / REST)
    for info in reader.storage.values():
        data = reader.bytes_of(info)
        try:
            with zipfile.ZipFile(data) as archive:
                broken = archive.testzip()
        except Exception as error:  # BadZipFile, EOFError, NotImplementedError, zlib.error ... by the kind of damage
            broken = first_line(error)
        if broken:
            raise damaged(path / info.relative_path, f"{broken} at byte {info.offset}")


class Reader:
    """An open folder. `key_paths`: for each value in it, the keys that lead there in the checkpoint."""

    def __init__(self, path: Path):
        self.path = path
        for name in (REST, INDEX):
            if not (path / name).is_file():
                raise damaged(path / name, "the file is missing")
        try:
            with open(path / INDEX, "rb") as file:
                index = IndexUnpickler(file).load()
            self.entries, self.storage = index.state_dict_metadata, index.storage_data
            self.key_paths: dict[str, tuple] = index.planner_data
        except Exception as error:  # whatever damage does to a pickle
            raise damaged(path / INDEX, f"{type(error).__name__}: {first_line(error)}") from None

    def rest(self) -> dict:
        """All but the tensors."""
        if isinstance(rest := single_file.read(self.path / REST), dict):
            return rest
        raise damaged(self.path / REST, f"it holds a {type(rest).__name__}")

    def size(self, key: str) -> tuple[int, ...] | None:
        """The shape of a tensor as it lies in the folder; None of what is no tensor."""
        size = getattr(self.entries[key], "size", None)
        return None if size is None else tuple(size)

    def tensor(self, key: str) -> "Tensor":
        """A whole tensor, put together of its shards."""
        import torch
        from torch.distributed.checkpoint.metadata import MetadataIndex

        entry = self.entries[key]
        whole = torch.empty(entry.size, dtype=entry.properties.dtype)
        missing = whole.numel()
        for chunk in entry.chunks:
            region = whole[tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))]
            shard = self._load(self.storage[MetadataIndex(key, chunk.offsets)])
            if shard.shape != region.shape:
                raise damaged(self.path, f"a piece of {key} is {tuple(shard.shape)}, {tuple(region.shape)} is written in {INDEX}")
            region.copy_(shard)
            missing -= shard.numel()
        if missing:
            raise damaged(self.path, f"{missing:,} numbers of {key} are in no piece")
        return whole

    def value(self, key: str) -> object:
        """What is no tensor: an option of the optimizer."""
        from torch.distributed.checkpoint.metadata import MetadataIndex

        return self._load(self.storage[MetadataIndex(key)])

    def _load(self, info):
        import torch

        data = self.bytes_of(info)
        try:
            return torch.load(data, map_location="cpu", weights_only=True)
        except Exception as error:
            raise damaged(self.path / info.relative_path, f"{type(error).__name__}: {first_line(error)}") from None

    def bytes_of(self, info) -> io.BytesIO:
        """The bytes of one shard."""
        path = self.path / Path(info.relative_path).name  # a name with folders in it would lead elsewhere
        try:
            with open(path, "rb") as file:
                file.seek(info.offset)
                data = file.read(info.length)
        except FileNotFoundError:
            raise damaged(path, "the file is missing") from None
        except OSError as error:
            raise damaged(path, first_line(error)) from None
        if len(data) < info.length:
            raise damaged(path, f"it ends at byte {info.offset + len(data):,}, {info.offset + info.length:,} were written")
        return io.BytesIO(data)


class IndexUnpickler(pickle.Unpickler):
    """Reads .metadata, which is a pickle, and refuses any class that an index does not need."""

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
