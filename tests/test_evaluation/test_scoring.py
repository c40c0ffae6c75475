"""What is left of a benchmark when files are broken: the broken sequences are found, the others are scored."""

import pytest
from replicas import write_perfect, write_replica

from mmliir.datasets.masks import write_label_map
from mmliir.evaluation.benchmarks import open_benchmark
from mmliir.evaluation.scoring import score_sound
from mmliir.evaluation.wording import metric_label
from mmliir.testing.synthetic import generate_video, write_davis_layout


@pytest.fixture
def task(tmp_path):
    """Five perfect sequences."""
    base = generate_video(0, 4, (32, 48))
    videos = [type(base)(f'v{number}', base.frames, base.label_maps) for number in range(5)]
    write_davis_layout(tmp_path / 'data' / 'davis2017', videos)
    task = open_benchmark('davis2017', tmp_path / 'data')
    write_perfect(task, tmp_path / 'pred')
    return task


def test_broken_sequences_are_found_among_sound_ones(task, tmp_path):
    (tmp_path / 'pred' / 'v1' / '00002.png').write_bytes(b'no picture')
    write_label_map(tmp_path / 'pred' / 'v4' / '00001.png', task.dataset.sample('v0').given_labels[0]()[:16])
    (tmp_path / 'pred' / 'v3' / '00001.png').unlink()
    result, missing = score_sound(task, tmp_path / 'pred', failed={'v0': 'said before'})
    assert [name for name, _ in missing] == ['v0', 'v1', 'v3', 'v4']
    reasons = dict(missing)
    assert reasons['v0'] == 'said before' and '00002.png' in reasons['v1'] and '00001.png' in reasons['v4']
    assert [row.name for row in result.sequences] == ['v2'] and result.metrics['jf_mean'] == 1.0
    assert result.num_sequences_in_split == 5


def test_when_nothing_is_left_there_is_no_result(task, tmp_path):
    result, missing = score_sound(task, tmp_path / 'nowhere')
    assert result is None and [name for name, _ in missing] == task.dataset.names
    for name in task.dataset.names:
        (tmp_path / 'pred' / name / '00002.png').write_bytes(b'no picture')
    result, missing = score_sound(task, tmp_path / 'pred')
    assert result is None and len(missing) == 5


def test_every_benchmark_of_the_replicas_survives_a_broken_prediction(tmp_path):
    write_replica('tapvid_davis', tmp_path)
    task = open_benchmark('tapvid_davis', tmp_path)
    write_perfect(task, tmp_path / 'pred')
    first, second = task.dataset.names
    (tmp_path / 'pred' / first / 'tracks.npz').write_bytes(b'no archive')
    result, missing = score_sound(task, tmp_path / 'pred')
    assert missing[0][0] == first and [row.name for row in result.sequences] == [second]


@pytest.mark.parametrize(
    ('name', 'label'),
    [('iou_hat', 'IoU hat'), ('ap@0.5', 'AP@0.5'), ('ap_left-shoe', 'AP left-shoe'), ('pts_within_4px', '< 4px'),
     ('pck@0.2_fgvc', 'PCK@0.2 fgvc'), ('j_recall', 'J recall'), ('pts_within', 'δ avg'), ('overall', 'overall')],
)  # fmt: skip
def test_metrics_are_called_as_people_call_them(name, label):
    assert metric_label(name) == label
