import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.errors import UserError
from cngpt.tokens.shards import Shards, ShardWriter

EOS = 1
documents_of_ids = st.lists(st.lists(st.integers(2, 99), max_size=40), max_size=30)


def write(folder, documents, vocab_size=100, shard_bytes=64):
    with ShardWriter(folder, fingerprint="f", vocab_size=vocab_size, eos_id=EOS, shard_bytes=shard_bytes) as writer:
        for ids in documents:
            writer.add([np.array(ids, dtype=np.int32)], [len(ids)])
        return writer.close({"source": "test"})


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "shards", [[5] * 20, [6] * 30, [7, 8, 9]])
    return tmp_path / "shards"


@settings(max_examples=40, deadline=None)
@given(documents_of_ids, st.data())
def test_what_is_read_is_what_was_written_at_any_position(tmp_path_factory, documents, data):
    folder = tmp_path_factory.mktemp("s") / "shards"
    manifest = write(folder, documents)
    stream = np.array([i for ids in documents for i in [*ids, EOS]], dtype=np.int64)
    shards = Shards(folder)
    assert (shards.tokens, shards.documents, shards.characters) == (len(stream), len(documents), len(stream) - len(documents))
    assert shards.manifest == manifest
    start = data.draw(st.integers(0, len(stream)))
    count = data.draw(st.integers(0, len(stream) - start))
    piece = shards.read(start, count)
    assert piece.dtype == np.int64
    assert piece.tolist() == stream[start : start + count].tolist()
    assert [shards.document(i).tolist() for i in range(len(documents))] == documents
    shards.verify()


def test_documents_do_not_span_shards_and_sizes_follow_shard_bytes(tmp_path):
    manifest = write(tmp_path / "s", [[5] * 9] * 20, shard_bytes=100)  # 10 tokens, 20 bytes each
    assert [s["documents"] for s in manifest["shards"]] == [5, 5, 5, 5]
    assert [s["file"] for s in manifest["shards"]] == ["00000.bin", "00001.bin", "00002.bin", "00003.bin"]


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(21_128, "uint16"), (65_535, "uint16"), (65_536, "uint32"), (119_547, "uint32")]
)
def test_large_vocabularies_take_four_bytes(tmp_path, vocab_size, dtype):
    write(tmp_path / "s", [[vocab_size - 1]], vocab_size)
    shards = Shards(tmp_path / "s")
    assert shards.dtype == np.dtype(dtype)
    assert shards.read(0, 2).tolist() == [vocab_size - 1, EOS]


def test_ids_outside_the_vocabulary_are_refused_instead_of_wrapped(tmp_path):
    with pytest.raises(ValueError, match="vocabulary of 100"):
        write(tmp_path / "s", [[5], [100]])
    assert os.listdir(tmp_path) == []


def test_reading_outside_raises(folder):
    shards = Shards(folder)
    for start, count in (-1, 2), (0, 57), (56, 1):
        with pytest.raises(IndexError):
            shards.read(start, count)
    with pytest.raises(IndexError):
        shards.document(3)
    assert shards.read(56, 0).tolist() == []


def test_an_unfinished_writer_leaves_no_folder(tmp_path):
    writer = ShardWriter(tmp_path / "s", fingerprint="f", vocab_size=100, eos_id=EOS)
    writer.add([np.array([5])], [1])
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match="task=prepare"):
        Shards(tmp_path / "s")
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_a_truncated_file_is_named_at_opening(folder):
    path = folder / "00001.bin"
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(UserError, match=r"00001\.bin has .* bytes, the manifest says .*overwrite=true"):
        Shards(folder)


@pytest.mark.parametrize("name", ["00000.bin", "00000.idx", "manifest.json"])
def test_a_missing_file_is_named_at_opening(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}.* is missing"):
        Shards(folder)


def test_a_foreign_shard_is_named_at_opening(folder):
    (folder / "00007.bin").write_bytes(b"00")
    with pytest.raises(UserError, match=r"00007\.bin is not in the manifest"):
        Shards(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "null"])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest|format"):
        Shards(folder)


@pytest.mark.parametrize("name", ["00001.bin", "00000.idx"])
def test_a_flipped_bit_is_found_by_verify(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[3] ^= 4
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} does not have the checksum"):
        Shards(folder).verify()


def test_a_pickled_copy_is_small_and_reads_the_same(folder):
    shards = Shards(folder)
    shards.read(0, 56)
    data = pickle.dumps(shards)
    assert len(data) < 1000
    assert pickle.loads(data).read(3, 50).tolist() == shards.read(3, 50).tolist()


def test_an_opening_token_that_is_not_the_end_stands_before_each_document(tmp_path):
    options = {"fingerprint": "f", "vocab_size": 100, "eos_id": EOS}
    for name, opening, want in (
        ("cls", 7, [7, 5, 5, EOS, 7, EOS]),
        ("eos", EOS, [5, 5, EOS, EOS]),
        ("none", None, [5, 5, EOS, EOS]),
    ):
        with ShardWriter(tmp_path / name, opening_id=opening, **options) as writer:
            writer.add([np.array([5, 5]), np.array([], int)], [2, 0])
            writer.close()
        shards = Shards(tmp_path / name)
        assert shards.read(0, shards.tokens).tolist() == want
