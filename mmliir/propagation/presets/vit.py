"""DINO and DINOv3: patch tokens, first and seven last frames, the five best cells."""

from mmliir.propagation.presets.protocol import NOT_DEFINED, UNUSED, Protocol, cite
from mmliir.propagation.settings import InputSettings, PropagationSettings

_DINO = 'facebookresearch/dino@7c446df, eval_video_segmentation.py'
_DINOV3 = 'facebookresearch/dinov3@6876159, notebooks/segmentation_tracking.ipynb'

DINO = Protocol(
    'dino',
    PropagationSettings(
        permanent=(0,),
        gaps=tuple(range(1, 8)),
        radius=12,
        topk=5,
        temperature=0.1,
        l2_normalise=True,
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
        _DINO,
        fill_with_first=UNUSED,
        permanent_again=UNUSED,
        keep_late_frames=NOT_DEFINED,
        topk=f'{_DINO}: 5 over all references, by threshold',
        topk_ties=f'{_DINO}: by threshold, so that ties are kept',
        grid=f'{_DINO}: read_seg resizes the label map from its own size to the patches at once',
        input=f'{_DINO}: read_frame: cv2.resize of 8-bit frames; short side 480, long side down to a multiple of 64',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
    ),
    features='ViT-S or ViT-B, tokens of the last block, stride 16 or 8; RGB',
)

DINOV3 = Protocol(
    'dinov3',
    PropagationSettings(
        permanent=(0,),
        gaps=tuple(range(1, 8)),
        radius=12,
        shape='disc',
        topk=5,
        temperature=0.2,
        l2_normalise=True,
        border='mask',
        carry='soft',
        encoding='nearest',
        grid='frame',
        upsample='nearest',
        output_resize='field',
        min_max=True,
    ),
    InputSettings(short_side=960, multiple_of=16, fit='ceil'),
    cite(
        _DINOV3,
        permanent=f'{_DINOV3}: the first frame is always in the context',
        gaps=f'{_DINOV3}: MAX_CONTEXT_LENGTH 7',
        fill_with_first=UNUSED,
        permanent_again=UNUSED,
        keep_late_frames=NOT_DEFINED,
        radius=f'{_DINOV3}: NEIGHBORHOOD_SIZE 12',
        shape=f"{_DINOV3}: NEIGHBORHOOD_SHAPE 'circle', distances up to and with the size",
        topk=f'{_DINOV3}: TOPK 5',
        topk_ties=f'{_DINOV3}: dot >= the k-th largest',
        temperature=f'{_DINOV3}: TEMPERATURE 0.2',
        encoding=f"{_DINOV3}: F.interpolate, mode 'nearest-exact'",
        upsample=f"{_DINOV3}: F.interpolate of the probabilities, mode 'nearest'",
        min_max=f'{_DINOV3}: postprocess_probs',
        input=f'{_DINOV3}: ResizeToMultiple, SHORT_SIDE 960, both sides rounded up to the patch size, which is 16',
        long_range=UNUSED,
        prior=UNUSED,
        fg_gain=UNUSED,
    ),
    features='ViT-L/16, tokens of the last block, stride 16; RGB',
    differences=(
        'frames are resized bicubically, here bilinearly',
        'the notebook shows one video; no benchmark was published with it',
        'for a model with patches of another size change input.multiple_of',
    ),
)
