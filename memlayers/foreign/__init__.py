"""Memory layers in models that are not ours, as those of transformers: swapped, swap, groups, remembered, load."""
