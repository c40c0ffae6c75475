"""The tasks of JHMDB and BADJA: what the data set asks for is what the metric scores."""

from pathlib import Path

import numpy as np
import pytest
from mmengine import Config
from pck_cases import write_tracks

from mmliir.evaluation.tasks import build_task
from mmliir.propagation import get_protocol
from mmliir.testing.synthetic_badja import write_badja
from mmliir.testing.synthetic_jhmdb import write_jhmdb

TASKS = Path(__file__).parents[2] / 'configs' / '_base_' / 'tasks'
WRITE = {'jhmdb': write_jhmdb, 'badja': write_badja}


@pytest.mark.parametrize('name', ['jhmdb', 'badja'])
def test_a_task_gives_queries_and_scores_their_tracks(name, tmp_path):
    if name == 'jhmdb':
        pytest.importorskip('scipy')
    videos = WRITE[name](tmp_path / 'data')
    chosen = list(videos)[1:]
    config = Config.fromfile(str(TASKS / f'{name}.py')).task.to_dict()
    task = build_task(config, data_root=tmp_path / 'data', sequences=chosen)
    assert task.name == task.dataset.family == task.metric.benchmark == name
    assert task.dataset.names == list(task.metric.sequences) == chosen
    assert task.metric.num_sequences_in_split == 2
    for sample in task.dataset:
        assert len(sample.frames) == len(sample.frame_names) and Path(sample.name).name == sample.name
        still = np.repeat(sample.queries[:, None, 1:], len(sample.frames), axis=1)
        write_tracks(tmp_path / 'pred', sample.name, sample.queries, still)
    metrics = task.metric.evaluate(tmp_path / 'pred').metrics
    assert all(0 < metrics[f'pck@{alpha}'] <= 1 for alpha in (0.1, 0.2))
    assert get_protocol('crw').for_task(name).input.size is not None


def test_videos_of_the_replicas_differ_and_repeat(tmp_path):
    pytest.importorskip('scipy')
    for name, write in WRITE.items():
        once, again = (list(write(tmp_path / name / run).values()) for run in ('a', 'b'))
        assert all(np.array_equal(one.frames, two.frames) for one, two in zip(once, again))
        assert all(np.array_equal(one.joints, two.joints) for one, two in zip(once, again))
        assert not np.array_equal(once[0].frames[0], once[1].frames[0])
        # The body moves: standing still is no answer.
        assert all(np.linalg.norm(video.joints[-1] - video.joints[0], axis=1).min() > 1 for video in once)


def test_the_pattern_goes_with_the_joints_of_a_replica(tmp_path):
    """What is seen around a joint in the first frame is seen around it in the last."""
    video = next(iter(write_badja(tmp_path).values()))
    changes = {'joint': [], 'place': []}
    for joint in range(20):
        first, last = (np.rint(video.joints[t, joint]).astype(int) for t in (0, -1))
        seen = video.frames[0, first[1], first[0]].astype(int)
        changes['joint'].append(np.abs(video.frames[-1, last[1], last[0]] - seen).mean())
        changes['place'].append(np.abs(video.frames[-1, first[1], first[0]] - seen).mean())
    assert np.mean(changes['joint']) < 0.5 * np.mean(changes['place'])
