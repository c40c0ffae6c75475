"""MAST and what grew out of it: hard labels at full resolution, frames 0, 5, t-5, t-3, t-1."""

from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, TaskSettings, cite
from mmliir.propagation.settings import InputSettings, LongRangeSearch, PropagationSettings

MAST_CODE = 'zlai0/MAST@a57b043, benchmark.py and models/colorizer.py'
MAST_SEARCH = (
    'references more than 15 frames old in two steps, dilated by min(4, D // 15 + 1). It reads the labels of all of '
    'them at the offset of the last one, a mistake that LIIR_pytorch corrects; here each has its own, and '
    'labels_from_last=True is parity. Its sampling grid is exact on torch < 1.3 only (models/deform_im2col_util.py); '
    'here always, and align_corners_mismatch=True is parity with later torch'
)
_MAMP = 'bo-miao/MAMP@2f53dcc, models/mamp.py, functions.py and scripts/test_davis.sh'

MAST = Protocol(
    'mast',
    PropagationSettings(
        permanent=(0, 5),
        gaps=(1, 3, 5),
        radius=12,
        long_range=LongRangeSearch(),
        temperature=1.0,
        border='zero_logit',
        carry='hard',
        encoding='subsample',
        grid='frame',
        upsample='mast',
    ),
    InputSettings(),
    cite(
        MAST_CODE,
        fill_with_first=UNUSED,
        permanent_again=UNUSED,
        topk_ties=UNUSED,
        keep_late_frames=NOT_DEFINED,
        long_range=f'{MAST_CODE} searches {MAST_SEARCH}',
        prior=UNUSED,
        fg_gain=UNUSED,
        l2_normalise=f'{MAST_CODE}: plain dot products',
        radius='zlai0/MAST@a57b043, models/mast.py: R = 12 in testing',
        grid=f'{MAST_CODE}: F.interpolate to the size of the labels, 854 pixels from 214 cells',
        input='zlai0/MAST@a57b043, functional/feeder/dataset/DavisLoaderLab.py: native 480p, M = 1, so no padding',
        output_resize='results have the size of the input (native 480p)',
    ),
    tasks={
        'youtube_vos': TaskSettings(
            'MAST scores YouTube-VOS but its code does not; short side 480, frames with given labels stay references '
            '(STM issue #3, MAMP), and t-5, t-3, t-1',
            changes={'permanent': (0,)},
            short_side=480,
        ),
    },
    features='ResNet-18, stride 4, 64 channels; Lab',
)

MAMP = Protocol(
    'mamp',
    PropagationSettings(
        permanent=(0, 5),
        gaps=(1, 3, 5),
        radius=12,
        topk=36,
        topk_ties='share',
        temperature='sqrt_channels',
        border='zero_logit',
        carry='hard',
        encoding='subsample',
        upsample='mast',
    ),
    InputSettings(multiple_of=4, fit='pad'),
    cite(
        _MAMP,
        permanent=f'{_MAMP}: get_davis_ref_index, memory_length 5',
        gaps=f'{_MAMP}: get_davis_ref_index, mem_gap 2',
        fill_with_first=UNUSED,
        permanent_again=UNUSED,
        keep_late_frames='bo-miao/MAMP@2f53dcc, evaluate_ytb.py and get_youtube_ref_index',
        radius=f'{_MAMP}: test_corr_radius 12',
        topk=f'{_MAMP}: torch.topk of 36 over all references, before the soft-max',
        topk_ties=f'{_MAMP}: torch.topk keeps exactly 36; at the border many tie at 0, and all of these lack a label',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_MAMP} and evaluate_davis.py: native 480p, zero-padded to a multiple of 4 (pad_divisible 4)',
        grid='bo-miao/MAMP@2f53dcc, evaluate_davis.py: upsampled to the padded size, then cut',
        output_resize='results have the size of the input (native 480p)',
    ),
    tasks={
        'youtube_vos': TaskSettings(
            'bo-miao/MAMP@2f53dcc, evaluate_ytb.py and scripts/test_ytb.sh: every second pixel of 720p after padding '
            'to a multiple of 16; all frames with given labels and the most recent at gap 2, four in all',
            changes={'permanent': (0,)},
            input=InputSettings(short_side=360, multiple_of=8),
        ),
    },
    features='ResNet-18, stride 4, 64 channels; Lab',
    differences=(
        'its published runs warp features and masks of each reference by RAFT flow first (--optical_flow_warp 1; the '
        "parser's default is 0, which is what is here)",
        'on YouTube-VOS each later frame with given labels takes the place of a recent one; here it comes in addition',
        'on YouTube-VOS labels are read at every eighth pixel of the padded 720p frame; here of the frame at 360p',
    ),
)
