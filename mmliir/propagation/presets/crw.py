"""CRW and the protocols that run its propagation code: soft labels on cells, the first frame without a window."""

from dataclasses import replace

from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, TaskSettings, cite
from mmliir.propagation.settings import InputSettings, PointSettings, PropagationSettings

_CRW = 'ajabri/videowalk@047f3f4, code/test.py and code/utils/test_utils.py'
_README = 'ajabri/videowalk@047f3f4, README.md, command line for DAVIS'
_CROPMAE = 'alexandre-eymael/CropMAE@5d0dab2, downstreams/propagation/start.py and src/test.py'
_CROPMAE_UTIL = 'alexandre-eymael/CropMAE@5d0dab2, downstreams/propagation/util.py'
_HVC = 'NUST-Machine-Intelligence-Laboratory/HVC@977b670, infer_vos.py and labelprop/'
_HVC_CONFIG = 'NUST-Machine-Intelligence-Laboratory/HVC@977b670, core/config.py'
_CODE = {
    'permanent': 'long_mem [0]',
    'window_on_permanent': 'the mask is added to A[0, :, len(long_mem):], so the first frame has none',
    'topk_ties': 'torch.topk keeps exactly k; the copies of frame 0 at the start tie',
}

#: Gaussians of half a cell on the cells, read where the three highest cells are (code/data/jhmdb.py, process_pose).
_POINTS = PointSettings(sigma=0.5, drawn_at='cells', draw='stamp', background=True, decoded_at='cells', decode_topk=3)

CRW = Protocol(
    'crw',
    PropagationSettings(
        permanent=(0,),
        gaps=tuple(range(1, 21)),
        fill_with_first=True,
        radius=12,
        shape='circle',
        window_on_permanent=False,
        topk=10,
        topk_ties='share',
        temperature=0.05,
        l2_normalise=True,
        border='mask',
        carry='soft',
        encoding='bilinear',
        grid='frame',
        upsample='mast',
        min_max=False,
    ),
    InputSettings(),
    cite(
        _CRW,
        **{name: f'{_CRW}: {text}' for name, text in _CODE.items()},
        permanent_again=f'{_CRW}: contained in fill_with_first',
        fill_with_first='ajabri/videowalk@047f3f4, code/data/vos.py: videoLen copies of frame 0 before the video',
        temperature=f'{_README}: 0.05 (the default of the script is 0.07)',
        topk=f'{_README}: 10',
        shape='ajabri/videowalk@047f3f4, code/utils/__init__.py, MaskedAttention: distance below the radius',
        radius=f'{_README}: 12, cells nearer than the radius',
        gaps=f'{_README}: videoLen 20',
        keep_late_frames=NOT_DEFINED,
        encoding='ajabri/videowalk@047f3f4, code/data/vos.py: cv2.resize of each mask, bilinear',
        grid=f'{_CRW} and code/data/vos.py: cv2.resize to ceil(H / 8) x ceil(W / 8) cells and back',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        min_max=f'{_CRW}: --norm_mask is off by default',
        input=f'{_README}: cropSize -1, native 480p',
    ),
    tasks={
        'vip': TaskSettings(
            'ajabri/videowalk issue #10: --topk 10 --videoLen 4 --radius 12 --temperature 0.05 --cropSize 560, '
            '"selected based on your paper"; 37.1 mIoU there, 38.6 in the paper',
            changes={'gaps': (1, 2, 3, 4)},
            input=InputSettings(size=(560, 560), resize='opencv'),
        ),
        'jhmdb': TaskSettings(
            'ajabri/videowalk issue #45: --topk 10 --videoLen 7 --radius 5 --temperature 0.05 --cropSize 320 (issue '
            '#10 has radius 12); code/data/jhmdb.py: sigma 0.5; code/utils/test_utils.py, process_pose: best 3 cells',
            changes={'gaps': tuple(range(1, 8)), 'radius': 5},
            input=InputSettings(size=(320, 320), resize='opencv'),
            points=_POINTS,
        ),
    },
    features='ResNet-18 up to layer3, stride 8, 256 channels; RGB',
    differences=(
        'on VIP label images are resized by cv2 with its default, bilinear, which blends the colours of classes '
        '(code/data/vos.py passes INTER_NEAREST as `dst`)',
        'frames of VIP and JHMDB are resized by cv2 in float; here in 8 bits, which is up to half a grey level',
    ),
)

QUICK = Protocol(
    'quick',
    PropagationSettings(
        permanent=(0,),
        gaps=(1, 2, 3, 4, 5),
        radius=12,
        shape='circle',
        topk=10,
        temperature=0.05,
        l2_normalise=True,
        border='mask',
        carry='soft',
        encoding='bilinear',
        upsample='mast',
    ),
    InputSettings(),
    cite(
        'ours, not published: `crw` with 5 recent frames in place of 20, a window on the first frame too, no copies of '
        'it at the start, and cells that cover whole blocks; a quarter of the time',
    ),
    features='any; ours, for a quick look',
)

CROPMAE = Protocol(
    'cropmae',
    replace(CRW.settings, radius=20, topk=7, temperature=0.7),
    InputSettings(size=(480, 880), multiple_of=16, fit='ceil', resize='opencv'),
    cite(
        f'{_CROPMAE}, which is the code of CRW',
        **{name: f'{_CROPMAE}: {text}' for name, text in _CODE.items()},
        temperature=f'{_CROPMAE_UTIL}: davis_temperature 0.7',
        topk=f'{_CROPMAE_UTIL}: davis_topk 7',
        radius=f'{_CROPMAE_UTIL}: davis_radius 20',
        gaps=f'{_CROPMAE_UTIL}: davis_video_len 20',
        keep_late_frames=NOT_DEFINED,
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_CROPMAE_UTIL}: davis_crop_size [480, 880], whatever the ratio',
    ),
    tasks={
        'vip': TaskSettings(
            f'{_CROPMAE_UTIL}: vip_topk 10, vip_radius 20, vip_video_len 20, vip_temperature 0.7, vip_crop_size [880]: '
            'long side 880, short side rounded down to a multiple of 64, which is 448 x 880 for 16:9',
            changes={'topk': 10},
            input=InputSettings(size=(448, 880), multiple_of=16, fit='ceil', resize='opencv'),
        ),
        'jhmdb': TaskSettings(
            f'{_CROPMAE_UTIL}: jhmdb_topk 7, jhmdb_radius 20, jhmdb_video_len 20, jhmdb_temperature 0.7, '
            'jhmdb_crop_size [320, 320]; src/data/jhmdb.py: sigma 0.5; src/utils/test_utils.py, process_pose: best 5',
            input=InputSettings(size=(320, 320), multiple_of=16, fit='ceil', resize='opencv'),
            points=replace(_POINTS, decode_topk=5),
        ),
    },
    features='ViT-S/16 of a masked autoencoder, stride 16, 384 channels; RGB',
    differences=(
        'DAVIS is read from a copy that was resized to 480 x 880 before; labels are resized there, by nearest '
        'neighbour, and results from there back',
        'VIP frames of another ratio than 16:9 have another short side than 448',
        'frames of VIP and JHMDB are resized by cv2 in float; here in 8 bits, which is up to half a grey level',
    ),
)

HVC = Protocol(
    'hvc',
    replace(CRW.settings, gaps=tuple(range(1, 51)), topk=15, temperature=0.1, grid='corners'),
    InputSettings(),
    cite(
        f'{_HVC}, after the code of CRW',
        **{name: f'{_HVC}: {text}' for name, text in _CODE.items()},
        temperature=f'{_HVC_CONFIG}: TEST.TEMP 0.1',
        topk=f'{_HVC_CONFIG}: TEST.KNN 15',
        radius=f'{_HVC_CONFIG}: TEST.RADIUS 12, cells nearer than the radius',
        gaps=f'{_HVC_CONFIG}: TEST.CXT_SIZE 50',
        fill_with_first=f'{_HVC}: context_short, max(tt, t0)',
        grid=f'{_HVC}: scale_as and scale, bilinear with align_corners=True both ways',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
        input=f'{_HVC_CONFIG}: TEST.INPUT_SIZE -1, native 480p',
    ),
    tasks={
        'youtube_vos': TaskSettings(f'{_HVC} and scripts: the values of DAVIS, native size', input=InputSettings()),
    },
    features='two ResNet-18 at stride 8, joined with weights 1.05 and 1 (TEST.MERGE, TEST.LAMBDA); RGB',
    differences=(
        'features are computed in mixed precision',
        'each later frame with given labels starts a propagation of its own, and their results are added; here it '
        'becomes one more reference',
        'its README reports VIP and JHMDB, its code does not evaluate them',
    ),
)
