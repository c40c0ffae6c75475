"""Results and cards to write, show and compare."""

from dataclasses import replace

import numpy as np

from mmliir.evaluation.metrics.results import BenchmarkResult, SequenceResult, combine
from mmliir.evaluation.protocol import DataFingerprint, ProtocolCard

EVIL = '<script>alert("x")</script>'


def sequence(name, j, f=None, num_frames=8, curves=True):
    """One object; the curve of J falls from above its mean to below it."""
    f = j if f is None else f
    slope = np.linspace(0.05, -0.05, num_frames)
    metrics = {'jf_mean': (j + f) / 2, 'j_mean': j, 'f_mean': f, 'j_decay': -0.01}
    return SequenceResult(
        name,
        metrics,
        {key: ((value,), (1.0,)) for key, value in metrics.items()},
        tuple(f'{n:05d}' for n in range(1, num_frames + 1)) if curves else (),
        {'j': tuple((j + slope).tolist()), 'f': tuple((f + slope).tolist())} if curves else {},
    )


def result(rows, num_in_split=None, **changes):
    rows = tuple(rows)
    values = BenchmarkResult(
        'davis2017',
        'val',
        'davis-1',
        {name: combine(rows, name) for name in rows[0].metrics},
        rows,
        len(rows) if num_in_split is None else num_in_split,
    )
    return replace(values, **changes)


def card(**changes):
    values = ProtocolCard(
        protocol='liir_davis',
        settings={'radius': 12, 'topk': 10},
        input={'short_side': 480},
        colour_space='lab',
        model='raw_lab',
        checkpoint_sha256=None,
        data=DataFingerprint(3, 210, 'ab' * 32),
        metric_version='davis-1',
        n_of_N=(3, 3),
        code_version='0.1.0',
        seed=None,
    )
    return replace(values, **changes)
