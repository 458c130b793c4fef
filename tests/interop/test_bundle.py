import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest
from google_crc32c import value
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.errors import UserError
from cngpt.interop.gpt2ml.bundle import Bundle, layout, read_index
from tests.interop.bundle_writer import MAGIC, entry, header, mask, number, submessage, table, varint, write_bundle

TINY = {"a/bias": np.arange(3, dtype="f4"), "a/kernel": np.arange(6, dtype="f4").reshape(2, 3), "step": np.array(7)}
INDEX, DATA = "m.ckpt-5.index", "m.ckpt-5.data-00000-of-00001"


def read_all(path) -> dict[str, np.ndarray]:
    with Bundle.open(path) as bundle:
        return {name: bundle.read(name) for name in bundle.entries}


def assert_equal(tensors: dict[str, np.ndarray], expected: dict[str, np.ndarray]):
    assert list(tensors) == sorted(expected, key=str.encode)
    for name, array in expected.items():
        assert (tensors[name].shape, tensors[name].dtype) == (array.shape, array.dtype)
        assert tensors[name].tobytes() == array.tobytes()


def refusal(path) -> str:
    """The one line that reading all of `path` fails with."""
    with pytest.raises(UserError) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tiny(tmp_path):
    """The prefix of a checkpoint with TINY."""
    write_bundle(tmp_path / "m.ckpt-5", TINY)
    return tmp_path / "m.ckpt-5"


def test_checkpoints_that_tensorflow_wrote_read_alike_with_and_without_snappy(shared):
    golden = shared("golden")
    variables = json.loads((golden / "ckpt_variables.json").read_text())
    plain, snappy = Bundle.open(golden / "ckpt"), Bundle.open(golden / "ckpt_snappy" / "model.ckpt-5")
    assert len(plain.entries) == 125
    for bundle in (plain, snappy):
        assert [{"name": e.name, "shape": list(e.shape), "dtype": e.dtype.name} for e in bundle.entries.values()] == variables
    for name in plain.entries:
        assert plain.read(name).tobytes() == snappy.read(name).tobytes()
    assert plain.read("global_step") == 5
    after = np.load(golden / "train_steps.npz")  # a second way to the same numbers: one update moves them a little
    name = "newslm/embeddings/word_embed"
    assert 0 < np.abs(plain.read(name) - after[f"after6/{name}"]).max() < 0.1


@pytest.mark.parametrize("step, rows", [(100000, 21130), (220000, 8021)])
def test_the_indexes_of_the_released_models_list_their_variables_where_the_layout_puts_them(shared, step, rows):
    folder = shared("golden/released_index")
    shards, entries = read_index(folder / f"model.ckpt-{step}.index")
    variables = json.loads((folder / f"model.ckpt-{step}.variables.json").read_text())
    assert shards == 1
    assert [[e.name, list(e.shape), e.dtype.name] for e in entries] == variables
    assert {e.name: e.shape for e in entries}["newslm/embeddings/word_embed"] == (rows, 1536)
    ours = layout((name, tuple(shape), dtype) for name, shape, dtype in reversed(variables))
    assert [(e.name, e.shard, e.offset, e.size) for e in ours] == [(e.name, e.shard, e.offset, e.size) for e in entries]


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name[0] != "\0")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
dtypes = st.sampled_from(["float32", "int64", "int32", "float16", "bool"])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(names, st.tuples(shapes, dtypes), max_size=40),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([1, 60, 300, 1 << 18]),
)
def test_what_was_written_is_read(tmp_path_factory, kinds, compress, shards, block_size):
    random = np.random.default_rng(0)
    variables = {
        name: random.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype) for name, (shape, dtype) in kinds.items()
    }
    prefix = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    write_bundle(prefix, variables, compress, shards, block_size)
    assert_equal(read_all(prefix), variables)
    if shards == 1:
        data = prefix.with_name("model.ckpt.data-00000-of-00001")
        with Bundle.from_layout(data, [(name, a.shape, a.dtype.name) for name, a in variables.items()]) as bundle:
            assert_equal({name: bundle.read(name) for name in bundle.entries}, variables)


@pytest.mark.parametrize("compress", [False, True])
def test_no_flipped_bit_of_index_or_data_goes_unnoticed(tmp_path, compress):
    write_bundle(tmp_path / "m.ckpt-5", TINY, compress, block_size=30)
    for name in (INDEX, DATA):
        whole = (tmp_path / name).read_bytes()
        for at in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[at // 8] ^= 1 << at % 8
            (tmp_path / name).write_bytes(damaged)
            assert refusal(tmp_path / "m.ckpt-5"), (name, at)
        (tmp_path / name).write_bytes(whole)
    assert_equal(read_all(tmp_path / "m.ckpt-5"), TINY)


@pytest.mark.parametrize("compress", [False, True])
def test_no_truncated_or_lengthened_file_goes_unnoticed(tmp_path, compress):
    write_bundle(tmp_path / "m.ckpt-5", TINY, compress, shards=2, block_size=30)
    for name in (INDEX, "m.ckpt-5.data-00000-of-00002", "m.ckpt-5.data-00001-of-00002"):
        whole = (tmp_path / name).read_bytes()
        for length in range(len(whole)):
            (tmp_path / name).write_bytes(whole[:length])
            assert name in refusal(tmp_path / "m.ckpt-5")
        for more in (b"\0", b"\0" * 48, whole):
            (tmp_path / name).write_bytes(whole + more)
            assert name in refusal(tmp_path / "m.ckpt-5")
        (tmp_path / name).write_bytes(whole)
    assert_equal(read_all(tmp_path / "m.ckpt-5"), TINY)


def test_any_path_that_means_one_checkpoint_opens_it(tiny, monkeypatch):
    for path in (tiny, tiny.parent, tiny.parent / INDEX, tiny.parent / DATA, str(tiny)):
        assert_equal(read_all(path), TINY)
    (tiny.parent / "m.ckpt-5.meta").write_bytes(b"graph")
    assert_equal(read_all(tiny.parent / "m.ckpt-5.meta"), TINY)
    monkeypatch.chdir(tiny.parent)
    for path in (".", "", tiny.name, DATA):
        assert_equal(read_all(path), TINY)


def test_the_file_checkpoint_says_which_of_several_is_meant(tmp_path):
    for step in (5, 10):
        write_bundle(tmp_path / f"模型 'a'-{step}", {"step": np.array(step)})
    assert refusal(tmp_path).endswith("has 模型 'a'-10, 模型 'a'-5; give one of them")
    name = "模型 'a'-10"
    octal = "".join(
        chr(byte) if byte < 0x80 and byte != 0x27 else f"\\{byte:03o}" for byte in name.encode()
    )  # as TensorFlow writes it
    for written in (octal, name, f"/elsewhere/{octal}", f"gs://bucket/run/{octal}", f"{tmp_path}/{octal}"):
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\nall_model_checkpoint_paths: "x"\n')
        assert read_all(tmp_path)["step"] == read_all(tmp_path / "checkpoint")["step"] == 10
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"')
    assert "names 'model.ckpt-7', whose .index is not here" in refusal(tmp_path) and "模型 'a'-5" in refusal(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"\xff")
    assert "names no checkpoint" in refusal(tmp_path)


def test_missing_parts_are_named(tiny):
    folder = tiny.parent
    assert "there is nothing of this name" in refusal(folder / "nowhere" / "model.ckpt") and "m.ckpt-5" in refusal(
        folder / "m.ckpt-6"
    )
    assert f"path={folder}/m.ckpt-6.data-00000-of-00001: there is nothing" in refusal(folder / "m.ckpt-6.data-00000-of-00001")
    assert "copy it here first" in refusal("gs://bucket/model.ckpt-5")
    (folder / DATA).rename(folder / "m.ckpt-5.data-00000-of-00002")
    for path in (tiny, folder):
        assert f"{DATA} is missing" in refusal(path) and "there is m.ckpt-5.data-00000-of-00002" in refusal(path)
    assert "is of another checkpoint" in refusal(folder / "m.ckpt-5.data-00000-of-00002")
    (folder / INDEX).unlink()
    for path in (tiny, folder, folder / INDEX, folder / "m.ckpt-5.data-00000-of-00002"):
        assert f"{INDEX} is missing beside m.ckpt-5.data-00000-of-00002" in refusal(path)
    (folder / "m.ckpt-5.data-00000-of-00002").unlink()
    (folder / "m.ckpt-5.meta").write_bytes(b"graph")
    for path in (tiny, folder, folder / INDEX, folder / "m.ckpt-5.meta"):
        assert "m.ckpt-5.meta holds the graph and no weights" in refusal(path)
    (folder / "m.ckpt-5.meta").unlink()
    assert "has no checkpoint" in refusal(folder)


def test_a_sibling_of_two_data_files_that_is_missing_is_named(tmp_path):
    write_bundle(tmp_path / "m", TINY, shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    for path in (tmp_path, tmp_path / "m.data-00000-of-00002"):
        assert "m.data-00001-of-00002 is missing: m.index needs 2 data files" in refusal(path)


def test_a_file_that_is_no_checkpoint_is_called_by_its_name(tmp_path):
    v1 = table([(b"", submessage(1, submessage(2, b"\x0a\x01x"))), (b"\0x", b"tensor")])
    with zipfile.ZipFile(tmp_path / "torch", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("model.ckpt-5.index", b"")
    pickled = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    safetensors = (64).to_bytes(8, "little") + b'{"__metadata__":{}}'.ljust(64) + b"0"
    cases = [
        (b"", "empty"),
        (v1, "TensorFlow 1's older format (V1)"),
        (v1[:1] + b"x" + v1[2:], "damaged"),
        (table([(b"", header())]), "index under another name"),
        ((tmp_path / "torch").read_bytes(), "a PyTorch file"),
        ((tmp_path / "zip").read_bytes(), "a zip: unpack it"),
        ((tmp_path / "zip").read_bytes()[:40], "cut off"),
        (pickled, "a PyTorch file"),
        (safetensors, "a safetensors file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
    ]
    for content, word in cases:
        for name in ("model.ckpt", "pytorch_model.bin", DATA, INDEX):
            if name == INDEX and word == "index under another name":
                continue
            folder = tmp_path / "case"
            folder.mkdir()
            if name == DATA:
                write_bundle(folder / "m.ckpt-5", {"a": np.zeros(999)})
            (folder / name).write_bytes(content)
            assert word in refusal(folder / name), (word, name)
            if name != "model.ckpt":
                assert word in refusal(folder), (word, name)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert "no part of a checkpoint" in refusal(tmp_path / "notes.txt")


def test_a_file_that_may_not_be_read_is_named(tiny, monkeypatch):
    if os.geteuid():
        (tiny.parent / INDEX).chmod(0)
    else:  # root may read all
        monkeypatch.setattr("builtins.open", lambda path, *_: (_ for _ in ()).throw(PermissionError(13, "denied", str(path))))
    assert refusal(tiny).startswith(f"{tiny}.index may not be read")


def one(*pairs: tuple[bytes, bytes], head: bytes | None = None) -> bytes:
    return table([(b"", header() if head is None else head), *pairs])


def zeros(size: int, offset: int = 0, shard: int = 0) -> bytes:
    return entry("uint8", [size], shard, offset, size, value(bytes(size)))


@pytest.mark.parametrize(
    "index, word",
    [
        (table([(b"a", zeros(8))]), "no header"),
        (one(head=b""), "0 data files"),
        (one(head=header(100_000)), "100000 data files"),
        (one(head=header(big_endian=True)), "big-endian"),
        (one(head=header(min_consumer=2)), "newer format"),
        (one(head=header() + number(9, 1)), "unexpected field 9"),
        (one(head=b"\x09"), "longer than its message"),
        (one((b"a", zeros(4)), (b"b", zeros(4, 4)), head=header(2)), "missing"),
        (one((b"a", zeros(4)), (b"b", zeros(4, 3))), "'b' overlaps"),
        (one((b"a", zeros(4)), (b"b", zeros(4))), "'b' overlaps"),
        (one((b"a", zeros(4)), (b"b", zeros(3, 5))), "'b' leaves a gap"),
        (one((b"a", zeros(7, 1))), "'a' leaves a gap"),
        (one((b"a", zeros(8)), (b"b", zeros(4, 0, 1))), "data file 1"),
        (one((b"b", zeros(4)), (b"a", zeros(4, 4))), "out of order"),
        (one((b"a", zeros(4)), (b"a", zeros(4, 4))), "out of order"),
        (one((b"\xff", zeros(8))), "not UTF-8"),
        (one((b"a", zeros(9))), "cut off"),
        (one((b"a", zeros(7))), "has 8 bytes, and its tensors need 7"),
        (one((b"a", entry("float32", [3], 0, 0, 8, 0))), "not float32 of shape (3,)"),
        (one((b"a", entry("float32", [-1], 0, 0, 8, 0))), "impossible shape"),
        (one((b"a", entry("float32", [0, 1 << 62], 0, 0, 0, 0))), "impossible shape"),
        (one((b"a", entry("uint8", [1] * 33, 0, 0, 1, 0))), "impossible shape"),
        (one((b"a", number(1, 1) + submessage(2, number(3, 1)))), "no definite shape"),
        (one((b"a", entry("uint8", [8], 0, -1, 8, 0))), "gap"),
        (one((b"a", entry("uint8", [8], 0, 0, 8, 1))), "checksum of tensor 'a'"),
        (one((b"a", entry("uint8", [8], 0, 0, 8, 0)[:-5])), "checksum of tensor 'a'"),
        (one((b"a", entry(14, [4], 0, 0, 8, 0))), "bfloat16"),
        (one((b"a\nb", entry(7, [], 0, 0, 8, 0))), "tensor 'a\\nb' has the type string"),
        (one((b"a", entry(99, [8], 0, 0, 8, 0))), "unknown (99)"),
        (one((b"a", entry("float32", [8], 0, 0, 0, 0, submessage(7, b"")))), "'a' in slices"),
        (one((b"\0a", zeros(8))), "in slices"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(tiny, index, word):
    (tiny.parent / INDEX).write_bytes(index)
    (tiny.parent / DATA).write_bytes(bytes(8))
    assert word in refusal(tiny)


def handles(*numbers: int, end: bytes = b"") -> bytes:
    return (b"".join(map(varint, numbers)) + end).ljust(40, b"\0") + MAGIC


def sealed(contents: bytes, kind: int = 0) -> bytes:
    return contents + bytes([kind]) + mask(value(contents + bytes([kind])))


NOTHING = bytes(4) + b"\1\0\0\0"  # the contents of a block without entries


@pytest.mark.parametrize(
    "index, word",
    [
        (sealed(NOTHING) * 2 + handles(0, 8, 13, 8), "no header"),
        (sealed(NOTHING) * 2 + handles(0, 8, 13, 8, end=b"\1"), "more in it"),
        (sealed(NOTHING) * 2 + (b"\x80\0" + handles(8, 13, 8)[:-10]).ljust(40, b"\0") + MAGIC, "not written as it should be"),
        (sealed(NOTHING) * 2 + b"\xff" * 40 + MAGIC, "no end"),
        (sealed(NOTHING) * 3 + handles(0, 8, 26, 8), "do not fill it exactly"),
        (sealed(NOTHING) * 3 + handles(13, 8, 26, 8), "end to end"),
        (sealed(NOTHING) * 2 + handles(0, 8, 13, 7), "do not fill it exactly"),
        (sealed(NOTHING, kind=2) * 2 + handles(0, 8, 13, 8), "unknown compression 2"),
        (sealed(b"\xff\xff\xff\xff\x0f" + bytes(3), kind=1) * 2 + handles(0, 8, 13, 8), "more than Snappy can hold"),
        (sealed(b"\x09" + bytes(7), kind=1) * 2 + handles(0, 8, 13, 8), "does not decompress"),
        (sealed(bytes(8)) * 2 + handles(0, 8, 13, 8), "shorter than its list"),
        (sealed(bytes(4) + b"\2\0\0\0") * 2 + handles(0, 8, 13, 8), "shorter than its list"),
        (sealed(b"\1\0\0\0\1\0\0\0") * 2 + handles(0, 8, 13, 8), "where its entries begin"),
        (sealed(b"\0\0\0" + NOTHING) * 2 + handles(0, 11, 16, 11), "metaindex"),
        (sealed(NOTHING) + sealed(b"\0\1\0a" + NOTHING) + handles(0, 8, 13, 12), "no end"),
        (sealed(NOTHING) + sealed(b"\1\0\0" + NOTHING) + handles(0, 8, 13, 11), "beyond its block"),
        (sealed(NOTHING) + sealed(b"\0\0\1" + NOTHING) + handles(0, 8, 13, 11), "beyond its block"),
        (sealed(NOTHING) * 2 + sealed(b"\0\0\3\0\x08\0" + NOTHING) + handles(13, 8, 26, 14), "end to end"),
        (sealed(NOTHING) * 2 + sealed(b"\0\0\2\0\x08" + NOTHING) + handles(13, 8, 26, 13), "out of order"),
    ],
)
def test_a_table_whose_parts_do_not_fit_is_refused_though_its_checksums_do(tiny, index, word):
    (tiny.parent / INDEX).write_bytes(index)
    assert word in refusal(tiny)


def test_a_data_file_without_its_index_is_read_only_if_the_layout_fits_exactly(tiny):
    data = tiny.parent / DATA
    variables = [(name, array.shape, array.dtype.name) for name, array in TINY.items()]
    with Bundle.from_layout(data, variables) as bundle:
        assert_equal({name: bundle.read(name) for name in bundle.entries}, TINY)
        assert bundle.entries["step"].checksum is None and bundle.files == [data]
    for wrong in (variables[1:], [*variables, ("z", (1,), "float32")]):
        with pytest.raises(UserError, match=f"{DATA} has 44 bytes, and its tensors need"):
            Bundle.from_layout(data, wrong)
    for wrong in ([variables[0], *variables], [("a", (1,), "complex64")]):
        with pytest.raises(ValueError, match="comes twice"):
            Bundle.from_layout(data, wrong)
    with pytest.raises(UserError, match="copy it here first"):
        Bundle.from_layout("gs://bucket/data", variables)
    with pytest.raises(UserError, match="does not exist"):
        Bundle.from_layout(tiny.parent / "nowhere", variables)
    data.rename(tiny.parent / "m.data-00000-of-00002")
    with pytest.raises(UserError, match="one of 2 data files"):
        Bundle.from_layout(tiny.parent / "m.data-00000-of-00002", variables)


def test_tensors_are_read_only_views_that_outlive_the_bundle(tmp_path):
    variables = {"a": np.array([7], "u1"), "b": np.arange(4.0), "c": np.empty((0, 3), "f4"), "d": np.array(2, "u1")}
    write_bundle(tmp_path / "m", variables)
    with Bundle.open(tmp_path) as bundle:
        tensors = {name: bundle.read(name) for name in bundle.entries}
    assert_equal(tensors, variables)
    assert tensors["b"].flags.aligned  # a copy: it lies at byte 1
    for array in tensors.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_name_that_is_not_there_gets_a_suggestion(tiny):
    with Bundle.open(tiny) as bundle, pytest.raises(UserError, match="Did you mean a/kernel"):
        bundle.read("a/kernl")


def test_a_data_file_that_shrinks_while_it_is_open_is_refused(tiny):
    with Bundle.open(tiny) as bundle:
        os.truncate(tiny.parent / DATA, 10)
        with pytest.raises(UserError, match="changed while it was read"):
            bundle.read("step")


def test_a_damaged_tensor_is_found_each_time_and_leaves_the_others_readable(tiny):
    with open(tiny.parent / DATA, "r+b") as file:
        file.seek(5)
        file.write(b"\xff")
    with Bundle.open(tiny) as bundle:
        for _ in range(2):
            with pytest.raises(UserError, match="checksum of tensor 'a/bias'"):
                bundle.read("a/bias")
            assert bundle.read("step") == 7


def test_variables_can_be_made_one_at_a_time(tmp_path):
    made = Counter()

    def ones():
        made["ones"] += 1
        return np.ones((2, 2), "f4")

    write_bundle(tmp_path / "m", [(f"v{n}", "float32", (2, 2), ones) for n in range(3)])
    assert made["ones"] == 3
    assert_equal(read_all(tmp_path), {f"v{n}": np.ones((2, 2), "f4") for n in range(3)})


def test_reading_checkpoints_needs_no_torch_and_no_tensorflow():
    code = "import sys, cngpt.interop.gpt2ml.bundle, cngpt.interop.gpt2ml.tfrecord; print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
