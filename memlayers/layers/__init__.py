"""The layers. Read in this order: feedforward, dense, product_keys, pool, memory, memory_plus, beside, attention."""
