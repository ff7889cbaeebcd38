"""Settings flattened to dotted keys, and which of them differ."""

from hypothesis import given
from hypothesis import strategies as st
from stubs import leaves

from memlayers.config.digest import differing, flatten

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


@given(several=st.lists(st.dictionaries(keys, st.integers(0, 2), max_size=3), min_size=1, max_size=4))
def test_what_differs_is_told_of_each(several):
    for one, told in zip(several, differing(several), strict=True):
        same = {key for key in one if all(key in other and other[key] == one[key] for other in several)}
        assert dict(word.split("=") for word in told.split()) == {k: str(v) for k, v in one.items() if k not in same}
