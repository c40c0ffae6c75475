from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmliir.datasets import LIIR_GAPS, FrameFolderSource, PairIndex, PairSampler, sample_pairs
from mmliir.datasets.transforms import FlipClip, PackClip, RandomCropClip, RandomResizedCropClip, ResizeClip
from mmliir.registry import DATA_SAMPLERS, DATASETS
from mmliir.testing.synthetic import SceneSettings, generate_videos, write_frame_folders

LENGTHS = (40, 7, 150, 23, 3, 90)


def sampler(lengths=LENGTHS, **kwargs):
    return PairSampler(SimpleNamespace(num_frames=lengths, frame_step=1), **kwargs)


# -- pairs --------------------------------------------------------------------------------------------------


def test_pairs_of_a_video_are_disjoint_consecutive_and_of_one_gap():
    pairs = sample_pairs([160] * 50, rng=np.random.default_rng(0))
    for video in range(50):
        own = pairs[pairs[:, 0] == video, 1:]
        own = own[own[:, 0].argsort()]
        gap = own[0, 1] - own[0, 0]
        assert gap in LIIR_GAPS
        assert (np.diff(own.ravel()) == gap).all(), 'start, start + gap, ... cut into pairs'
        assert own[0, 0] < gap and own.max() < 160
        assert own[-1, 1] + 2 * gap >= 160, 'the end of the video is used'


def test_gaps_are_drawn_with_their_shares():
    rng = np.random.default_rng(1)
    counts = dict.fromkeys(LIIR_GAPS, 0)
    for _ in range(20):
        pairs = sample_pairs([100] * 300, rng=rng)
        first = pairs[np.unique(pairs[:, 0], return_index=True)[1]]
        for gap in counts:
            counts[gap] += int((first[:, 2] - first[:, 1] == gap).sum())
    for gap, share in LIIR_GAPS.items():
        assert abs(counts[gap] / 6000 - share) < 0.025  # four standard deviations


def test_the_size_of_an_epoch_is_the_one_of_the_recipe():
    # 469,887 frames in 3,471 videos give 117k pairs at gap 2, 47k at gap 5, 29k at gap 8.
    lengths = np.full(3471, 469887 // 3471)
    for gap, expected in ((2, 117e3), (5, 47e3), (8, 29e3)):
        assert abs(len(sample_pairs(lengths, {gap: 1.0})) / expected - 1) < 0.05


def test_short_videos_use_the_largest_gap_they_have_room_for():
    pairs = sample_pairs([4, 1, 0, 2], {8: 1.0})
    assert sorted(map(tuple, pairs.tolist())) == [(0, 0, 3), (3, 0, 1)]


def test_gaps_are_in_native_frames():
    pairs = sample_pairs([30] * 20, {2: 0.4, 5: 0.4, 8: 0.2}, frame_step=5)
    assert set(np.unique(pairs[:, 2] - pairs[:, 1])) == {1}


@pytest.mark.parametrize(
    'gaps', [{0: 1.0}, {-2: 1.0}, {2: -1.0}, {2: 0.0}, {'a': 1.0}, {2: 0.4, 5: 0.4, 8: 0.2, 1: 1.0}]
)
def test_bad_gaps_are_refused(gaps):
    with pytest.raises(ValueError, match='gaps: expected'):
        sample_pairs([10], gaps)


# -- sampler ------------------------------------------------------------------------------------------------


def test_the_order_is_a_function_of_the_seed():
    first, again, other = (list(islice(sampler(seed=seed), 300)) for seed in (3, 3, 4))
    assert first == again and first != other
    assert len({item.seed for item in first}) == 300


def test_each_epoch_is_new_and_whole():
    one = sampler(seed=0)
    stream = list(islice(one, len(one.epoch_pairs(0)) + len(one.epoch_pairs(1))))
    first = stream[: len(one.epoch_pairs(0))]
    assert [item[:3] for item in first] == [tuple(pair) for pair in one.epoch_pairs(0).tolist()]
    second = stream[len(first) :]
    assert [item[:3] for item in second] == [tuple(pair) for pair in one.epoch_pairs(1).tolist()]
    assert [item[:3] for item in first[:20]] != [item[:3] for item in second[:20]]


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_together_see_the_batches_of_one_process(world_size):
    batch, steps = 4, 60  # some epochs long
    alone = list(islice(sampler(seed=1), batch * world_size * steps))
    ranks = [
        list(islice(sampler(seed=1, rank=rank, world_size=world_size), batch * steps)) for rank in range(world_size)
    ]
    for step in range(steps):
        together = {item for rank in ranks for item in rank[step * batch : (step + 1) * batch]}
        assert together == set(alone[step * batch * world_size : (step + 1) * batch * world_size])


@pytest.mark.parametrize('seen', [0, 1, 37, 400, 1001])
@pytest.mark.parametrize('world_size', [1, 3])
def test_resuming_continues_with_the_next_item(seen, world_size):
    stream = list(islice(sampler(seed=2, rank=world_size - 1, world_size=world_size), seen + 30))
    resumed = sampler(seed=2, rank=world_size - 1, world_size=world_size)
    resumed.resume_from(seen)
    assert list(islice(resumed, 30)) == stream[seen:]


def test_epochs_of_a_finite_sampler():
    ranks = [sampler(seed=0, infinite=False, rank=rank, world_size=2) for rank in (0, 1)]
    for epoch in (0, 5):
        for one in ranks:
            one.set_epoch(epoch)
        items = [list(one) for one in ranks]
        assert len(items[0]) == len(items[1]) == len(ranks[0])
        pairs = [tuple(pair) for pair in ranks[0].epoch_pairs(epoch).tolist()]
        assert sorted(item[:3] for rank in items for item in rank) == sorted(pairs[: len(items[0]) * 2])
    ranks[0].resume_from(4)
    assert list(ranks[0]) == items[0][4:]


def test_the_length_is_drawn_once_for_an_epoch_and_a_seed(monkeypatch):
    """MMEngine's logger asks for it at every step; drawing the pairs of YouTube-VOS takes over 20 ms."""
    a_sampler = sampler(lengths=(9, 14, 30), infinite=False)
    draws = []
    draw = a_sampler.epoch_pairs
    monkeypatch.setattr(a_sampler, 'epoch_pairs', lambda epoch: draws.append(epoch) or draw(epoch))
    for epoch, seed in ((0, 0), (1, 0), (1, 5)):
        a_sampler.seed = seed
        a_sampler.set_epoch(epoch)
        assert {len(a_sampler) for _ in range(10)} == {len(list(a_sampler))}
    assert len(draws) == 6  # a length and an iteration each


def test_pairs_per_epoch():
    assert len(sampler(pairs_per_epoch=10)) == 10


def test_no_pairs_is_an_error():
    with pytest.raises(ValueError, match='give 0 pairs'):
        sampler((1, 1))


# -- data set -----------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('folders')
    settings = SceneSettings(num_objects=1, num_distractors=0)
    write_frame_folders(root, generate_videos(range(3), 12, (40, 56), settings), suffix='.png')
    return root


PIPELINE = [
    dict(type='RandomResizedCropClip', size=24, area=(0.3, 1.0), aspect=(0.7, 1.5)),
    dict(type='FlipClip', prob=0.5),
    dict(type='PackClip'),
]


def build(folders, pipeline):
    source = dict(type='FrameFolderSource', data_root=str(folders))
    return DATASETS.build(dict(type='VideoPairDataset', source=source, pipeline=pipeline))


def test_the_recipe_gives_the_two_frames_resized(folders):
    import cv2

    dataset = build(folders, [dict(type='ResizeClip', size=(32, 32)), dict(type='PackClip')])
    item = dataset[PairIndex(2, 3, 8, 0)]
    assert item['inputs'].dtype == torch.uint8 and item['inputs'].shape == (2, 3, 32, 32)
    assert item['data_samples'] == dict(video_id=2, frame_ids=(3, 8))
    for frame, number in zip(item['inputs'], (3, 8), strict=True):
        expected = cv2.resize(FrameFolderSource(str(folders)).read(2, number), (32, 32))
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected)


def batches(folders, workers, count=6):
    dataset = build(folders, PIPELINE)
    pairs = DATA_SAMPLERS.build(
        dict(type='PairSampler', gaps={2: 0.5, 5: 0.5}, seed=0), default_args=dict(dataset=dataset)
    )
    loader = DataLoader(
        dataset, 4, sampler=pairs, num_workers=workers, multiprocessing_context='fork' if workers else None
    )
    return list(islice(loader, count))


def test_results_do_not_depend_on_workers(folders):
    for alone, shared in zip(batches(folders, 0), batches(folders, 2), strict=True):
        assert alone['inputs'].shape == (4, 2, 3, 24, 24)
        assert torch.equal(alone['inputs'], shared['inputs'])
        assert torch.equal(alone['data_samples']['video_id'], shared['data_samples']['video_id'])


def test_a_plain_index_is_refused(folders):
    with pytest.raises(TypeError, match='PairSampler'):
        build(folders, PIPELINE)[0]


# -- transforms ---------------------------------------------------------------------------------------------


def coordinate_clip(height=40, width=60):
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    frame = np.stack([x, y, np.zeros_like(x)], -1)
    return dict(frames=[frame, frame + np.array([0, 0, 9], np.uint8)], video_id=0, frame_ids=(0, 1))


@pytest.mark.parametrize(
    'transform',
    [RandomCropClip(24), RandomCropClip(24, 30), RandomResizedCropClip((20, 30)), FlipClip(0.5), ResizeClip(16)],
)
def test_all_frames_of_a_clip_get_one_draw(transform):
    for seed in range(10):
        first, second = transform(coordinate_clip(), np.random.default_rng(seed))['frames']
        assert np.array_equal(first[..., :2], second[..., :2]) and (second[..., 2] == 9).all()
        again = transform(coordinate_clip(), np.random.default_rng(seed))['frames']
        assert np.array_equal(first, again[0])


def test_sizes():
    rng = np.random.default_rng(0)
    assert ResizeClip(16)(coordinate_clip(), rng)['frames'][0].shape == (16, 16, 3)
    assert ResizeClip(20, keep_ratio=True)(coordinate_clip(), rng)['frames'][0].shape == (20, 30, 3)
    assert RandomCropClip((20, 30))(coordinate_clip(), rng)['frames'][1].shape == (20, 30, 3)
    assert RandomCropClip(64)(coordinate_clip(), rng)['frames'][1].shape == (64, 64, 3), 'small frames are enlarged'
    # No window of this shape fits with this area: the largest central one is taken.
    tall = RandomResizedCropClip(16, area=(0.95, 1.0), aspect=(0.2, 0.25))
    assert tall(coordinate_clip(), rng)['frames'][0].shape == (16, 16, 3)


def test_crops_reach_every_place():
    lefts = [RandomCropClip(38)(coordinate_clip(), np.random.default_rng(s))['frames'][0][0, 0] for s in range(400)]
    assert {int(x) for x, *_ in lefts} == set(range(23)) and {int(y) for _, y, _ in lefts} == {0, 1, 2}


def test_resized_crops_have_the_area_and_shape_that_was_asked_for_and_reach_every_side():
    """Read off the coordinates that a window shows: bilinear resizing keeps a ramp a ramp away from its ends."""
    height, width, area, aspect = 120, 240, (0.6, 1.0), (1.5, 2.0)
    crop = RandomResizedCropClip((256, 256), area, aspect)
    windows = []
    for seed in range(300):
        top, left, size = crop._draw(height, width, np.random.default_rng(seed))
        frame = crop(coordinate_clip(height, width), np.random.default_rng(seed))['frames'][0]
        (x0, y0), (x1, y1) = frame[2, 2, :2].astype(int), frame[-3, -3, :2].astype(int)
        assert abs(x0 - left) <= 2 and abs(y0 - top) <= 2
        assert abs(x1 - (left + size[1] - 1)) <= 2 and abs(y1 - (top + size[0] - 1)) <= 2
        windows.append((top, left, *size))
    top, left, rows, columns = np.array(windows).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    shares, shapes = rows * columns / (height * width), columns / rows
    assert area[0] - 0.01 <= shares.min() < 0.63 and 0.9 < shares.max() <= area[1]
    assert aspect[0] - 0.02 <= shapes.min() < 1.55 and 1.95 < shapes.max() <= aspect[1] + 0.02
    assert top.min() == left.min() == 0
    assert (top + rows).max() == height and (left + columns).max() == width


@pytest.mark.parametrize(
    'wrong', [dict(area=(0.0, 1.0)), dict(area=(0.9, 0.6)), dict(area=(0.6, 1.1)), dict(aspect=(0, 1))]
)
def test_impossible_resized_crops_are_refused(wrong):
    with pytest.raises(ValueError, match='RandomResizedCropClip: expected 0 < area'):
        RandomResizedCropClip(16, **wrong)


def test_flip_mirrors_left_to_right():
    clip = coordinate_clip()
    flipped = FlipClip(1.0)(clip, np.random.default_rng(0))['frames'][0]
    assert np.array_equal(flipped, clip['frames'][0][:, ::-1])


def test_pack_keeps_every_pixel_of_whole_and_of_cropped_frames():
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 9, 14, 3), dtype=np.uint8))
    for cut in (frames, [frame[2:7, 3:11] for frame in frames]):
        packed = PackClip()(dict(frames=cut, video_id=0, frame_ids=(0, 1)), None)['inputs']
        assert packed.dtype == torch.uint8 and packed.is_contiguous()
        assert np.array_equal(packed.numpy(), np.stack(cut).transpose(0, 3, 1, 2))


@pytest.mark.parametrize('wrong', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 1), np.uint8)])
def test_pack_refuses_what_is_no_colour_frame_of_bytes(wrong):
    with pytest.raises(ValueError, match=r'PackClip: frames are \(H, W, 3\) uint8'):
        PackClip()(dict(frames=[wrong, wrong], video_id=0, frame_ids=(0, 1)), None)


def test_pack_refuses_frames_of_different_sizes():
    clip = coordinate_clip()
    clip['frames'][1] = clip['frames'][1][:-1]
    with pytest.raises(ValueError, match='differ in size'):
        PackClip()(clip, np.random.default_rng(0))
