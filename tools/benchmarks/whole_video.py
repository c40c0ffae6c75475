#!/usr/bin/env python
"""A whole video, from decoding to PNG: ours against the released LIIR loop's way of doing it.

Ours is `propagate` and `write_propagation`: each frame is read and encoded once. The released way, restated: for each
frame its references are read and encoded again (six encodes), their keys are unfolded around every cell, and the labels
come from the masks that were written. It is run on a few frames with all their references; the other frames are
extrapolated from these, by the number of references that they have. Both give the same label maps, which is checked.

`cpu` is processor seconds of all threads, which a busy machine changes less than the time on the clock.

examples:
  python tools/benchmarks/whole_video.py --data-root data/davis2016 --sequence blackswan --json video.json
  python tools/benchmarks/whole_video.py --quick
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmliir.apis import propagate
from mmliir.apis.configs import load_config
from mmliir.apis.encoders import make_encoder
from mmliir.apis.evaluate import build_method
from mmliir.apis.propagate import write_propagation
from mmliir.datasets import FrameFolder, read_label_map, write_label_map
from mmliir.models.methods import BaseCorrespondence
from mmliir.propagation import Protocol, prepare_frame, resolve_protocol
from mmliir.propagation.codecs import decode_field, encode_label_map, to_ids
from mmliir.propagation.references import reference_frames
from mmliir.testing.reference_evaluators import mast_step
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.version import __version__

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'
ROWS = 8  # query rows that are unfolded at a time; the programs unfold the frame, in tens of gigabytes


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock and of the processor."""

    wall: float
    cpu: float

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> 'Cost':
        return Cost(self.wall * factor, self.cpu * factor)


def main() -> int:
    """Run the comparison; 1 when label maps differ."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix='mmliir-video-') as folder:
        if args.quick:
            write_davis_layout(folder, [generate_video(0, 8, (32, 48), name='quick')])
            args.data_root, args.sequence, args.frames, args.released_frames = Path(folder), 'quick', 8, 1
        row = compare(args, Path(folder) / 'masks')
    print_row(row)
    if args.json is not None:
        args.json.write_text(json.dumps(row, indent=1) + '\n', encoding='utf-8')
    return int(row['same_pixels'] < args.same)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=Path('data/davis2016'), metavar='DIR', help='DAVIS layout')
    parser.add_argument('--sequence', default='blackswan', metavar='NAME')
    parser.add_argument('--frames', type=int, default=20, metavar='N')
    parser.add_argument('--released-frames', type=int, default=1, metavar='N', help='frames of the released way')
    parser.add_argument('--protocol', default='liir_compat', metavar='NAME', help='one without two-step search')
    parser.add_argument('--threads', type=int, default=os.cpu_count(), metavar='N')
    parser.add_argument('--quick', action='store_true', help='a generated video: are label maps equal')
    parser.add_argument('--same', type=float, default=0.999, help='share of pixels that must be the same')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    return parser.parse_args()


def compare(args: argparse.Namespace, out_dir: Path) -> dict:
    frames = FrameFolder(args.data_root / 'JPEGImages' / '480p' / args.sequence)
    first = args.data_root / 'Annotations' / '480p' / args.sequence / f'{frames.frame_names[0]}.png'
    protocol = resolve_protocol(args.protocol)
    if protocol.settings.long_range is not None:
        raise SystemExit(f'{args.protocol} searches far references in two steps, which is not restated here')
    ours, _ = timed(lambda: propagate_all(args, frames, first, out_dir))
    # Weights do not change the work; they are those of the seed, as for ours.
    model = build_method(load_config(CONFIG), 'untrained', 0, 'cpu')
    shown = min(args.frames, len(frames))
    per_part, same = [], []
    for number in range(shown - args.released_frames, shown):
        parts, share = released_frame(number, frames, model, protocol, out_dir)
        per_part.append(parts)
        same.append(share)
    counts = [len(references_of(number, protocol)) for number in range(1, shown)]
    full = max(counts)
    total = Cost(0.0, 0.0)
    for count in counts:
        for name, cost in mean_parts(per_part).items():
            total = total + cost * {'encode': (count + 1) / (full + 1), 'attend': count / full}.get(name, 1.0)
    return {
        'mmliir': __version__,
        'torch': torch.__version__,
        'threads': args.threads,
        'protocol': args.protocol,
        'sequence': args.sequence,
        'frames': shown,
        'references': full,
        'ours_wall_s': ours.wall,
        'ours_cpu_s': ours.cpu,
        'released_frames_run': args.released_frames,
        'released_wall_s': total.wall,
        'released_cpu_s': total.cpu,
        'released_parts_cpu_s': {name: cost.cpu for name, cost in mean_parts(per_part).items()},
        'wall_ratio': total.wall / ours.wall,
        'cpu_ratio': total.cpu / ours.cpu,
        'same_pixels': min(same),
    }


def propagate_all(args: argparse.Namespace, frames: FrameFolder, first: Path, out_dir: Path) -> None:
    found = propagate(
        frames, first, CONFIG, 'untrained', protocol=args.protocol, max_frames=args.frames, seed=0, device='cpu'
    )
    write_propagation(found, out_dir)


def references_of(number: int, protocol: Protocol) -> list[int]:
    settings = protocol.settings
    references = reference_frames(
        number, settings.permanent, settings.gaps, settings.fill_with_first, settings.permanent_again
    )
    return [reference.frame for reference in references]


def released_frame(
    number: int, frames: FrameFolder, model: BaseCorrespondence, protocol: Protocol, out_dir: Path
) -> tuple[dict[str, Cost], float]:
    """One frame the released way; its masks of earlier frames are ours. -> cost by part, share of equal pixels."""
    settings, stride = protocol.settings, model.stride
    numbers = [*references_of(number, protocol), number]
    read, images = timed(lambda: [frames[n] for n in numbers])
    encoder = make_encoder(model, False)
    encode, features = timed(
        lambda: [encoder(prepare_frame(image, protocol.input))[0].float() for image in images]
    )
    size = protocol.input.resized(*images[0].shape[:2])
    if size != images[0].shape[:2]:
        raise SystemExit(f'{protocol.name} resizes frames of {images[0].shape[:2]} to {size}: not restated here')
    cells = tuple(features[0].shape[1:])
    masks = [read_label_map(out_dir / f'{frames.frame_names[n]}.png').ids for n in numbers]
    ids = sorted(set(np.unique(masks[0]).tolist()) - {0})

    def attend() -> torch.Tensor:
        values = torch.stack(
            [encode_label_map(torch.from_numpy(ids_), ids, settings.encoding, stride, cells) for ids_ in masks[:-1]]
        )
        values[:, 1:] *= settings.fg_gain
        temperature = settings.resolve_temperature(features[0].shape[0])
        keys = torch.stack(features[:-1])
        field = mast_step(features[-1], keys, values, settings.radius, temperature, ROWS, settings.prior)
        winner = decode_field(field, stride, size, size, settings.upsample)
        return to_ids(winner, ids)

    attended, found = timed(attend)
    write, _ = timed(lambda: write_label_map(out_dir / 'released.png', found.numpy()))
    share = float(np.mean(found.numpy() == masks[-1]))
    return {'read': read, 'encode': encode, 'attend': attended, 'write': write}, share


def mean_parts(parts: list[dict[str, Cost]]) -> dict[str, Cost]:
    return {
        name: Cost(
            statistics.mean(own[name].wall for own in parts), statistics.mean(own[name].cpu for own in parts)
        )
        for name in parts[0]
    }


def timed(work: Callable[[], object]) -> tuple[Cost, object]:
    before = time.perf_counter(), time.process_time()
    with torch.no_grad():
        result = work()
    return Cost(time.perf_counter() - before[0], time.process_time() - before[1]), result


def print_row(row: dict) -> None:
    print(f'mmliir {row["mmliir"]}, torch {row["torch"]}, {row["threads"]} threads, load {os.getloadavg()[0]:.1f}')
    print(f'{row["sequence"]}, {row["frames"]} frames, {row["protocol"]}, {row["references"]} references')
    print(f'{"":34s}{"time s":>9s}{"cpu s":>9s}')
    print(f'{"ours, decoding to PNG":34s}{row["ours_wall_s"]:9.1f}{row["ours_cpu_s"]:9.1f}')
    print(f'{"released way, extrapolated":34s}{row["released_wall_s"]:9.1f}{row["released_cpu_s"]:9.1f}')
    for name, seconds in row['released_parts_cpu_s'].items():
        print(f'{"  a frame with all references: " + name:43s}{seconds:9.2f}')
    print(f'over ours: {row["wall_ratio"]:.1f} of the time, {row["cpu_ratio"]:.1f} of the processor seconds')
    print(f'pixels with the same label: {row["same_pixels"]:.5f}', flush=True)


if __name__ == '__main__':
    sys.exit(main())
