"""UVC: the whole frame of each reference, its five best cells, the mean over references."""

from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, TaskSettings, cite
from mmliir.propagation.settings import InputSettings, PointSettings, PropagationSettings

_UVC = 'Liusifei/UVC@4336938, test.py and libs/test_utils.py'
_JHMDB = 'Liusifei/UVC@f1b6fd9 (branch jhmdb), test_jhmdb.py and libs/jhmdb_test_dense_fix_slide.py'

UVC = Protocol(
    'uvc',
    PropagationSettings(
        permanent=(0,),
        gaps=tuple(range(1, 8)),
        radius=None,
        topk=5,
        topk_scope='per_reference',
        normalise='softmax_then_topk',
        temperature=1.0,
        border='mask',
        carry='soft',
        encoding='nearest',
        grid='frame',
        upsample='mast',
        output_resize='labels',
        min_max=True,
    ),
    InputSettings(short_side=480, multiple_of=64, fit='floor_long_side', resize='opencv'),
    cite(
        _UVC,
        gaps=f'{_UVC}: pre_num 7',
        fill_with_first=UNUSED,
        permanent_again=UNUSED,
        keep_late_frames=NOT_DEFINED,
        radius=f'{_UVC}: none',
        shape=UNUSED,
        border=UNUSED,
        topk=f'{_UVC}: 5, by threshold',
        topk_scope=f'{_UVC}: each reference alone, then the mean',
        topk_ties=f'{_UVC}, transform_topk: by threshold, so that ties are kept',
        normalise=f'{_UVC}, transform_topk: what is left of the soft-max is not normalised again',
        temperature='Liusifei/UVC@4336938, test.py and libs/model.py: temp 1 (there it multiplies)',
        grid=f'{_UVC}: read_seg resizes the label map from its own size to the cells at once',
        min_max='Liusifei/UVC@4336938, libs/utils.py, norm_mask',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_UVC}: -s 480, long side rounded down to a multiple of 64; read_frame: cv2.resize of 8-bit frames',
    ),
    tasks={
        'vip': TaskSettings(
            'Liusifei/UVC@4336938, README.md and test_mask_vip.py: --scale_size 560 560 --pre_num 1',
            changes={'gaps': (1,)},
            input=InputSettings(size=(560, 560), resize='opencv'),
        ),
        'jhmdb': TaskSettings(
            f'{_JHMDB}; README.md of the branch: --topk_vis 20 --sigma 0.5 --cropSize 320. videoLen 8 is the first '
            'frame and 7 recent ones, with 8 copies of it before the video; coordinates from the best 5 cells',
            changes={'topk': 20, 'topk_ties': 'share', 'fill_with_first': True},
            input=InputSettings(size=(320, 320), resize='opencv'),
            points=PointSettings(
                sigma=0.5,
                drawn_at='cells',
                draw='stamp',
                background=True,
                min_max=True,
                decoded_at='cells',
                decode_topk=5,
            ),
        ),
    },
    features='ResNet-18, stride 8; L of Lab, three times',
    differences=(
        'test_with_track.py, another script, follows a box around each object first; this is test.py',
        'frames of JHMDB are resized by cv2 in float; here in 8 bits, which is up to half a grey level',
        'on JHMDB the maps are carried on as they are read, each stretched to 0..1; here as they were propagated',
    ),
)
