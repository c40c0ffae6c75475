"""Settings and presets: checked values, each with a source."""

from dataclasses import replace

import pytest

from mmliir.propagation import (
    PRESETS,
    InputSettings,
    LongRangeSearch,
    MixturePrior,
    PropagationSettings,
    Protocol,
    TaskSettings,
    get_protocol,
    resolve_protocol,
)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'shape': 'star'}, 'shape must be one of square, circle, disc'),
        ({'carry': 'both'}, 'carry must be one of hard, soft'),
        ({'encoding': 'area'}, 'encoding must be one of'),
        ({'upsample': 'cubic'}, 'upsample must be one of'),
        ({'border': 'wrap'}, 'border must be one of'),
        ({'grid': 'cells'}, 'grid must be one of blocks, frame, corners'),
        ({'grid': 'frame', 'upsample': 'exact'}, "give grid='blocks'"),
        ({'grid': 'corners'}, "give encoding='bilinear' and upsample='mast'"),
        ({'topk_ties': 'first'}, 'topk_ties must be one of keep, share'),
        ({'topk': 0}, 'topk'),
        ({'topk': 2.5}, 'topk'),
        ({'radius': -1}, 'radius'),
        ({'temperature': 0}, 'temperature'),
        ({'temperature': 'sqrt'}, 'sqrt_channels'),
        ({'fg_gain': 0.0}, 'fg_gain'),
        ({'gaps': (0, 1)}, 'gaps'),
        ({'gaps': (1, 1)}, 'twice'),
        ({'gaps': 3}, 'gaps must be a sequence'),
        ({'permanent': (-1,)}, 'permanent'),
        ({'permanent': (), 'gaps': ()}, 'no reference'),
        ({'permanent': (), 'gaps': (3,)}, 'frame 1'),
        ({'prior': 'fixed'}, 'MixturePrior'),
        ({'prior': MixturePrior(), 'radius': None}, 'window on every reference'),
        ({'prior': MixturePrior(), 'window_on_permanent': False}, 'window on every reference'),
        ({'long_range': True}, 'LongRangeSearch or None'),
        ({'long_range': LongRangeSearch(), 'radius': None}, 'needs one on every reference'),
        ({'long_range': LongRangeSearch(), 'window_on_permanent': False}, 'needs one on every reference'),
        ({'long_range': LongRangeSearch(align_corners_mismatch=True), 'border': 'mask'}, "give border='zero_logit'"),
    ],
)
def test_a_wrong_value_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        PropagationSettings(**change)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'min_distance': 0}, 'min_distance must be a whole number of frames'),
        ({'max_dilation': 1.5}, 'max_dilation must be a whole number of cells'),
        ({'coarse_radius': -1}, 'coarse_radius must be a whole number of steps'),
        ({'labels_from_last': 1}, 'labels_from_last must be True or False'),
        ({'align_corners_mismatch': None}, 'align_corners_mismatch must be True or False'),
    ],
)
def test_a_wrong_value_of_the_two_step_search_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        LongRangeSearch(**change)


def test_the_dilation_of_mast_grows_with_the_distance():
    """d = min(4, D // 15 + 1) for D > 15 (liir.md section 6.2)."""
    expected = {1: None, 15: None, 16: 2, 29: 2, 30: 3, 44: 3, 45: 4, 60: 4, 1000: 4}
    assert {distance: LongRangeSearch().dilation(distance) for distance in expected} == expected


def test_a_mistyped_setting_is_an_error():
    with pytest.raises(TypeError, match='top_k'):
        PropagationSettings(top_k=3)


def test_lists_become_tuples_so_that_settings_are_values():
    assert PropagationSettings(gaps=[1, 3]) == PropagationSettings(gaps=(1, 3))
    assert hash(PropagationSettings(gaps=[1, 3])) == hash(PropagationSettings(gaps=(1, 3)))


def test_the_temperature_of_sqrt_channels():
    assert PropagationSettings(temperature='sqrt_channels').resolve_temperature(64) == 8.0
    assert PropagationSettings(temperature=0.05).resolve_temperature(64) == 0.05


def test_a_protocol_without_a_source_is_refused():
    protocol = PRESETS['crw']
    with pytest.raises(ValueError, match='topk'):
        Protocol(
            'mine',
            protocol.settings,
            protocol.input,
            {k: v for k, v in protocol.sources.items() if k != 'topk'},
        )


def test_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(ValueError, match='liir_paper, liir_compat, mast, crw, quick, dino, vfs, dinov3'):
        get_protocol('liir')
    assert get_protocol('crw') is PRESETS['crw']


@pytest.mark.parametrize(
    ('settings', 'size', 'resized', 'padded'),
    [
        (InputSettings(), (480, 854), (480, 854), (480, 854)),
        (InputSettings(multiple_of=4), (480, 854), (480, 854), (480, 856)),
        (InputSettings(short_side=240), (480, 854), (240, 427), (240, 427)),
        (
            InputSettings(short_side=480, multiple_of=64, fit='floor_long_side'),
            (480, 854),
            (480, 832),
            (480, 832),
        ),
        (
            InputSettings(short_side=480, multiple_of=64, fit='floor_long_side'),
            (854, 480),
            (832, 480),
            (832, 480),
        ),
        (InputSettings(size=(560, 560)), (480, 854), (560, 560), (560, 560)),
        (InputSettings(short_side=960, multiple_of=16, fit='ceil'), (1080, 1920), (960, 1712), (960, 1712)),
        (InputSettings(short_side=960, multiple_of=14, fit='ceil'), (1920, 1080), (1722, 966), (1722, 966)),
        (InputSettings(multiple_of=16, fit='ceil'), (480, 854), (480, 864), (480, 864)),
        (InputSettings(short_side=480), (1, 1), (480, 480), (480, 480)),
    ],
)
def test_input_sizes(settings, size, resized, padded):
    assert settings.resized(*size) == resized
    assert settings.padded(*resized) == padded


def test_a_benchmark_names_its_size_once():
    with pytest.raises(ValueError, match='input or short_side'):
        TaskSettings('mine', input=InputSettings(), short_side=480)
    pad = InputSettings(size=(480, 880), multiple_of=16, fit='ceil')
    expected = InputSettings(short_side=480, multiple_of=16, fit='ceil')
    assert TaskSettings('mine', short_side=480).resolve_input(pad) == expected
    assert TaskSettings('mine').resolve_input(pad) == pad


def test_an_unknown_benchmark_of_a_protocol_is_refused():
    with pytest.raises(ValueError, match="tasks has 'vip17'; there are vip, jhmdb"):
        replace(PRESETS['crw'], tasks={'vip17': TaskSettings('mine')})


@pytest.mark.parametrize(
    'change',
    [
        {'short_side': 0},
        {'multiple_of': 0},
        {'fit': 'crop'},
        {'size': (3,)},
        {'size': (4, 4), 'short_side': 4},
    ],
)
def test_a_wrong_input_size_is_refused(change):
    with pytest.raises(ValueError):
        InputSettings(**change)


def test_settings_can_be_replaced():
    assert replace(PRESETS['mast'].settings, topk=36).topk == 36
    with pytest.raises(ValueError, match='topk'):
        replace(PRESETS['mast'].settings, topk=-1)


def test_a_changed_protocol_says_so_in_its_name_and_sources_and_changes_nothing_else():
    base, changed = PRESETS['crw'], PRESETS['crw'].with_settings({'radius': 5})
    assert changed.name == 'crw+radius=5'
    assert changed.settings == replace(base.settings, radius=5)
    assert changed.input == base.input
    assert changed.sources['radius'] == 'chosen by the user'
    assert {k: v for k, v in changed.sources.items() if k != 'radius'} == {
        k: v for k, v in base.sources.items() if k != 'radius'
    }
    with pytest.raises(ValueError, match="no setting 'radios'"):
        base.with_settings({'radios': 5})


def test_parts_are_switched_off_by_none_and_changed_by_a_dict():
    mast, vfs = PRESETS['mast'], PRESETS['vfs']
    off = mast.with_settings({'long_range': None})
    assert off.name == 'mast+long_range=None' and off.settings == replace(mast.settings, long_range=None)
    parity = mast.with_settings({'long_range': {'labels_from_last': True}}).settings.long_range
    assert parity == LongRangeSearch(labels_from_last=True)
    narrow = mast.with_settings({'long_range': LongRangeSearch(coarse_radius=6)})
    again = narrow.with_settings({'long_range.labels_from_last': True}).settings.long_range
    assert again == LongRangeSearch(coarse_radius=6, labels_from_last=True)
    released = mast.with_settings({'long_range.align_corners_mismatch': True})
    assert released.settings.long_range == LongRangeSearch(align_corners_mismatch=True)
    assert 'align_corners_mismatch chosen by the user' in released.sources['long_range']
    assert vfs.with_settings({'long_range': {'min_distance': 9}}).settings.long_range == LongRangeSearch(9)
    with pytest.raises(ValueError, match="long_range has no 'label_from_last'"):
        mast.with_settings({'long_range': {'label_from_last': True}})


def test_one_value_of_the_prior_can_be_changed_and_the_others_stay():
    base = PRESETS['liir_compat']
    changed = base.with_settings({'prior.num_mixtures': 3})
    assert changed.settings == replace(base.settings, prior=replace(base.settings.prior, num_mixtures=3))
    assert changed.name == 'liir_compat+prior.num_mixtures=3'
    assert changed.sources['prior'] == f'num_mixtures chosen by the user; else {base.sources["prior"]}'
    both = base.with_settings({'prior.num_mixtures': 3, 'prior.threshold': None, 'radius': 2})
    assert both.settings == replace(base.settings, radius=2, prior=MixturePrior(3, 'fixed', None))


def test_the_prior_is_switched_off_by_none_and_given_whole_as_a_dict():
    base = PRESETS['liir_paper']
    off = base.with_settings({'prior': None})
    assert off.settings == replace(base.settings, prior=None) and off.name == 'liir_paper+prior=None'
    given = PRESETS['mast'].with_settings({'prior': dict(num_mixtures=1, estimator='fixed')})
    assert given.settings.prior == MixturePrior(num_mixtures=1, estimator='fixed')
    assert given.name == 'mast+prior={num_mixtures=1,estimator=fixed}'
    assert given == resolve_protocol(dict(base='mast', changes=dict(prior=dict(num_mixtures=1, estimator='fixed'))))
    # a dict is the whole prior: what it does not name has the default, not the protocol's value
    assert base.settings.prior.keep_mass and not base.with_settings({'prior': {}}).settings.prior.keep_mass


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('crw', {'prior.num_mixtures': 2}, "'crw' has no prior, so 'prior.num_mixtures' changes nothing: give `prior`"),
        ('liir_paper', {'prior': None, 'prior.num_mixtures': 2}, 'has no prior'),
        ('liir_paper', {'prior.components': 2}, "prior has no 'components'; it has num_mixtures, estimator"),
        ('liir_paper', {'prior': {'components': 2}}, "prior has no 'components'"),
        ('liir_paper', {'prior.num_mixtures': 0}, 'num_mixtures must be a whole number'),
        ('liir_paper', {'radius.inner': 2}, "'radius' has no parts"),
        ('liir_paper', {'priors.num_mixtures': 2}, "no setting 'priors'"),
        ('liir_paper', {'prior': 2}, 'prior must be a MixturePrior or None'),
    ],
)
def test_a_wrong_change_of_the_prior_is_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        PRESETS[name].with_settings(changes)


def test_another_short_side_is_part_of_the_name():
    small = PRESETS['dino'].at_short_side(240)
    assert small.name == 'dino@240'
    assert small.input == replace(PRESETS['dino'].input, short_side=240)
    assert small.settings == PRESETS['dino'].settings


def test_a_protocol_of_a_config_is_a_name_or_a_base_with_changes():
    assert resolve_protocol('mast') is PRESETS['mast']
    assert resolve_protocol(PRESETS['mast']) is PRESETS['mast']
    assert resolve_protocol(dict(base='mast', changes=dict(topk=3))).settings.topk == 3
    with pytest.raises(ValueError, match='base=NAME'):
        resolve_protocol(dict(base='mast', topk=3))
