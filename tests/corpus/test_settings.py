"""The groups `data` and `prepare`: what is wrong is one line that begins with the key."""

import pytest

from cngpt.corpus.settings import Data, Prepare
from cngpt.errors import ConfigError

SOURCES = [{"reader": "files", "root": "texts"}]


def test_memory_is_an_amount():
    for typed, number in ("8GB", 8_000_000_000), ("500M", 500_000_000), (10**9, 10**9):
        assert Prepare(memory=typed).bytes == number
    for wrong in ("8 gallons", "1MB", "-1GB", ""):
        with pytest.raises(ConfigError, match=r"prepare\.memory=.*: an amount such as 8GB, 100MB at least"):
            Prepare(memory=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 2.5}, r"prepare\.processes=2\.5: a whole number above 0, or auto"),
        ({"processes": True}, r"prepare\.processes=true: a whole number above 0, or auto"),
        ({"processes": 0}, r"prepare\.processes=0: must be above 0, or auto"),
        ({"engine": "datatroove"}, r"prepare\.engine=datatroove: one of local, datatrove, .* Did you mean datatrove\?"),
        ({"shard_mb": 0}, r"prepare\.shard_mb=0: must be above 0"),
        ({"texts": "gs://b/t"}, r"prepare\.texts=gs://b/t: the clean texts stay on a local disk; prepare\.out may be remote"),
        ({"out": ["SEP"]}, r"prepare\.out=\[SEP\]: a text"),
        ({"slurm": {"tasks": 0}}, r"prepare\.slurm\.tasks=0: must be above 0"),
        ({"slurm": {"tsks": 4}}, r"prepare\.slurm\.tsks: no such key; .*Did you mean tasks\?"),
        ({"workers": 4}, r"prepare\.workers: no such key; .*Did you mean prepare\.processes\?"),
    ],
)
def test_a_wrong_key_of_prepare_is_one_line(options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Prepare(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, r"data\.sources=\[\]: a list of mappings"),
        ({"sources": [{"reader": "files"}]}, r"data\.sources: {reader: files} is no mapping with the texts reader and root"),
        ({"sources": ["a"]}, r"data\.sources: a is no mapping"),
        ({"valid_fraction": 0.6}, r"data\.valid_fraction=0\.6: must be from 0 to 0\.5"),
        ({"weights": {"wiki": 0}}, r"data\.weights\.wiki=0: how often it is read in one pass, above 0 and at most 100"),
        ({"weights": {"wiki": True}}, r"data\.weights\.wiki=true: how often"),
        ({"split": "words"}, r"data\.split=words: one of file, line, blank"),
        ({"path": "texts"}, r"data\.path: no such key; .*Did you mean data\.root\?"),
    ],
)
def test_a_wrong_key_of_data_is_one_line(options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Data(**{"name": "files", "sources": SOURCES, **options})


def test_numbers_stay_as_they_were_typed_for_hashes_are_made_of_them():
    data = Data(name="files", sources=[{**SOURCES[0], "weight": 2}], valid_fraction=0)
    assert type(data.valid_fraction) is int and data.sources[0]["weight"] == 2
    assert Prepare(out=2024).out == "2024"
