"""Losses: modules with settings and one tensor formula each."""

from mmliir.models.losses.compactness_prior_loss import CompactnessPriorLoss
from mmliir.models.losses.reconstruction_loss import ReconstructionLoss

__all__ = ['CompactnessPriorLoss', 'ReconstructionLoss']
