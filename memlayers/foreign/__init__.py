"""Memory layers in other models, such as those of transformers.

Read: swapped, swap, groups, remembered, load, taught, teach.
"""
