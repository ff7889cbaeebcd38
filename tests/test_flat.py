"""Settings flattened to dotted keys."""

from hypothesis import given
from hypothesis import strategies as st
from stubs import leaves

from memlayers.config.digest import flatten

keys = st.text("abc", min_size=1, max_size=2)
plain = st.integers() | st.none() | st.lists(st.integers(), max_size=2)
trees = st.recursive(plain, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3))


@given(tree=st.dictionaries(keys, trees, max_size=4))
def test_flat_keys_lead_back_to_their_leaves(tree):
    flat = flatten(tree)
    for key, value in flat.items():
        node = tree
        for name in key.split("."):
            node = node[name]
        assert node == value and not isinstance(node, dict)
    assert len(flat) == len(leaves(tree))
