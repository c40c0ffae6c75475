#!/usr/bin/env python
"""Propagate a first mask through a video of your own, and watch the result: the Python call behind `mmliir propagate`.

example: python demo/propagate_video.py video.mp4 first_mask.png configs/liir_r18_ytvos.py CHECKPOINT overlay.mp4
"""

import argparse
import sys

from mmliir.apis import propagate
from mmliir.utils.console import run_command
from mmliir.visualization import overlay_labels, write_video


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('video', help='video file or folder of frames')
    parser.add_argument('mask', help='mask of the first frame: pixel value = object id')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="weights, or 'untrained'")
    parser.add_argument('out', help='overlay video to write')
    args = parser.parse_args()

    def run() -> None:
        result = propagate(args.video, args.mask, args.config, args.checkpoint)
        overlays = (overlay_labels(frame, labels) for frame, labels in zip(result.frames, result, strict=True))
        print(f'written: {write_video(args.out, overlays)}')

    return run_command('propagate_video.py', run)


if __name__ == '__main__':
    sys.exit(main())
