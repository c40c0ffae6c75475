"""A folder holds the predictions of one run only."""

import dataclasses
import json

import pytest

from mmliir.evaluation.protocol import (
    RUN_CARD_NAME,
    ProtocolCard,
    check_run_card,
    fingerprint_data,
    read_run_card,
    write_run_card,
)
from mmliir.propagation import get_protocol


@pytest.fixture
def card():
    return ProtocolCard(
        protocol='liir_davis',
        settings={'radius': 12, 'topk': 10, 'carry': 'hard', 'gaps': (1, 3)},
        input={'short_side': 480},
        colour_space='lab',
        model='liir_r18',
        checkpoint_sha256=None,
        data=fingerprint_data([('goat', 90, (480, 854))]),
        metric_version='davis-1',
        n_of_N=(1, 20),
        code_version='0.1.0',
        seed=0,
    )


def test_an_empty_or_missing_folder_is_a_fresh_start(tmp_path, card):
    assert check_run_card(tmp_path, card) is False
    assert check_run_card(tmp_path / 'new', card) is False


def test_the_same_card_resumes(tmp_path, card):
    path = write_run_card(tmp_path / 'run', card)
    assert path.name == RUN_CARD_NAME
    (tmp_path / 'run' / 'goat').mkdir()
    (tmp_path / 'run' / 'goat' / '00000.png').touch()
    assert check_run_card(tmp_path / 'run', card) is True
    assert read_run_card(tmp_path / 'run')['settings']['gaps'] == [1, 3]


def test_another_card_is_refused_by_the_keys_that_differ(tmp_path, card):
    write_run_card(tmp_path, card)
    other = dataclasses.replace(card, settings={**card.settings, 'radius': 15}, checkpoint_sha256='ab' * 32)
    with pytest.raises(ValueError) as error:
        check_run_card(tmp_path, other)
    message = str(error.value)
    assert 'settings.radius: 12 there, 15 now' in message
    assert 'checkpoint_sha256: null there' in message
    assert '--overwrite' in message and '--out' in message
    assert 'topk' not in message


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(ProtocolCard)])
def test_every_field_counts(tmp_path, card, field):
    write_run_card(tmp_path, card)
    others = {
        'settings': {'radius': 12},
        'input': {},
        'data': fingerprint_data([('goat', 91, (480, 854))]),
        'n_of_N': (2, 20),
    }
    with pytest.raises(ValueError, match=field):
        check_run_card(tmp_path, dataclasses.replace(card, **{field: others.get(field, 'other')}))


def test_predictions_without_a_card_are_another_runs(tmp_path, card):
    (tmp_path / 'goat').mkdir()
    (tmp_path / 'goat' / '00000.png').touch()
    with pytest.raises(ValueError, match="another run's predictions"):
        check_run_card(tmp_path, card)


def test_parts_of_the_settings_stand_in_the_card_and_are_compared(tmp_path, card):
    mast = get_protocol('mast')
    settings = [
        dataclasses.asdict(protocol.settings)
        for protocol in (
            mast,
            mast.with_settings({'long_range': {'labels_from_last': True}}),
            mast.with_settings({'long_range': None}),
        )
    ]
    write_run_card(tmp_path, dataclasses.replace(card, settings=settings[0]))
    assert read_run_card(tmp_path)['settings']['long_range'] == {
        'min_distance': 15, 'max_dilation': 4, 'coarse_radius': 12, 'labels_from_last': False,
        'align_corners_mismatch': False,
    }  # fmt: skip
    assert check_run_card(tmp_path, dataclasses.replace(card, settings=settings[0])) is True
    with pytest.raises(ValueError, match='settings.long_range.labels_from_last: false there, true now'):
        check_run_card(tmp_path, dataclasses.replace(card, settings=settings[1]))
    with pytest.raises(ValueError, match='settings.long_range: {.* there, null now'):
        check_run_card(tmp_path, dataclasses.replace(card, settings=settings[2]))


@pytest.mark.parametrize('text', ['{"protocol": ', '[]'])
def test_a_broken_card_is_refused(tmp_path, card, text):
    (tmp_path / RUN_CARD_NAME).write_text(text)
    with pytest.raises(ValueError, match=RUN_CARD_NAME):
        check_run_card(tmp_path, card)


def test_a_card_holds_only_what_json_holds(tmp_path, card):
    with pytest.raises(TypeError):
        write_run_card(tmp_path, dataclasses.replace(card, settings={'radius': object()}))
    with pytest.raises(ValueError, match='JSON'):
        write_run_card(tmp_path, dataclasses.replace(card, settings={'temperature': float('nan')}))
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_sees_names_lengths_and_sizes_and_no_order():
    rows = [('goat', 90, (480, 854)), ('camel', 80, (480, 854))]
    first = fingerprint_data(rows)
    assert first == fingerprint_data(rows[::-1])
    assert (first.num_sequences, first.num_frames) == (2, 170)
    for changed in (('goat', 91, (480, 854)), ('gnu', 90, (480, 854)), ('goat', 90, (854, 480))):
        assert fingerprint_data([changed, rows[1]]).sha256 != first.sha256
    json.dumps(dataclasses.asdict(first))
