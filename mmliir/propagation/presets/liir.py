"""LIIR as its text says, and as LIIR_pytorch does it."""

from mmliir.propagation.presets.mast import MAST_CODE, MAST_SEARCH
from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, TaskSettings, cite
from mmliir.propagation.settings import (
    InputSettings,
    LongRangeSearch,
    MixturePrior,
    PointSettings,
    PropagationSettings,
)

_PAPER = 'LIIR, CVPR 2022 (arXiv 2203.14333)'
_UNOFFICIAL = 'shasha521/LIIR_pytorch@21c7ba5, evaluate_davis.py and models/colorizer_momen.py'
_ENCODING = f'{MAST_CODE}: labels are taken as [::4] of the full-resolution hard mask; the LIIR text follows MAST here'
_SHARED = {
    'permanent': f'{_PAPER}, section 3.3: frames 0 and 5 "if applicable"',
    'gaps': f'{_PAPER}, section 3.3: frames t-5, t-3, t-1',
    'fill_with_first': UNUSED,
    'permanent_again': UNUSED,
    'topk_ties': UNUSED,
    'keep_late_frames': NOT_DEFINED,
    'window_on_permanent': f'{MAST_CODE} and {_UNOFFICIAL}: a window on every reference',
    'grid': f'{_UNOFFICIAL}: frames are padded, the field is upsampled by 4 and cut',
    'output_resize': 'results have the size of the input (native 480p)',
}
_TASKS = {
    'vip': TaskSettings(
        f'{_PAPER} does not say; its references and window on DAVIS, at the 560 x 560 of UVC and Spa-then-Temp',
        input=InputSettings(size=(560, 560), multiple_of=4),
    ),
    'jhmdb': TaskSettings(
        f'{_PAPER} does not say; its references and window on DAVIS, at the 320 x 320 of UVC, CRW and VFS. Points as '
        'in VFS, whose encoding does not depend on the stride',
        changes={'carry': 'soft'},
        input=InputSettings(size=(320, 320), multiple_of=4),
        points=PointSettings(),
    ),
    'youtube_vos': TaskSettings(
        f'{_PAPER} names the evaluation server only; short side 480, all frames, frames with given labels stay '
        'references (STM issue #3, MAMP), and t-5, t-3, t-1',
        changes={'permanent': (0,)},
        input=InputSettings(short_side=480, multiple_of=4),
    ),
}
_FEATURES = 'ResNet-18, stride 4, 64 channels, with position encoding; Lab'

LIIR_PAPER = Protocol(
    'liir_paper',
    PropagationSettings(
        permanent=(0, 5),
        gaps=(1, 3, 5),
        radius=12,
        temperature='sqrt_channels',
        border='zero_logit',
        long_range=LongRangeSearch(),
        prior=MixturePrior(num_mixtures=2, estimator='moments', threshold=None, keep_mass=True),
        carry='hard',
        encoding='subsample',
        upsample='mast',
        fg_gain=1.0,
    ),
    InputSettings(multiple_of=4, fit='pad'),
    cite(
        f'{_PAPER} leaves it open; as in {MAST_CODE}',
        **_SHARED,
        radius=f'{_PAPER} leaves it open; {MAST_CODE}: 12',
        long_range=f'{_PAPER} propagates "as in" MAST; {MAST_CODE} searches {MAST_SEARCH}',
        temperature=(
            f'{_PAPER} prints none; square root of the channels as in MAMP (issue #4: MAST does not '
            'converge well without rescaling the affinity)'
        ),
        prior=(
            f'{_PAPER}, section 3.2 and appendix A: the affinity is replaced by the mixture (Eq. 7), '
            'K = 2 in training and inference, parameters estimated from the affinity. Our reading: a '
            'component weighs what its cells weigh, so that a reference keeps its share of the joint '
            'soft-max'
        ),
        fg_gain=f'{_PAPER} mentions none',
        topk=f'{_PAPER} mentions none',
        encoding=_ENCODING,
        input=f'native 480p; {_UNOFFICIAL}: padded right and below to a multiple of 4, mid-grey',
    ),
    tasks=_TASKS,
    features=_FEATURES,
    differences=('no code was published: what the text leaves open follows the source named',),
)

LIIR_COMPAT = Protocol(
    'liir_compat',
    PropagationSettings(
        permanent=(0, 5),
        gaps=(1, 3, 5),
        radius=14,
        temperature=1.0,
        border='zero_logit',
        prior=MixturePrior(num_mixtures=2, estimator='fixed', threshold=0.1),
        carry='hard',
        encoding='subsample',
        upsample='mast',
        fg_gain=1.05,
    ),
    InputSettings(multiple_of=4, fit='pad'),
    cite(
        _UNOFFICIAL,
        **_SHARED,
        long_range=f'{_UNOFFICIAL}: plain window; the two-step search is switched off for the 72.2 model',
    ),
    tasks=_TASKS,
    features=_FEATURES,
    differences=('it evaluates DAVIS only; other benchmarks as in `liir_paper`',),
)
