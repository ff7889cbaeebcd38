"""Federated learning: clients that hold different facts train in rounds, and a server merges what they send.

common model  ->  each client: its steps of the round on its own documents  ->  merge  ->  common model of the next

The loop is our own. flwr 1.42 does not fit constraints.txt: it wants protobuf < 7, typer < 0.21 and rich < 15, and ray
for its simulation.
"""

from memlayers.training.federated.rounds import federate

__all__ = ["federate"]
