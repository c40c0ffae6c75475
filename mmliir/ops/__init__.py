"""Pure functions on tensors: the core of the toolbox. They import nothing of ours but each other."""

from mmliir.ops.affinity import (
    drawn_negatives_logsumexp,
    joint_softmax,
    negatives_logsumexp,
    window_negatives_logsumexp,
)
from mmliir.ops.coarse_search import coarse_search
from mmliir.ops.color import lab_to_rgb, rgb_to_lab
from mmliir.ops.coords import cells_to_pixels, coordinate_grid, pixels_to_cells
from mmliir.ops.gaussian_mixture import check_mixture_settings, fit_mixture, fit_mixture_rows
from mmliir.ops.local_window import window_logits, window_offsets, window_readout, window_validity
from mmliir.ops.resize import resize_label_map, upsample_field
from mmliir.ops.transfer import to_device
from mmliir.ops.window_topk_attend import HardLabels, MixturePrior, fastest_backend, window_topk_attend

__all__ = [
    'cells_to_pixels',
    'check_mixture_settings',
    'coarse_search',
    'coordinate_grid',
    'drawn_negatives_logsumexp',
    'fastest_backend',
    'fit_mixture',
    'fit_mixture_rows',
    'joint_softmax',
    'lab_to_rgb',
    'negatives_logsumexp',
    'pixels_to_cells',
    'resize_label_map',
    'rgb_to_lab',
    'to_device',
    'upsample_field',
    'window_logits',
    'window_negatives_logsumexp',
    'window_offsets',
    'window_readout',
    'window_validity',
    'HardLabels',
    'MixturePrior',
    'window_topk_attend',
]
