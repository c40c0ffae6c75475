"""From nothing to a report: generate videos, train LIIR on their raw frames, evaluate before and after."""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmliir.apis.configs import load_config
from mmliir.apis.evaluate import UNTRAINED, Evaluation, default_jobs, evaluate
from mmliir.apis.train import train
from mmliir.datasets import DavisDataset, read_label_map
from mmliir.evaluation.report import Report, ScoreRow, ScoreTable, Verdict, write_report
from mmliir.testing.synthetic import (
    SceneSettings,
    SyntheticVideo,
    generate_videos,
    write_davis_layout,
    write_frame_folders,
)
from mmliir.utils.checkpoint import read_checkpoint
from mmliir.utils.env import environment
from mmliir.utils.files import read_text, write_json_atomic
from mmliir.utils.machine import usable_cores
from mmliir.utils.progress import ProgressBar
from mmliir.visualization import contact_sheet, overlay_labels, write_video

#: The trained encoder must beat the untrained one and raw Lab colours by this many points J&F.
MARGIN = 10.0
TRAIN_VIDEOS, VAL_VIDEOS = 48, 10
FRAME_SIZE = (96, 160)
#: Big shapes, patterns of 12 to 30 pixels, strong noise: raw colours are ambiguous within the window, structure is not.
SCENES = SceneSettings(
    late_object=True,
    num_distractors=2,
    radius=(0.25, 0.35),
    wavelength=(12.0, 30.0),
    brightness_drift=0.05,
    chroma_drift=3.0,
    light_gradient=0.05,
    noise=8.0,
)
_VAL_SEEDS = range(9000, 9000 + VAL_VIDEOS)
_TRAIN_SEEDS = range(1, 1 + TRAIN_VIDEOS)
_SHOWN = {'J&F': 'jf_mean', 'J': 'j_mean', 'F': 'f_mean'}
_RAW_LAB = dict(type='RawColor', stride=4, data_preprocessor=dict(type='VideoPreprocessor', color_space='lab'))


@dataclass(frozen=True)
class Quickstart:
    """Outcome: J&F in percent of each feature, whether the margin was reached, and the report's path."""

    raw_lab: float
    untrained: float
    trained: float
    passed: bool
    report: Path


def run_quickstart(config: str | Path, work_dir: str | Path, task: dict, seed: int = 0, options=None) -> Quickstart:
    """Run the whole quickstart; steps that are complete in `work_dir` are not done again.

    Args:
        config: `configs/liir_r18_quickstart.py`.
        work_dir: Data, checkpoints, predictions and `report.html` go here.
        task: Config of the DAVIS-2017 task.
        seed: Of the weights and of training; the videos are always the same.
        options: Changes to the config by dotted name.

    Returns:
        The scores and the verdict.
    """
    work_dir, started = Path(work_dir), time.monotonic()
    data = make_data(work_dir / 'data')
    options = {'randomness.seed': seed, **(options or {})}
    cfg = load_config(config, options)
    raw_cfg = Config(dict(model=_RAW_LAB, protocol=cfg.protocol))
    common = dict(task=task, data_root=data / 'davis', jobs=default_jobs(), seed=seed, overwrite=True)
    _say('2/5', 'evaluating raw Lab colours and the untrained encoder')
    raw = evaluate(raw_cfg, None, out_dir=work_dir / 'predictions' / 'raw_lab', name='raw_lab', **common)
    before = evaluate(cfg, UNTRAINED, out_dir=work_dir / 'predictions' / 'untrained', **common)
    _say('3/5', f'training on {TRAIN_VIDEOS} unlabelled videos')
    run_dir = work_dir / f'train_seed{seed}'
    checkpoint = train(config, work_dir=run_dir, options=options, resume=run_dir.is_dir(), data_root=data / 'train')
    _say('4/5', 'evaluating the trained encoder')
    after = evaluate(cfg, checkpoint, out_dir=work_dir / 'predictions' / 'trained', **common)
    _say('5/5', 'writing the report')
    runs = {'raw': raw, 'before': before, 'after': after}
    jf = {name: 100 * run.result.metrics['jf_mean'] for name, run in runs.items()}
    margin = jf['after'] - max(jf['raw'], jf['before'])
    passed = margin >= MARGIN
    precision = read_checkpoint(checkpoint)['meta']['precision']
    report = _write(work_dir, data, cfg, raw, before, after, margin, passed, run_dir, precision, seed, started)
    result = Quickstart(jf['raw'], jf['before'], jf['after'], passed, report)
    write_json_atomic(
        work_dir / 'quickstart.json',
        {'raw_lab': jf['raw'], 'untrained': jf['before'], 'trained': jf['after'], 'margin': margin, 'seed': seed},
    )
    return result


def make_data(root: Path) -> Path:
    """Generate the training videos and the benchmark, once."""
    done = root / 'done.json'
    key = {'train': TRAIN_VIDEOS, 'val': VAL_VIDEOS, 'size': list(FRAME_SIZE), 'scenes': asdict(SCENES)}
    if done.is_file() and json.loads(read_text(done)) == json.loads(json.dumps(key)):
        return root
    _say('1/5', f'generating {TRAIN_VIDEOS} training videos and {VAL_VIDEOS} with ground truth')
    seeds = [*_TRAIN_SEEDS, *_VAL_SEEDS]
    videos = generate_videos(seeds, 25, FRAME_SIZE, SCENES, usable_cores())
    with ProgressBar('generating', 'videos') as bar:

        def some(count: int, done: int) -> Iterator[SyntheticVideo]:
            for number, video in enumerate(itertools.islice(videos, count), done):
                bar.update(number, len(seeds))
                yield video

        bar.update(0, len(seeds))
        write_frame_folders(root / 'train', some(TRAIN_VIDEOS, 0))
        write_davis_layout(root / 'davis', some(VAL_VIDEOS, TRAIN_VIDEOS))
    write_json_atomic(done, key)
    return root


def _say(step: str, text: str) -> None:
    print(f'[{step}] {text}', file=sys.stderr, flush=True)


def _write(work_dir, data, cfg, raw, before, after, margin, passed, run_dir, precision, seed, started) -> Path:
    """Assemble `report.html`."""
    runs = {'raw Lab colours': raw, 'untrained encoder': before, 'trained encoder': after}
    dataset = DavisDataset(str(data / 'davis'))
    sequences = after.result.sequences
    earlier = [one.metrics['jf_mean'] for one in before.result.sequences]
    gains = sorted(range(len(sequences)), key=lambda i: earlier[i] - sequences[i].metrics['jf_mean'])
    shown = [sequences[i].name for i in (gains[0], gains[len(gains) // 2], gains[-1])]
    pictures = [(f'{name}: truth and predictions', _sheet(dataset, name, runs)) for name in shown]
    videos = [(f'{shown[0]}: trained encoder', _video(dataset, shown[0], after, work_dir))]
    minutes = (time.monotonic() - started) / 60
    report = Report(
        title='LIIR quickstart',
        subtitle=(
            f'{TRAIN_VIDEOS} unlabelled generated videos to train on, {len(sequences)} with exact truth to test on; '
            f'label propagation under the `{after.card.protocol}` protocol; seed {seed}; trained in {precision}; '
            f'{minutes:.1f} minutes in all.'
        ),
        summary_rows=[
            ScoreRow(
                name,
                {title: run.result.metrics[name] for title, name in _SHOWN.items()},
                highlight=name == 'trained encoder',
            )
            for name, run in runs.items()
        ],
        verdict=Verdict(
            passed,
            f'The trained encoder is {margin:+.1f} points J&F against the better of the two others '
            f'(required: {MARGIN:+.0f}).',
        ),
        loss_curves=read_loss_curves(run_dir),
        tables=[
            ScoreTable(
                'Sequences',
                ('sequence', 'J&F raw Lab', 'J&F untrained', 'J&F trained', 'J trained', 'F trained'),
                tuple(
                    (s.name, *(one.metrics['jf_mean'] for one in (r, b, s)), s.metrics['j_mean'], s.metrics['f_mean'])
                    for r, b, s in zip(raw.result.sequences, before.result.sequences, sequences, strict=True)
                ),
            )
        ],
        pictures=pictures,
        videos=videos,
        card=after.card.to_dict(),
        commands=[
            'make quickstart',
            f'python tools/train.py configs/liir_r18_quickstart.py --data-root {_shown(data / "train")} --seed {seed}',
            f'python tools/test.py configs/liir_r18_quickstart.py CHECKPOINT --task davis2017 --data-root '
            f'{_shown(data / "davis")}',
        ],
        notes=[
            'Generated videos say that the machinery works and learns; they say nothing about natural video. '
            'Scores on real sequences stand in docs/benchmarks.md.'
        ],
        environment=environment() | {'training precision': precision},
    )
    return write_report(work_dir / 'report.html', report).path


def _shown(path: Path) -> str:
    """A path as it may be shown to others: relative to here where it lies below."""
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else path.name


def _sheet(dataset: DavisDataset, name: str, runs: dict[str, Evaluation], columns: int = 5) -> np.ndarray:
    """Truth and predictions of a sequence at a few frames."""
    sample = dataset.sample(name)
    numbers = np.linspace(0, len(sample.frames) - 1, columns).round().astype(int)
    truth = dataset.annotation_paths(name)
    rows = [[overlay_labels(sample.frames[n], read_label_map(truth[n]).ids) for n in numbers]]
    for run in runs.values():
        masks = [read_label_map(run.out_dir / name / f'{sample.frame_names[n]}.png').ids for n in numbers]
        rows.append([overlay_labels(sample.frames[n], mask) for n, mask in zip(numbers, masks, strict=True)])
    return contact_sheet(rows, ['truth', *runs], [f'frame {n}' for n in numbers])


def _video(dataset: DavisDataset, name: str, run: Evaluation, work_dir: Path) -> Path:
    """Overlays of a whole sequence as a playable video, enlarged to be seen."""
    sample = dataset.sample(name)
    masks = (read_label_map(run.out_dir / name / f'{stem}.png').ids for stem in sample.frame_names)
    overlays = (overlay_labels(sample.frames[n], mask) for n, mask in enumerate(masks))
    return write_video(work_dir / 'videos' / f'{name}.mp4', (o.repeat(3, 0).repeat(3, 1) for o in overlays), fps=8)


def read_loss_curves(run_dir: Path, names: Sequence[str] = ('loss_reconstruction', 'loss_compact', 'negative_mass')):
    """Logged values of every stage of a run: name -> [(step, value)], stages one after the other."""
    curves: dict[str, list[tuple[float, float]]] = {}
    offset = 0
    for stage_dir in [*sorted(run_dir.glob('stage_*')), run_dir]:
        points = {}
        for path in sorted(stage_dir.glob('*/vis_data/scalars.json')):
            for line in read_text(path).splitlines():
                entry = json.loads(line)
                points[entry.get('step', entry.get('iter', 0))] = entry
        for step, entry in sorted(points.items()):
            for name in names:
                if name in entry:
                    curves.setdefault(name, []).append((offset + step, entry[name]))
        offset += max(points, default=0)
    return curves
