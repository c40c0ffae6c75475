"""Hooks of the Runner."""

from mmliir.engine.hooks.memory_bank_hook import MemoryBankHook
from mmliir.engine.hooks.step_seed_hook import StepSeedHook

__all__ = ['MemoryBankHook', 'StepSeedHook']
