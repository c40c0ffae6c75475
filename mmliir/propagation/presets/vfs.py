"""VFS and the trackers that grew out of its code: cosine similarity, temperature 0.07, the ten best cells."""

from dataclasses import replace

from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, TaskSettings, cite
from mmliir.propagation.settings import InputSettings, PointSettings, PropagationSettings

_VFS = 'xvjiarui/VFS@8e055cc, configs/r18_nc_*.py and mmaction/models/trackers/vanilla_tracker.py'
_SPA = 'qianduoduolr/Spa-then-Temp@4c94362, configs/test/res18_d4.py and res50_d4.py'
_SPA_DATA = 'qianduoduolr/Spa-then-Temp@4c94362, configs/test/base_data.py'
_FGVC = 'qianduoduolr/FGVC@2b6bcf0, configs/eval/res18_d1_eval.py'
_FGVC_TRACKER = 'qianduoduolr/FGVC@2b6bcf0, mmpt/models/trackers/vanilla_tracker.py'
_FGVC_DATA = 'qianduoduolr/FGVC@2b6bcf0, configs/eval/base_data.py'
_RESIZE = 'mmcv.imresize, which is cv2.resize of 8-bit frames, bilinear'
_AGAIN = 'with_first adds frame 0 to the precede_frames last ones, also while it is one of them'
_TIES = 'masked_attention_efficient: affinity.topk keeps exactly k; two copies of frame 0 tie'

VFS = Protocol(
    'vfs',
    PropagationSettings(
        permanent=(0,),
        gaps=tuple(range(1, 21)),
        permanent_again=True,
        radius=12,
        shape='circle',
        window_on_permanent=True,
        topk=10,
        topk_ties='share',
        temperature=0.07,
        l2_normalise=True,
        border='mask',
        carry='soft',
        encoding='nearest',
        grid='frame',
        upsample='mast',
        output_resize='field',
        min_max=True,
    ),
    InputSettings(short_side=480, resize='opencv'),
    cite(
        _VFS,
        fill_with_first=UNUSED,
        permanent_again=f'{_VFS}: {_AGAIN}',
        keep_late_frames=NOT_DEFINED,
        radius=f'{_VFS}: neighbor_range 24, a circle of radius 12',
        shape='xvjiarui/VFS@8e055cc, mmaction/models/common/affinity_utils.py: distance below the radius',
        window_on_permanent=f'{_VFS}: with_first_neighbor',
        topk_ties=f'xvjiarui/VFS@8e055cc, mmaction/models/common/local_attention.py, {_TIES}',
        grid=f'{_VFS}: pil_nearest_interpolate to the size of the feature, F.interpolate to original_shape',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_VFS}: short side 480, ratio kept; mmaction/datasets/pipelines/augmentations.py: {_RESIZE}',
    ),
    tasks={
        'jhmdb': TaskSettings(
            'xvjiarui/VFS@8e055cc, mmaction/datasets/jhmdb_dataset.py: sigma 4 in pixels of the frame, best 5 pixels '
            'of it. No configuration was published: 320 x 320 as in Spa-then-Temp, references and window as on DAVIS',
            input=InputSettings(size=(320, 320), resize='opencv'),
            points=PointSettings(draw='stamp'),
        ),
    },
    features='ResNet-18 with layer3 at stride 8 (strides 1, 2, 1, 1), 256 channels; RGB',
    differences=(
        'where frames are resized, labels go to the size of the input first, then to the cells, each by nearest '
        'neighbour; here at once',
    ),
)

SPA_THEN_TEMP = Protocol(
    'spa_then_temp',
    replace(VFS.settings, radius=35, shape='square'),
    InputSettings(short_side=480, resize='opencv'),
    cite(
        f'{_SPA}, and vcl/models/trackers/vanilla_tracker.py, which is the tracker of VFS',
        fill_with_first=UNUSED,
        permanent_again=f'{_SPA}: {_AGAIN}',
        keep_late_frames=NOT_DEFINED,
        radius=f'{_SPA}: neighbor_range 70 at stride 4; res18_d8.py and res50_d8.py: 24 at stride 8, a radius of 12',
        shape=f"{_SPA}: mode='square'",
        topk_ties=f'{_SPA}: {_TIES}',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_SPA_DATA}: short side 480, ratio kept; vcl/datasets/pipelines/augmentation.py: {_RESIZE}',
    ),
    tasks={
        'vip': TaskSettings(
            f'{_SPA_DATA}: 560 x 560; {_SPA}: neighbor_range 70 (at stride 8: 32)',
            input=InputSettings(size=(560, 560), resize='opencv'),
        ),
        'jhmdb': TaskSettings(
            f'{_SPA_DATA}: 320 x 320; {_SPA}: neighbor_range 24 (at stride 8: 10); vcl/datasets/jhmdb_dataset.py: '
            'sigma 4 in pixels of the frame, best 5 pixels of it',
            changes={'radius': 12},
            input=InputSettings(size=(320, 320), resize='opencv'),
            points=PointSettings(draw='stamp'),
        ),
    },
    features='ResNet-18 or ResNet-50, layer3 at stride 4 (also 8); Lab',
    differences=(
        'labels of resized frames as in `vfs`',
        'radii are those of stride 4; its models at stride 8 have others',
    ),
)

FGVC = Protocol(
    'fgvc',
    replace(VFS.settings, gaps=(1, 2, 3, 4, 5), radius=15),
    InputSettings(short_side=480, resize='opencv'),
    cite(
        f'{_FGVC}, and {_FGVC_TRACKER}',
        gaps=f'{_FGVC}: precede_frames 5',
        fill_with_first=UNUSED,
        permanent_again=f'{_FGVC_TRACKER}: {_AGAIN}',
        keep_late_frames=NOT_DEFINED,
        radius=f'{_FGVC}: neighbor_range 30, a circle of radius 15',
        topk_ties=f'{_FGVC_TRACKER}: {_TIES}',
        encoding='it propagates points only; masks as in `vfs`, whose tracker it is',
        output_resize='it propagates points only; masks as in `vfs`, whose tracker it is',
        min_max='it propagates points only; masks as in `vfs`, whose tracker it is',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input='it propagates points only; masks at the size of `vfs`',
    ),
    tasks={
        'tapvid': TaskSettings(
            f'{_FGVC_DATA}: 256 x 256, by {_RESIZE}; {_FGVC_TRACKER}: sigma 6 in pixels of the input, labels '
            '[::stride] of the map, best 5 pixels of the upsampled map',
            input=InputSettings(size=(256, 256), resize='opencv'),
            points=PointSettings(sigma=6.0, drawn_at='input', reduce='subsample', decoded_at='input'),
        ),
        'jhmdb': TaskSettings(
            f'{_FGVC_DATA}: 320 x 320; mmpt/datasets/jhmdb_dataset.py after that of VFS: sigma 4 in pixels of the '
            'frame, best 5 pixels of it',
            input=InputSettings(size=(320, 320), resize='opencv'),
            points=PointSettings(draw='stamp'),
        ),
        'badja': TaskSettings(
            f'{_FGVC_DATA}: size (320, 512), sigma 3, scale 2: drawn at half the input; here 6 pixels of the input, '
            'which do not depend on the stride; mmpt/datasets/badja_dataset.py: best 5 pixels at the size of the input',
            input=InputSettings(size=(320, 512), resize='opencv'),
            points=PointSettings(sigma=6.0, drawn_at='input', draw='stamp', decoded_at='input'),
        ),
    },
    features='ResNet-18 up to layer3, stride 2 (strides 1, 1, 1, no pooling), 256 channels; Lab',
    differences=(
        'its JHMDB and BADJA runs cannot start from the released code (the tracker takes TAP-Vid input only; the BADJA '
        'configuration names a data set that is not registered)',
        'it predicts no visibility',
    ),
)
