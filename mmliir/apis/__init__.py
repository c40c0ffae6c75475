"""What a program calls: `propagate` here, and one module for each command (`train`, `evaluate`)."""

from mmliir.apis.propagate import Propagation, WrittenMasks, propagate, write_propagation

__all__ = ['Propagation', 'WrittenMasks', 'propagate', 'write_propagation']
