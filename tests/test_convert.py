"""Checkpoints of other projects: twins of their networks give the same features here, and every tensor is reported."""

import argparse
import json
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from checkpoint_twins import TWINS, Twin
from command_cases import ROOT, contents, run

from mmliir.apis.configs import load_config
from mmliir.apis.convert import convert_checkpoint, write_conversion
from mmliir.apis.evaluate import build_method
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.utils.checkpoint import RECIPE_KEY, compare_recipes, load_weights, read_checkpoint
from mmliir.utils.key_maps import KEY_MAPS, likely_families

FROZEN = ROOT / 'configs' / 'frozen'
PAPER, COMPAT = (ROOT / 'configs' / f'{name}.py' for name in ('liir_r18_ytvos', 'liir_r18_ytvos_compat'))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# mean and std that each project's evaluation applies to RGB in 0..1
RGB = {
    'crw_r18': IMAGENET,
    'vfs_r18': ([v / 255 for v in (123.675, 116.28, 103.53)], [v / 255 for v in (58.395, 57.12, 57.375)]),
    'dino_vits16': (IMAGENET[0], (0.228, 0.224, 0.225)),
    'dino_vits8': (IMAGENET[0], (0.228, 0.224, 0.225)),
    'imagenet_r18': IMAGENET,
    'imagenet_r50': IMAGENET,
    'moco_r50': IMAGENET,
    'timm_vits16': ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save(name: str, folder) -> tuple[Twin, object]:
    twin = TWINS[name]()
    torch.save(twin.checkpoint, folder / 'theirs.pth')
    return twin, folder / 'theirs.pth'


@pytest.fixture(scope='module')
def crw(tmp_path_factory):
    return save('crw', tmp_path_factory.mktemp('crw'))


# -- features and reports -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', TWINS)
def test_a_twin_has_the_same_features_here_and_its_report_names_every_tensor(name, tmp_path):
    twin, path = save(name, tmp_path)
    conversion = convert_checkpoint(twin.family, path)
    report = conversion.report
    # DINO's own ResNet-50 and torchvision's have the same shapes; each family finds its config by itself
    assert report.config == FROZEN / f'{twin.config}.py'
    assert set(report.loaded.values()) == twin.needed
    assert set(report.ignored) == twin.ignored and all(report.ignored.values())
    assert (report.missing, report.unexpected, report.reshaped, report.training_only) == ((), (), {}, ())
    assert bool(report.filled) == name.endswith('_old')

    out = write_conversion(conversion, tmp_path / 'ours.pth')
    model = build_method(load_config(FROZEN / f'{twin.config}.py'), out, device='cpu')
    assert set(model.state_dict()) == set(report.loaded) | set(report.filled)
    side = model.stride * 4
    images = torch.randn(2, 3, side, side + 2 * model.stride, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = model.encoder(images), twin.feature(images)
    assert ours.shape == theirs.shape == (2, model.encoder.out_channels, 4, 6)
    assert theirs.std() > 1e-2 and theirs.isfinite().all()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max().clamp_min(1)))


@pytest.mark.parametrize('name', RGB)
def test_frames_are_normalised_as_the_project_does(name):
    mean, std = RGB[name]
    model = build_method(load_config(FROZEN / f'{name}.py'), 'untrained', device='cpu')
    frames = torch.randint(0, 256, (1, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([(frames[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model.data_preprocessor.normalize(frames).double(), expected, rtol=0, atol=2e-6)


def test_vision_transformers_keep_their_learnt_positions_at_the_size_of_training(tmp_path):
    twin, path = save('dino_vits16', tmp_path)
    model = build_method(load_config(FROZEN / 'dino_vits16.py'), 'untrained', device='cpu')
    model.load_state_dict(convert_checkpoint('dino', path).weights)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(images), twin.feature(images), rtol=0, atol=1e-4)
    assert torch.equal(model.encoder.backbone.position_tokens((14, 14)), model.encoder.backbone.pos_embed)


@pytest.mark.parametrize(
    'name, wrong',
    [
        ('crw', {'model.backbone.padding_mode': 'zeros'}),
        ('torchvision_r18', {'model.backbone.padding_mode': 'reflect'}),
        ('vfs_r18', {'model.backbone.strides': (1, 1, 2, 1)}),
        ('dino_vits16', {'model.backbone.position_resize': 'timm'}),
        ('timm_vits16', {'model.backbone.position_resize': 'dino'}),
        ('dino_vits16', {'model.backbone.heads': 12}),
        ('liir', {'model.position_encoder.resize_mode': 'bilinear'}),
    ],
)
def test_a_setting_of_the_config_that_weights_cannot_tell_matters(name, wrong, tmp_path):
    twin, path = save(name, tmp_path)
    model = build_method(load_config(FROZEN / f'{twin.config}.py', wrong), 'untrained', device='cpu')
    model.load_state_dict(convert_checkpoint(twin.family, path).weights)
    images = torch.randn(1, 3, 4 * model.stride, 6 * model.stride, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = model.encoder(images), twin.feature(images)
    assert (ours - theirs).abs().max() > 1e-3 * theirs.abs().max()


def test_weights_of_liir_pytorch_fit_the_method_that_is_trained_too(tmp_path):
    twin, path = save('liir', tmp_path)
    theirs = twin.checkpoint['state_dict']
    branch = {name for name in theirs if name.startswith('conv_semantic')}
    conversion = convert_checkpoint('liir', path, COMPAT)
    report = conversion.report
    assert set(report.loaded.values()) == twin.needed | branch and report.num_problems == 0
    assert len(branch) == 4 and set(report.ignored) == twin.ignored - branch
    assert report.training_only == ()

    model = build_method(load_config(COMPAT), write_conversion(conversion, tmp_path / 'ours.pth'), device='cpu')
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.encoder.backbone_features(images)
        torch.testing.assert_close(model.encoder(images), twin.feature(images), rtol=0, atol=1e-4)
        for ours, name in (
            (model.inter.projection, 'conv_semantic'),
            (model.inter.momentum_encoder.encoder, 'conv_semantic_k'),
        ):
            weight, bias = theirs[f'{name}.weight'], theirs[f'{name}.bias']
            expected = F.conv2d(features, weight, bias, stride=2, padding=1)
            torch.testing.assert_close(ours(features), expected, rtol=0, atol=1e-4)
    assert not torch.equal(theirs['conv_semantic.weight'], theirs['conv_semantic_k.weight'])


@pytest.mark.parametrize(
    'config, changes', [(FROZEN / 'liir_pytorch_r18.py', {}), (PAPER, {}), (COMPAT, {'model.inter': None})]
)
def test_the_branch_of_liir_pytorch_is_left_with_a_reason_where_the_model_has_none(
    config, changes, tmp_path, monkeypatch
):
    monkeypatch.setattr('mmliir.apis.convert.load_config', lambda path: load_config(path, changes))
    twin, path = save('liir', tmp_path)
    report = convert_checkpoint('liir', path, config).report
    assert set(report.loaded.values()) == twin.needed and set(report.ignored) == twin.ignored
    branch = [reason for name, reason in report.ignored.items() if name.startswith('conv_semantic')]
    assert len(branch) == 4 and all('which the config has not' in reason for reason in branch)
    assert all(name.startswith('inter.momentum_encoder.') for name in report.training_only)


# -- recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('family', ['liir', 'mast'])
def test_a_config_of_another_temperature_is_refused_though_every_tensor_fits(family, tmp_path):
    _, path = save(family, tmp_path)
    config = {'liir': PAPER, 'mast': ROOT / 'configs' / 'mast_r18_ytvos.py'}[family]
    done = run('mmliir', 'convert', family, path, '--config', config, '--out', tmp_path / 'ours.pth')
    error = done.error()
    assert 'temperature 1.0, this config 8.0' in error and f'configs/frozen/{family}_pytorch_r18.py' in error
    assert ('configs/liir_r18_ytvos_compat.py' in error) == (family == 'liir')
    assert 'of another recipe: 1\n  temperature 1.0, this config 8.0' in done.out
    assert 'missing: 0' in done.out and 'unexpected: 0' in done.out
    assert contents(tmp_path).keys() == {'theirs.pth'}


def test_a_config_of_other_colours_is_refused(crw, tmp_path):
    config = tmp_path / 'lab.py'
    config.write_text(
        f"_base_ = ['{FROZEN / 'crw_r18.py'}']\n"
        "model = dict(data_preprocessor=dict(_delete_=True, type='VideoPreprocessor', color_space='lab'))\n"
    )
    conversion = convert_checkpoint('crw', crw[1], config)
    assert conversion.report.other_recipe.keys() == {'color_space', 'mean', 'std'}
    with pytest.raises(ValueError, match="color_space 'rgb', this config 'lab'.*Use configs/frozen/crw_r18.py"):
        write_conversion(conversion, tmp_path / 'ours.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_converted_weights_carry_their_recipe_and_another_model_refuses_them(suffix, tmp_path):
    _, path = save('liir', tmp_path)
    out = write_conversion(convert_checkpoint('liir', path), tmp_path / f'ours{suffix}')
    converted = read_checkpoint(out)
    assert converted['recipe'] == {
        'color_space': 'lab',
        'mean': [50.0, 0.0, 0.0],
        'std': [50.0, 127.0, 127.0],
        'temperature': 1.0,
        'normalize': False,
    }
    with pytest.raises(ValueError, match='another recipe: temperature 1.0, this config 8.0'):
        build_method(load_config(PAPER), out, device='cpu')
    same = {'model.reconstruction_head.temperature': 1.0}
    for config in (load_config(PAPER, same), load_config(COMPAT)):
        build_method(config, out, device='cpu')
    with pytest.raises(ValueError, match='another recipe: normalize False, this config True'):
        build_method(load_config(PAPER, {**same, 'model.reconstruction_head.normalize': True}), out, device='cpu')


@pytest.mark.parametrize('content', ['no json', '[1]'])
def test_a_recipe_that_is_none_is_refused(content, tmp_path):
    from safetensors.torch import save_file

    model = torch.nn.Linear(1, 1)
    save_file(model.state_dict(), tmp_path / 'odd.safetensors', {RECIPE_KEY: content})
    with pytest.raises(ValueError, match='odd.safetensors.*(is no JSON|a recipe that is a list)'):
        load_weights(model, read_checkpoint(tmp_path / 'odd.safetensors'), 'odd.safetensors')


@pytest.mark.parametrize('family', KEY_MAPS)
def test_every_config_of_a_family_has_its_recipe(family):
    key_map = KEY_MAPS[family]
    assert json.loads(json.dumps(key_map.recipe)) == key_map.recipe  # else a .safetensors file would change it
    configs = [FROZEN / f'{name}.py' for name in key_map.configs]
    if key_map.training_config is not None:
        configs.append(ROOT / 'configs' / f'{key_map.training_config}.py')
    for config in configs:
        own = build_method(load_config(config), 'untrained', device='cpu').recipe
        assert compare_recipes(key_map.recipe, own) == {} and own['color_space'] == key_map.recipe['color_space']


# -- the command --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['liir', 'mast', 'crw', 'vfs_r18', 'dino_full', 'moco_v2', 'torchvision_r18', 'timm_r50', 'timm_vits16']
)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_checkpoint_of_each_family_is_converted_and_scored(name, suffix, tmp_path):
    twin, path = save(name, tmp_path)
    out = tmp_path / f'ours{suffix}'
    done = run('mmliir', 'convert', twin.family, path, '--out', out)
    assert done.code == 0, done.err
    assert f'loaded: {len(twin.needed)}' in done.out and f'ignored by rule: {len(twin.ignored)}' in done.out
    assert 'missing: 0' in done.out and 'unexpected: 0' in done.out and 'of another shape: 0' in done.out
    assert all(theirs in done.out for theirs in twin.needed | twin.ignored)

    write_davis_layout(tmp_path / 'davis', [generate_video(0, 3, (48, 64), name='v')], year=2016)
    scored = run(
        *('tools/test.py', FROZEN / f'{twin.config}.py', out, '--task', 'davis2016', '--short-side', 64),
        *('--data-root', tmp_path / 'davis', '--out', tmp_path / 'masks', '--jobs', 1),
    )
    assert scored.code == 0, scored.err
    assert 'data set' in scored.out and (tmp_path / 'masks' / 'v' / '00002.png').is_file()


def test_frames_that_patches_do_not_tile_are_refused_in_one_sentence(tmp_path):
    write_davis_layout(tmp_path / 'davis', [generate_video(0, 3, (48, 70), name='v')], year=2016)
    error = run(
        *('tools/test.py', FROZEN / 'dino_vits16.py', 'untrained', '--task', 'davis2016', '--protocol', 'crw'),
        *('--data-root', tmp_path / 'davis', '--out', tmp_path / 'masks', '--jobs', 1),
    ).error()
    assert '48x70' in error and 'patches are 16x16' in error and "protocol 'dino'" in error


def test_the_script_does_what_the_command_does(crw, tmp_path):
    written = []
    for program, out in (('mmliir', 'a.pth'), ('tools/model_converters/convert.py', 'b.pth')):
        command = ('convert',) if program == 'mmliir' else ()
        done = run(program, *command, 'crw', crw[1], '--out', tmp_path / out)
        assert done.code == 0, done.err
        written.append(torch.load(tmp_path / out, weights_only=True))
    assert written[0]['recipe'] == written[1]['recipe']
    ours, theirs = (each['state_dict'] for each in written)
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_dry_run_writes_nothing(crw, tmp_path):
    for extra in ((), ('--out', tmp_path / 'ours.pth')):
        done = run('mmliir', 'convert', 'crw', crw[1], '--dry-run', *extra)
        assert done.code == 0 and 'encoder.backbone.conv1.weight <- encoder.model.conv1.weight' in done.out
        assert 'selfsim_fc.0.weight (a head that only training uses)' in done.out
    assert contents(tmp_path) == {}


def test_a_file_that_is_there_is_replaced_only_on_request(crw, tmp_path):
    out = tmp_path / 'ours.pth'
    out.write_bytes(b'precious')
    assert '--overwrite' in run('mmliir', 'convert', 'crw', crw[1], '--out', out).error()
    assert out.read_bytes() == b'precious'
    assert run('mmliir', 'convert', 'crw', crw[1], '--out', out, '--overwrite').code == 0
    assert contents(tmp_path).keys() == {'ours.pth'} and out.read_bytes() != b'precious'
    before = crw[1].read_bytes()
    error = run('mmliir', 'convert', 'crw', crw[1], '--out', crw[1], '--overwrite').error()
    assert 'the checkpoint itself' in error and crw[1].read_bytes() == before


@pytest.mark.parametrize(
    'arguments, said',
    [
        ((), 'give --out FILE'),
        (('--out', 'ours.bin'), '.pth or .safetensors'),
        (('--out', 'ours.pth', '--config', 'gone.py'), 'config not found'),
    ],
)
def test_wrong_arguments_are_one_sentence(crw, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in run('mmliir', 'convert', 'crw', crw[1], *arguments).error()
    assert contents(tmp_path) == {}


@pytest.mark.parametrize('family', sorted(set(KEY_MAPS) - {'crw'}))
def test_a_wrong_family_is_refused_and_the_right_one_named(crw, family, tmp_path):
    if KEY_MAPS[family].entries[0] == 'state_dict':  # else the entry `model` is not found at all
        path = tmp_path / 'weights.pth'
        torch.save({'state_dict': crw[0].checkpoint['model']}, path)
        error = run('mmliir', 'convert', family, path, '--out', tmp_path / 'ours.pth').error()
        assert f'is no {family} checkpoint' in error and 'names are those of: crw' in error
        assert 'missing' in error and 'not in the model' in error
    assert 'holds no weights' in run('mmliir', 'convert', 'liir', crw[1], '--out', tmp_path / 'ours.pth').error()
    assert not (tmp_path / 'ours.pth').exists()


def test_another_depth_is_refused_with_what_is_too_many(tmp_path):
    _, path = save('torchvision_r50', tmp_path)
    conversion = convert_checkpoint('torchvision', path, FROZEN / 'imagenet_r18.py')
    assert 'layer1.0.conv3.weight' in conversion.report.unexpected  # a late stage may be left, a block's part not
    assert 'encoder.backbone.layer1.0.conv1.weight' in conversion.report.reshaped
    with pytest.raises(ValueError, match='of another shape'):
        write_conversion(conversion, tmp_path / 'ours.pth')
    assert not (tmp_path / 'ours.pth').exists()


def test_a_tensor_that_no_rule_knows_and_one_that_lacks_are_named(crw, tmp_path):
    weights = dict(crw[0].checkpoint['model'])
    weights['extra.weight'] = torch.zeros(1)
    del weights['encoder.model.layer2.0.bn1.running_mean']
    torch.save({'model': weights}, tmp_path / 'theirs.pth')
    done = run('mmliir', 'convert', 'crw', tmp_path / 'theirs.pth', '--out', tmp_path / 'ours.pth')
    assert 'extra.weight' in done.error() and 'encoder.backbone.layer2.0.bn1.running_mean' in done.error()
    assert 'unexpected: 1\n  extra.weight' in done.out
    report = convert_checkpoint('crw', tmp_path / 'theirs.pth').report
    assert report.missing == ('encoder.backbone.layer2.0.bn1.running_mean',) and report.filled == ()


def test_two_tensors_for_one_place_are_refused(crw, tmp_path):
    weights = dict(crw[0].checkpoint['model'])
    weights['encoder.model.conv1.1.weight'] = weights['encoder.model.conv1.weight']
    torch.save({'model': weights}, tmp_path / 'theirs.pth')
    with pytest.raises(ValueError, match='are both for encoder.backbone.conv1.weight'):
        convert_checkpoint('crw', tmp_path / 'theirs.pth')


def test_a_converted_file_is_recognised(crw, tmp_path):
    write_conversion(convert_checkpoint('crw', crw[1]), tmp_path / 'ours.pth')
    error = run('mmliir', 'convert', 'crw', tmp_path / 'ours.pth', '--out', tmp_path / 'again.pth').error()
    assert 'converted already' in error


class _Payload:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


@pytest.mark.parametrize('family', sorted(KEY_MAPS))
def test_a_pickle_that_would_execute_code_is_refused(family, tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'args': _Payload(tmp_path / 'ran')}, tmp_path / 'theirs.pth')
    error = run('mmliir', 'convert', family, tmp_path / 'theirs.pth', '--out', tmp_path / 'ours.pth').error()
    assert 'could execute code; refused' in error
    assert contents(tmp_path).keys() == {'theirs.pth'}


def test_options_beside_the_weights_are_data_and_nothing_inside_them_runs(tmp_path):
    for number, options in enumerate((argparse.Namespace(a=_Payload(tmp_path / 'ran')), argparse.ArgumentParser())):
        path = tmp_path / f'{number}.pth'
        try:
            torch.save({'model': {'a': torch.zeros(1)}, 'args': options}, path)
        except (pickle.PicklingError, AttributeError):
            continue
        with pytest.raises(ValueError, match='refused'):
            convert_checkpoint('crw', path)
    assert not (tmp_path / 'ran').exists()


def test_options_beside_the_weights_are_read_by_a_conversion_alone(crw, tmp_path):
    def refused():
        # who loads the file as it is learns what to do
        with pytest.raises(ValueError, match='could execute code; refused.*`mmliir convert` it first'):
            read_checkpoint(crw[1])
        error = run(
            *('tools/test.py', FROZEN / 'crw_r18.py', crw[1], '--task', 'davis2016', '--out', tmp_path / 'masks'),
            *('--data-root', tmp_path / 'davis', '--jobs', 1),
        ).error()
        assert '`mmliir convert` it first' in error

    write_davis_layout(tmp_path / 'davis', [generate_video(0, 3, (48, 64), name='v')], year=2016)
    refused()
    convert_checkpoint('crw', crw[1])
    torch.save({'model': {'a': torch.zeros(1)}, 'args': _Payload(tmp_path / 'ran')}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='refused'):
        convert_checkpoint('crw', tmp_path / 'evil.pth')
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    refused()


def test_what_the_process_itself_allows_stays_allowed(crw):
    before = list(torch.serialization.get_safe_globals())
    try:
        torch.serialization.add_safe_globals([_Payload])
        allowed = set(torch.serialization.get_safe_globals())
        convert_checkpoint('crw', crw[1])
        assert _Payload in allowed and set(torch.serialization.get_safe_globals()) == allowed
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_an_installation_without_configs_asks_for_one(crw, tmp_path, monkeypatch):
    monkeypatch.setattr('mmliir.apis.convert.FROZEN_CONFIGS', tmp_path / 'gone')
    out = tmp_path / 'ours.pth'
    assert 'give --config' in run('mmliir', 'convert', 'crw', crw[1], '--out', out).error()
    assert run('mmliir', 'convert', 'crw', crw[1], '--out', out, '--config', FROZEN / 'crw_r18.py').code == 0


# -- the tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('family', KEY_MAPS)
def test_a_table_names_its_source_and_configs_that_exist(family):
    key_map = KEY_MAPS[family]
    assert re.fullmatch(r'[\w-]+/[\w-]+(@[0-9a-f]{7})?, .+', key_map.source)
    assert key_map.configs and all((FROZEN / f'{name}.py').is_file() for name in key_map.configs)
    assert all((rule.ours is None) == bool(rule.reason) for rule in key_map.rules)


@pytest.mark.parametrize('name, families', [('moco_v1', ['moco']), ('vfs_r18', ['vfs']), ('mast', ['mast'])])
def test_names_tell_the_family(name, families):
    assert likely_families(TWINS[name]().checkpoint['state_dict']) == families
    assert likely_families(['conv1.weight', 'something.else']) == []
