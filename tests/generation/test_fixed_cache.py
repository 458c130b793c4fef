"""The cache for XLA, whose shapes and constants never change, gives what the growing one gives."""

import torch
from torch.testing import assert_close

from cngpt.generation.fixed_shapes import FixedCache
from cngpt.model.cache import Cache


def read(cache, gpt, ids, sizes):
    with torch.no_grad():
        return torch.cat([gpt(piece, cache) for piece in ids.split(sizes, dim=1)], dim=1)


def test_reading_in_pieces_with_a_fixed_cache_equals_reading_at_once(gpt):
    ids = torch.randint(64, (3, 20))
    cache = FixedCache.for_model(gpt)
    assert_close(read(cache, gpt, ids, [7, 1, 1, 11]), gpt(ids), atol=1e-5, rtol=1e-5)
    assert cache.length == cache.end == 20


def test_rows_that_begin_with_padding_read_the_same_from_either_cache(gpt):
    ids, padding = torch.randint(64, (3, 12)), torch.tensor([0, 3, 5])
    fixed, growing = (read(kind.for_model(gpt, padding=padding), gpt, ids, [8, 1, 3]) for kind in (FixedCache, Cache))
    for row, first in enumerate(padding):
        assert_close(fixed[row, first:], growing[row, first:], atol=1e-5, rtol=1e-5)


def test_no_shape_and_no_number_of_the_cache_changes_as_it_fills(gpt):
    cache = FixedCache.for_model(gpt, padding=torch.zeros(1, dtype=torch.int64))
    seen = set()
    for token in torch.randint(64, (5, 1, 1)):
        read(cache, gpt, token, [1])
        seen.add((*(tuple(t.shape) for t in cache.tensors()), tuple(cache.mask(1, "cpu").shape)))
    assert len(seen) == 1
