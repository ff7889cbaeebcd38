"""The layers.

Read in this order: feedforward, dense, rows, product_keys, pool, memory, memory_plus, beside, attention, updates.
"""
