"""Hooks of the Runner."""

from mmliir.engine.hooks.finite_loss_hook import FiniteLossHook
from mmliir.engine.hooks.gradient_norm_hook import GradientNormHook
from mmliir.engine.hooks.memory_bank_hook import MemoryBankHook
from mmliir.engine.hooks.progress_hook import ProgressHook
from mmliir.engine.hooks.propagation_eval_hook import PropagationEvalHook
from mmliir.engine.hooks.step_seed_hook import StepSeedHook

__all__ = [
    'FiniteLossHook',
    'GradientNormHook',
    'MemoryBankHook',
    'ProgressHook',
    'PropagationEvalHook',
    'StepSeedHook',
]
