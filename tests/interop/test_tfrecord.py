import gzip
import json

import numpy as np
import pytest
from google_crc32c import value
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.errors import UserError
from cngpt.files import write_text
from cngpt.interop.gpt2ml.tfrecord import rows
from tests.interop.bundle_writer import mask, number, submessage, varint


def ids_list(ids, packed: bool = True) -> bytes:
    """A Feature with an Int64List."""
    numbers = [varint(n % (1 << 64)) for n in ids]
    return submessage(3, submessage(1, b"".join(numbers)) if packed else b"".join(b"\x08" + n for n in numbers))


def example(**features: bytes) -> bytes:
    pairs = (submessage(1, name.encode()) + submessage(2, feature) for name, feature in features.items())
    return submessage(1, b"".join(submessage(1, pair) for pair in pairs))


def record(content: bytes) -> bytes:
    length = len(content).to_bytes(8, "little")
    return length + mask(value(length)) + content + mask(value(content))


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        list(rows(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_those_that_gpt2_ml_wrote(shared):
    folder = shared("golden/tfrecord")
    expected = json.loads((folder / "expected.json").read_text())["files"]
    assert len(expected) == 4
    for name, file in expected.items():
        read = list(rows(folder / name))
        assert len(read) == file["records"]
        assert {len(row) for row in read} == set(file["record_length"])
        assert {row.dtype for row in read} == {np.dtype(np.int64)}
        assert [np.trim_zeros(row, "b").tolist() for row in read] == file["ids_without_trailing_pad"], name


int64 = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(int64, max_size=30), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_what_was_written_is_read(tmp_path_factory, expected, packed, compress):
    path = tmp_path_factory.mktemp("rows") / "a.tfrecord"
    content = b"".join(record(example(input_ids=ids_list(ids, packed), other=submessage(1, b""))) for ids in expected)
    path.write_bytes(gzip.compress(content) if compress else content)
    assert [row.tolist() for row in rows(path)] == expected


def test_packed_and_single_numbers_may_alternate(tmp_path):
    mixed = submessage(3, number(1, 5) + submessage(1, b"\x06\x07") + number(1, 8))
    (tmp_path / "a").write_bytes(record(example(input_ids=mixed)))
    assert next(rows(tmp_path / "a")).tolist() == [5, 6, 7, 8]


def test_no_flipped_bit_and_no_truncation_goes_unnoticed(tmp_path):
    first, second = (record(example(input_ids=ids_list(ids))) for ids in ([1, 300], [70000]))
    whole, path = first + second, tmp_path / "a.tfrecord"
    for at in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert f"damaged at record {1 if at // 8 < len(first) else 2}: " in refusal(path)
    for length in set(range(1, len(whole))) - {len(first)}:  # between two records, nothing tells that there were more
        path.write_bytes(whole[:length])
        assert f"damaged at record {1 if length < len(first) else 2}: it is cut off" in refusal(path)


def test_damage_to_a_gzip_file_never_changes_a_row(tmp_path):
    whole, path = gzip.compress(record(example(input_ids=ids_list(range(20)))), mtime=0), tmp_path / "a.tfrecord.gz"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert "damaged at record" in refusal(path)
    refused = 0
    for at in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            assert [row.tolist() for row in rows(path)] == [
                list(range(20))
            ]  # the header has bits that mean nothing, such as a time
        except UserError:
            refused += 1
    assert refused > 8 * (len(whole) - 10)


def test_a_record_as_long_as_the_magic_number_of_gzip_is_not_taken_for_gzip(tmp_path):
    ids = [7] * (0x088B1F - len(example(input_ids=ids_list([7] * 0x080000))) + 0x080000)
    content = example(input_ids=ids_list(ids))
    assert record(content).startswith(b"\x1f\x8b\x08")
    (tmp_path / "a").write_bytes(record(content))
    assert next(rows(tmp_path / "a")).tolist() == ids


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "has no feature 'input_ids', only nothing"),
        (example(text=submessage(1, b""), label=ids_list([1])), "has no feature 'input_ids', only 'label', 'text'"),
        (example(input_ids=submessage(2, b"")), "is no list of int64"),
        (example(input_ids=submessage(1, b"")), "is no list of int64"),
        (example(input_ids=b""), "is no list of int64"),
        (example(input_ids=ids_list([1])) * 2, "twice"),
        (example(input_ids=submessage(3, submessage(1, b"\x80"))), "no end"),
        (example(input_ids=submessage(3, submessage(1, b"\xff" * 9 + b"\x02"))), "not written as it should be"),
        (example(input_ids=submessage(3, submessage(1, b"\x80" * 10 + b"\x01"))), "not written as it should be"),
        (example(input_ids=submessage(3, submessage(2, b""))), "unexpected field 2"),
        (b"\x0a\x05abc", "longer than its message"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_a_sound_record_of_something_else_is_refused(tmp_path, content, word):
    (tmp_path / "a").write_bytes(record(example(input_ids=ids_list([1]))) + record(content))
    message = refusal(tmp_path / "a")
    assert word in message and "record 2" in message


def test_files_that_are_no_records_are_refused(tmp_path):
    for name, content, word in [
        ("empty", b"", "is empty"),
        ("gz", gzip.compress(b""), "is empty"),
        ("text", b"{}" * 20, "if this is a TFRecord"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert word in refusal(tmp_path / name)
    huge = (1 << 60).to_bytes(8, "little")
    (tmp_path / "huge").write_bytes(huge + mask(value(huge)))
    assert "more than a record can have" in refusal(tmp_path / "huge")
    assert "does not exist" in refusal(tmp_path / "nowhere") and "folder" in refusal(tmp_path)
    write_text("memory://rows/a.tfrecord", "not one")
    assert "cut off" in refusal("memory://rows/a.tfrecord") and "does not exist" in refusal("memory://rows/none")
