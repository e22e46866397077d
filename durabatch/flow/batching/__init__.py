"""
Which items make a batch: strategies behind one small interface, chosen by name.

    fixed     so many items
    memory    fewer when the machine's memory runs short
    time      as many as take about so long
    bytes     as many as have about so many bytes of payload
"""

from durabatch.flow.batching.bytes import ByteBatches
from durabatch.flow.batching.fixed import FixedBatches
from durabatch.flow.batching.memory import MemoryBatches
from durabatch.flow.batching.registry import strategy, strategy_names
from durabatch.flow.batching.strategy import BatchSettings, BatchStrategy, Filled, Measured
from durabatch.flow.batching.time import TimeBatches

__all__ = [
    "BatchSettings",
    "BatchStrategy",
    "ByteBatches",
    "Filled",
    "FixedBatches",
    "Measured",
    "MemoryBatches",
    "TimeBatches",
    "strategy",
    "strategy_names",
]
