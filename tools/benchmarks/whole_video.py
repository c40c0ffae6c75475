#!/usr/bin/env python
"""A whole video, from decoding to PNG: how long a frame takes and with what, and the released LIIR loop beside it.

Ours is `export_predictions`, what `mmliir eval` calls: each frame is read and encoded once. `parts` are those of a
second, shorter run that waits after each part, over the frames with all references: reading, encoding (with resizing),
affinity with read-out, what a prior adds to it, decoding labels, PNG and file, and what is left of a frame. `share` is
that of the processor seconds, on a GPU of the time.

The released way, restated: for each frame its references are read and encoded again (six encodes), their keys are
unfolded around every cell, and the labels come from the masks that were written. `correlated` makes one product a
window cell in place of unfolding, as the programs' compiled operator does for near references. Both are run on a few
frames with all their references; the other frames are extrapolated from these, by the number of references that they
have. All give the same label maps, which is checked.

`cpu` is processor seconds of all threads, which a busy machine changes less than the time on the clock. The video is
that of --data-root; without one, of davis2016 in $MMLIIR_DATA_ROOT, else in data; where that is not there, a generated
one of 480 x 854 pixels.

examples:
  python tools/benchmarks/whole_video.py
  python tools/benchmarks/whole_video.py --data-root data/davis2016 --sequence blackswan --json video.json --plot v.png
  python tools/benchmarks/whole_video.py --device cuda --amp --compile --frames 1000 --released-frames 0
  python tools/benchmarks/whole_video.py --quick
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import (
    Bars,
    Column,
    Cost,
    Machine,
    TextTable,
    add_machine_arguments,
    add_report_arguments,
    data_root,
    describe_machine,
    peak_bytes,
    plot_bars,
    reset_peak,
    settled_device,
    timed,
    write_report,
)
from torch.utils.flop_counter import FlopCounterMode

from mmliir.apis.configs import load_config
from mmliir.apis.encoders import Encode, make_encoder
from mmliir.apis.evaluate import build_method
from mmliir.datasets import FrameFolder, read_label_map, write_label_map
from mmliir.evaluation import writers
from mmliir.evaluation.export import export_predictions
from mmliir.propagation import Protocol, codecs, prepare_frame, resolve_protocol, session, video
from mmliir.propagation.codecs import decode_field, encode_label_map, to_ids
from mmliir.propagation.references import reference_frames
from mmliir.structures import VideoSample
from mmliir.testing.reference_evaluators import mast_step
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.utils.pipeline import OVERLAP_VARIABLE

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'liir_r18_ytvos.py'
ROWS = 8  # query rows that are unfolded at a time; the programs unfold the frame, in tens of gigabytes
#: Of a LIIR frame's time, affinity and read-out should take no more.
AIM = 0.15
ATTEND = 'affinity and read-out'
PARTS = TextTable(
    [
        Column('ours, a frame', 'part', width=34),
        Column('time s', 'wall_s', '.4f'),
        Column('cpu s', 'cpu_s', '.4f'),
        Column('share', 'share', '.1%'),
    ]
)


@dataclass(frozen=True)
class Clip:
    """A video and its first mask."""

    frames: FrameFolder
    first: Path

    def sample(self) -> VideoSample:
        ids = read_label_map(self.first).ids
        return VideoSample(self.frames.name, self.frames, self.frames.frame_names, {0: lambda: ids})


def main() -> int:
    """Run the comparison; 1 when label maps differ."""
    args = parse_args()
    protocol = resolve_protocol(args.protocol)
    machine = describe_machine(args.device, args.threads, matrix_side=256 if args.quick else None)
    print(machine)
    with tempfile.TemporaryDirectory(prefix='mmliir-video-') as folder:
        clip = open_clip(args, Path(folder))
        model = build_method(load_config(args.config), 'untrained', 0, args.device)
        encode = make_encoder(model, 'bfloat16' if args.amp else 'float32', args.compile)
        if args.compile or args.device == 'cuda':
            propagate_all(first_frames(clip, 8, Path(folder) / 'warm'), encode, model.stride, protocol, folder, args)
        if args.device == 'cuda':
            reset_peak(args.device)
        ours, masks = timed(lambda: propagate_all(clip, encode, model.stride, protocol, folder, args), args.device)
        row = describe(clip, model, protocol, args, ours)
        print_ours(row)
        few = first_frames(clip, args.split_frames, Path(folder) / 'few')
        row['parts'] = parts_of(few, encode, model.stride, protocol, folder, args)
        row['same_pixels'] = None
        print_parts(row, machine)
        if args.released_frames:
            with torch.no_grad():
                row |= released(clip, encode, model.stride, protocol, masks, args, ours)
            print_released(row)
    if args.json is not None:
        write_report(args.json, machine, [row])
    if args.plot is not None:
        plot(row, args.plot)
    return int(row['same_pixels'] is not None and row['same_pixels'] < args.same)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG), metavar='FILE')
    parser.add_argument('--data-root', type=Path, metavar='DIR', help='DAVIS layout')
    parser.add_argument('--sequence', default='blackswan', metavar='NAME')
    parser.add_argument('--frames', type=int, default=20, metavar='N', help='more than there are: again from the first')
    parser.add_argument('--split-frames', type=int, default=10, metavar='N', help='of the run that waits after parts')
    parser.add_argument('--released-frames', type=int, default=1, metavar='N', help='frames of the released way')
    parser.add_argument('--protocol', default='liir_compat', metavar='NAME')
    parser.add_argument('--amp', action='store_true', help='encode in bfloat16')
    parser.add_argument('--compile', action='store_true', help='compile the encoder')
    add_machine_arguments(parser)
    parser.add_argument('--quick', action='store_true', help='a generated video: are label maps equal')
    parser.add_argument('--same', type=float, default=0.999, help='share of pixels that must be the same')
    add_report_arguments(parser)
    args = parser.parse_args()
    args.device = settled_device(args.device)
    if resolve_protocol(args.protocol).settings.long_range is not None and args.released_frames:
        parser.error(
            f'{args.protocol} searches far references in two steps, which the released way here does not do: add '
            '--released-frames 0'
        )
    return args


# ------------------------------------------------------------------------------------------------------------- video
def open_clip(args: argparse.Namespace, folder: Path) -> Clip:
    """The first frames of the sequence, and its mask; generated where there is none."""
    roots = [args.data_root or data_root() / 'davis2016']
    root = next((own for own in roots if (own / 'JPEGImages' / '480p' / args.sequence).is_dir()), None)
    if args.quick:
        args.sequence, args.frames, args.split_frames = 'quick', 8, 8
        write_davis_layout(folder, [generate_video(0, 8, (32, 48), name='quick')])
        root = folder
    elif root is None and args.data_root:
        raise SystemExit(f'{args.data_root} has no JPEGImages/480p/{args.sequence}')
    elif root is None:
        args.sequence = 'generated'
        write_davis_layout(folder, [generate_video(0, min(args.frames, 20), (480, 854), name='generated')])
        root = folder
    frames = FrameFolder(root / 'JPEGImages' / '480p' / args.sequence)
    first = root / 'Annotations' / '480p' / args.sequence / f'{frames.frame_names[0]}.png'
    return first_frames(Clip(frames, first), args.frames, folder / 'frames' / args.sequence)


def first_frames(clip: Clip, count: int, folder: Path) -> Clip:
    """A folder with links to the first frames; a video that is too short begins anew."""
    folder.mkdir(parents=True)
    paths = clip.frames.paths
    for number in range(count):
        path = paths[number % len(paths)]
        (folder / f'{number:05d}{path.suffix}').symlink_to(path.resolve())
    return Clip(FrameFolder(folder), clip.first)


def propagate_all(
    clip: Clip, encode: Encode, stride: int, protocol: Protocol, folder: str | Path, args: argparse.Namespace
) -> Path:
    """-> the folder of the masks."""
    out_dir = Path(tempfile.mkdtemp(prefix='masks-', dir=folder))
    report = export_predictions(
        [clip.sample()], encode, protocol, stride, out_dir, card=None, device=args.device, progress=False
    )
    report.raise_for_failures()
    return out_dir / clip.frames.name


def describe(clip: Clip, model, protocol: Protocol, args: argparse.Namespace, ours: Cost) -> dict:
    count = len(clip.frames)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.extract_feature(prepare_frame(clip.frames[0], protocol.input, args.device))
    return {
        'config': Path(args.config).stem,
        'protocol': args.protocol,
        'sequence': args.sequence,
        'size': list(clip.frames[0].shape[:2]),
        'frames': count,
        'references': max(len(references_of(number, protocol)) for number in range(1, count)),
        'precision': 'bfloat16' if args.amp else 'float32',
        'compiled': args.compile,
        'encoder_gflop': counter.get_total_flops() * 1e-9,
        'ours_wall_s': ours.wall,
        'ours_cpu_s': ours.cpu,
        'frames_per_s': count / ours.wall,
        'peak_gib': peak_bytes(args.device) / 2**30 if args.device == 'cuda' else None,
    }


# ------------------------------------------------------------------------------------------------------------- parts
def parts_of(
    clip: Clip, encode: Encode, stride: int, protocol: Protocol, folder: str | Path, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Part -> {'wall_s', 'cpu_s'} of a frame with all references: medians over a run in which nothing overlaps."""
    spent: dict[str, list[Cost]] = {}
    priors: list[Cost] = []

    def noting(name: str, function: Callable) -> Callable:
        def call(*arguments, **settings):
            cost, result = timed(lambda: function(*arguments, **settings), args.device)
            spent.setdefault(name, []).append(cost)
            return result

        return call

    def attend(own: session.PropagationSession, feature: torch.Tensor) -> torch.Tensor:
        cost, field = timed(lambda: plain_attend(own, feature), args.device)
        if own.settings.prior is not None:  # again without it: the difference is its cost
            settings, own.settings = own.settings, dataclasses.replace(own.settings, prior=None)
            cost_without, _ = timed(lambda: plain_attend(own, feature), args.device)
            own.settings = settings
            priors.append(cost + cost_without * -1)
            twice.append(cost_without)
            cost = cost_without
        spent.setdefault(ATTEND, []).append(cost)
        return field

    twice: list[Cost] = []
    plain_attend = session.PropagationSession._attend
    with (
        mock.patch.dict(os.environ, {OVERLAP_VARIABLE: '0'}),
        mock.patch.object(video, 'read_frame', noting('read', video.read_frame)),
        mock.patch.object(video, 'encode_frame', noting('encode', video.encode_frame)),
        mock.patch.object(session.PropagationSession, '_attend', attend),
        mock.patch.object(
            session.PropagationSession, '_step', noting('step', session.PropagationSession._step)
        ),
        mock.patch.object(codecs.MaskCodec, 'follow', noting('decode labels', codecs.MaskCodec.follow)),
        mock.patch.object(writers, 'label_map_png', noting('PNG', writers.label_map_png)),
        mock.patch.object(writers, 'write_bytes_atomic', noting('file', writers.write_bytes_atomic)),
    ):
        propagate_all(clip, encode, stride, protocol, folder, args)
    full = max(len(references_of(number, protocol)) for number in range(1, len(clip.frames)))
    # Of every part but those of later frames alone there is one call a frame.
    counted = sum(len(references_of(number, protocol)) == full for number in range(1, len(clip.frames)))
    found = {name: _median(costs[-counted:]) for name, costs in spent.items()}
    step = found.pop('step')
    if priors:
        found['prior'] = _median(priors[-counted:])
        step = step + _median(twice[-counted:]) * -1
    inner = (ATTEND, 'prior', 'decode labels')
    for name in inner:
        step = step + found.get(name, Cost(0.0, 0.0)) * -1
    found['rest of the step'] = step
    order = ('read', 'encode', *inner, 'rest of the step', 'PNG', 'file')
    return {name: {'wall_s': found[name].wall, 'cpu_s': found[name].cpu} for name in order if name in found}


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, key) for cost in costs) for key in ('wall', 'cpu')))


# ------------------------------------------------------------------------------------------------------ released way
def references_of(number: int, protocol: Protocol) -> list[int]:
    settings = protocol.settings
    references = reference_frames(
        number, settings.permanent, settings.gaps, settings.fill_with_first, settings.permanent_again
    )
    return [reference.frame for reference in references]


def released(
    clip: Clip, encode: Encode, stride: int, protocol: Protocol, masks: Path, args: argparse.Namespace, ours: Cost
) -> dict:
    """The released way on the last frames, and extrapolated to all."""
    count = len(clip.frames)
    per_part, same = [], []
    for number in range(count - args.released_frames, count):
        parts, share = released_frame(number, clip.frames, encode, stride, protocol, masks, args.device)
        per_part.append(parts)
        same.append(share)
    references = [len(references_of(number, protocol)) for number in range(1, count)]
    parts = mean_parts(per_part)
    unfolded, correlated = (extrapolate(parts, references, without) for without in ('correlate', 'attend'))
    return {
        'released_frames_run': args.released_frames,
        'released_wall_s': unfolded.wall,
        'released_cpu_s': unfolded.cpu,
        'correlated_wall_s': correlated.wall,
        'correlated_cpu_s': correlated.cpu,
        'released_parts_cpu_s': {name: cost.cpu for name, cost in parts.items()},
        'wall_ratio': unfolded.wall / ours.wall,
        'cpu_ratio': unfolded.cpu / ours.cpu,
        'correlated_wall_ratio': correlated.wall / ours.wall,
        'correlated_cpu_ratio': correlated.cpu / ours.cpu,
        'same_pixels': min(same),
    }


def extrapolate(parts: dict[str, Cost], references: list[int], without: str) -> Cost:
    """All frames from the parts of one with the most references, `without` one of its two ways to compare cells."""
    full, total = max(references), Cost(0.0, 0.0)
    for number in references:
        scale = {'encode': (number + 1) / (full + 1), 'attend': number / full, 'correlate': number / full}
        for name, cost in parts.items():
            total = total if name == without else total + cost * scale.get(name, 1.0)
    return total


def released_frame(
    number: int, frames: FrameFolder, encode: Encode, stride: int, protocol: Protocol, masks: Path, device: str
) -> tuple[dict[str, Cost], float]:
    """One frame the released way; its masks of earlier frames are ours. -> cost by part, share of equal pixels."""
    settings = protocol.settings
    numbers = [*references_of(number, protocol), number]
    read, images = timed(lambda: [frames[n] for n in numbers], device)
    encoded, features = timed(
        lambda: [encode(prepare_frame(image, protocol.input, device))[0].float() for image in images], device
    )
    size = protocol.input.resized(*images[0].shape[:2])
    if size != images[0].shape[:2]:
        raise SystemExit(f'{protocol.name} resizes frames of {images[0].shape[:2]} to {size}: not restated here')
    cells = tuple(features[0].shape[1:])
    known = [read_label_map(masks / f'{frames.frame_names[n]}.png').ids for n in numbers]
    ids = sorted(set(np.unique(known[0]).tolist()) - {0})

    def attend(unfold_keys: bool) -> np.ndarray:
        values = torch.stack(
            [encode_label_map(torch.from_numpy(ids_), ids, settings.encoding, stride, cells) for ids_ in known[:-1]]
        ).to(device)
        values[:, 1:] *= settings.fg_gain
        temperature = settings.resolve_temperature(features[0].shape[0])
        keys = torch.stack(features[:-1])
        field = mast_step(
            features[-1], keys, values, settings.radius, temperature, ROWS, settings.prior, unfold_keys
        )
        return to_ids(decode_field(field, stride, size, size, settings.upsample), ids).cpu().numpy()

    attended, found = timed(lambda: attend(True), device)
    correlated, again = timed(lambda: attend(False), device)
    write, _ = timed(lambda: write_label_map(masks / 'released.png', found))
    parts = {'read': read, 'encode': encoded, 'attend': attended, 'correlate': correlated, 'write': write}
    return parts, min(float(np.mean(labels == known[-1])) for labels in (found, again))


def mean_parts(parts: list[dict[str, Cost]]) -> dict[str, Cost]:
    return {
        name: Cost(
            statistics.mean(own[name].wall for own in parts), statistics.mean(own[name].cpu for own in parts)
        )
        for name in parts[0]
    }


# ------------------------------------------------------------------------------------------------------------ report
def print_ours(row: dict) -> None:
    how = row['precision'] + (', compiled' if row['compiled'] else '')
    height, width = row['size']
    print(
        f'{row["sequence"]}, {row["frames"]} frames of {height} x {width}, {row["config"]} ({how}), '
        f'{row["protocol"]}, {row["references"]} references'
    )
    print(
        f'ours, decoding to PNG: {row["ours_wall_s"]:.2f} s ({row["frames_per_s"]:.2f} frames/s), '
        f'{row["ours_cpu_s"]:.2f} processor seconds',
        flush=True,
    )


def print_parts(row: dict, machine: Machine) -> None:
    parts, key = row['parts'], 'wall_s' if machine.device == 'cuda' else 'cpu_s'
    whole = sum(part[key] for part in parts.values())
    PARTS.print_header()
    for name, part in parts.items():
        part['share'] = part[key] / whole
        PARTS.print_row({'part': name, **part})
    rate = row['encoder_gflop'] / parts['encode'][key]
    unit = 'GFLOP/s' if key == 'wall_s' else 'GFLOP a processor second'
    print(f'encoder: {row["encoder_gflop"]:.0f} GFLOP a frame, {rate:.0f} {unit}')
    share = parts[ATTEND]['share']
    print(f'affinity and read-out take {share:.1%} of a frame (aim for LIIR: {AIM:.0%} at most)', flush=True)


def print_released(row: dict) -> None:
    print(
        f'released way, extrapolated from {row["released_frames_run"]} frame(s): {row["released_wall_s"]:.1f} s, '
        f'{row["released_cpu_s"]:.1f} processor seconds'
    )
    for name, seconds in row['released_parts_cpu_s'].items():
        print(f'{"  a frame with all references: " + name:43s}{seconds:9.2f}')
    print(f'over ours: {row["wall_ratio"]:.1f} of the time, {row["cpu_ratio"]:.1f} of the processor seconds')
    print(
        f'correlated: {row["correlated_wall_s"]:.1f} s, {row["correlated_cpu_s"]:.1f} processor seconds; over ours: '
        f'{row["correlated_wall_ratio"]:.1f} of the time, {row["correlated_cpu_ratio"]:.1f} of the processor seconds'
    )
    print(f'pixels with the same label: {row["same_pixels"]:.5f}', flush=True)


def plot(row: dict, path: Path) -> None:
    """Bars of the parts, and of the whole video where the released way was run."""
    panels = [Bars('a frame, ours: processor ms', {n: 1e3 * part['cpu_s'] for n, part in row['parts'].items()})]
    if 'released_cpu_s' in row:
        both = {
            'ours': row['ours_cpu_s'],
            'released way': row['released_cpu_s'],
            'correlated': row['correlated_cpu_s'],
        }
        panels.append(Bars('the video: processor seconds', both, log=True))
    plot_bars(path, panels, f'{row["sequence"]}, {row["config"]}, {row["protocol"]}')


if __name__ == '__main__':
    sys.exit(main())
