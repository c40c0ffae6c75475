#!/usr/bin/env python
"""Look at what a training config's data set yields: pairs of frames, after all transforms.

examples:
  python tools/visualization/browse_dataset.py configs/liir_r18_ytvos.py --data-root data/youtube_vos
  python tools/visualization/browse_dataset.py configs/liir_r18_ytvos.py --data-root videos --num 24 --video pairs.mp4
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import DictAction

from mmliir.apis.configs import read_config
from mmliir.registry import DATA_SAMPLERS, DATASETS
from mmliir.utils.console import run_command

_MARGIN, _TEXT_HEIGHT = 4, 18


def draw_pair(item: dict) -> np.ndarray:
    """Return reference and query side by side with a caption, (H, W, 3) uint8 RGB."""
    frames = item['inputs'].permute(0, 2, 3, 1).numpy()
    picture = np.concatenate(list(frames), axis=1)
    caption = np.full((_TEXT_HEIGHT, picture.shape[1], 3), 255, np.uint8)
    about = item['data_samples']
    text = f'video {about["video_id"]}: ' + ' -> '.join(map(str, about['frame_ids']))
    cv2.putText(caption, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, caption])


def contact_sheet(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Return all pictures, of one size, on a white sheet, (H, W, 3) uint8 RGB."""
    pad = ((0, _MARGIN), (0, _MARGIN), (0, 0))
    padded = [np.pad(picture, pad, constant_values=255) for picture in pictures]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % columns)
    rows = [np.concatenate(padded[i : i + columns], axis=1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows)


def write_video(path: Path, items: list[dict]) -> None:
    """Write reference, query, reference, query, ... at two pictures a second."""
    try:
        import av
    except ImportError as error:
        raise ImportError("writing a video needs PyAV: pip install 'mmliir[video]'") from error
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=2)
        height, width = items[0]['inputs'].shape[-2:]
        stream.height, stream.width, stream.pix_fmt = height // 2 * 2, width // 2 * 2, 'yuv420p'
        for item in items:
            for frame in item['inputs'].permute(0, 2, 3, 1).numpy():
                picture = np.ascontiguousarray(frame[: stream.height, : stream.width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode(None))


def browse(args: argparse.Namespace) -> None:
    config = read_config(args.config)
    config.merge_from_dict(args.cfg_options)
    loader = config.train_dataloader
    if args.data_root:
        loader.dataset.source.data_root = args.data_root
    dataset = DATASETS.build(loader.dataset)
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args=dict(dataset=dataset, seed=args.seed))
    sampler.resume_from(args.skip)
    items = [dataset[index] for index in islice(sampler, args.num)]
    sheet = contact_sheet([draw_pair(item) for item in items], args.columns)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OSError(f'cannot write {args.out}')
    frames = sum(dataset.num_frames)
    print(f'{len(dataset)} videos, {frames} frames, {len(sampler)} pairs an epoch')
    print(f'{len(items)} pairs: {args.out}')
    if args.video:
        write_video(args.video, items)
        print(f'the same as video: {args.video}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='training config')
    parser.add_argument('--data-root', metavar='DIR', help='training videos (default: the config says)')
    parser.add_argument('--out', type=Path, default=Path('pairs.png'), metavar='PNG', help='default: pairs.png')
    parser.add_argument('--video', type=Path, metavar='MP4', help='write a video of the pairs too')
    parser.add_argument('--num', type=int, default=12, metavar='N', help='pairs to draw (default: 12)')
    parser.add_argument('--skip', type=int, default=0, metavar='N', help='start behind the first N pairs of the run')
    parser.add_argument('--columns', type=int, default=3, metavar='N', help='pairs in a row (default: 3)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the run (default: 0)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    if args.num < 1 or args.columns < 1:
        parser.error('--num and --columns are at least 1')
    return run_command('browse_dataset', lambda: browse(args))


if __name__ == '__main__':
    sys.exit(main())
