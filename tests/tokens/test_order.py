"""The order of windows: each once an epoch, a function of (seed, n), the same for every division of the work."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.tokens.order import Batches, window


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_an_epoch_reads_every_window_once(count, seed, epoch):
    read = window(np.arange(epoch * count, (epoch + 1) * count), seed, count)
    assert np.array_equal(np.sort(read), np.arange(count))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 10**14), seed=st.integers(0, 2**60), count=st.integers(1, 10**13))
def test_any_window_of_any_corpus_is_computed_at_once(n, seed, count):
    number = window(n, seed, count)
    assert 0 <= number < count and number == window(np.array([n, n + 1]), seed, count)[0]


def test_epochs_and_seeds_differ_and_neighbours_part():
    first, second, other = (window(np.arange(n, n + 1000), seed, 1000) for n, seed in ((0, 1), (1000, 1), (0, 2)))
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1
    assert np.mean(np.abs(np.diff(first)) == 1) < 0.02


@settings(max_examples=40, deadline=None)
@given(world=st.sampled_from([1, 2, 4, 8]), accumulate=st.sampled_from([1, 2, 4]), step=st.integers(0, 1000))
def test_a_step_reads_the_same_windows_for_every_world_and_accumulation(world, accumulate, step):
    batches = Batches(micro=32 // (world * accumulate), accumulate=accumulate, world=world)
    read = [batches.numbers(step, part, rank) for rank in range(world) for part in range(accumulate)]
    assert np.array_equal(np.concatenate(read), np.arange(step * 32, (step + 1) * 32))
