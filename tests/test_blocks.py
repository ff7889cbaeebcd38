"""The blocks that a setting chooses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlayers.config import ModelConfig


@given(depth=st.integers(1, 12), data=st.data())
def test_blocks_by_list_name_or_fraction(depth, data):
    def chosen(blocks):
        return ModelConfig(blocks=blocks, depth=depth).chosen_blocks()

    assert chosen("all") == list(range(depth))
    below = chosen("middle")[0]
    assert chosen("middle") == [below] and below - (depth - 1 - below) in (0, 1)  # as many before as after, or one more
    indices = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=5))
    assert chosen(indices) == sorted(set(indices))
    fraction = data.draw(st.floats(0, 1))
    (block,) = chosen(fraction)
    assert 0 <= block < depth and (block <= fraction * depth < block + 1 or fraction * depth == depth == block + 1)
    for wrong in (depth, -1):
        with pytest.raises(
            ValueError, match=rf"block {wrong} is out of range; accepted: .* such as \[{depth - 1}\], from 0"
        ):
            chosen([*indices, wrong])


@pytest.mark.parametrize("blocks", [1, True, [], [0.5], ["0"], [True], None, "last", 1.5, -0.5, math.nan])
def test_blocks_that_make_no_sense_are_refused(blocks):
    with pytest.raises(ValueError) as caught:
        ModelConfig(blocks=blocks).chosen_blocks()
    accepted = "a list of indices such as [1], from 0; all, middle, or a fraction from 0 to 1"
    assert str(caught.value) == f"model.blocks={blocks} is not understood; accepted: {accepted}"
