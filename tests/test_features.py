"""SPECs: what they mean, what weights they take, what they refuse; and that any of them can be scored."""

import json
import re
import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from feature_cases import CONVNEXT, DINOV2, RESNET, VIT, allow

from mmliir.apis import features as features_module
from mmliir.apis.evaluate import build_method, evaluate
from mmliir.apis.features import build_feature, describe_specs, find_weights, parse_spec, spec_config
from mmliir.testing.synthetic import generate_video, write_davis_layout
from mmliir.utils.files import sha256_file

USER_FILE = '''
import torch.nn.functional as F
from torch import nn


class Blocks(nn.Module):
    stride = 4
    out_channels = 6
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 6, 1, bias=False)
        nn.init.constant_(self.mix.weight, 0.5)

    def forward(self, images):
        return self.mix(F.avg_pool2d(images, 4, ceil_mode=True, count_include_pad=False))


def module():
    return Blocks()


def pooled(images):
    return F.avg_pool2d(images, 8, ceil_mode=True)


pooled.stride = 8
pooled.color_space = 'lab'


def made():
    return pooled


def without_stride(images):
    return F.avg_pool2d(images, 8, ceil_mode=True)


def wrong_size(images):
    return images[:, :, ::4, ::8]


wrong_size.stride = 8


def number():
    return 3


def broken():
    return 1 / 0


def broken_later(images):
    raise KeyError('lost')


broken_later.stride = 8
'''

HUBCONF = '''
import torch
import torch.nn as nn
import torch.nn.functional as F


class Tokens(nn.Module):
    """Like DINO's: a patch of 4 pixels is a token; blocks add one."""

    def __init__(self):
        super().__init__()
        self.patch_size = 4
        self.weight = nn.Parameter(torch.zeros(1))
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity()])

    def get_intermediate_layers(self, x, n=1):
        tokens = F.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.full_like(tokens[:, :1], 99.0), tokens], 1)
        return [tokens + 1 + block for block in range(3)][-n:]


def tokens(pretrained=True, **kwargs):
    model = Tokens()
    if pretrained:
        nn.init.ones_(model.weight)
    return model


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 7, 3, 2, 1))


def nothing():
    return 3


def fails():
    raise KeyError('lost')
'''


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('a connection was tried')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(USER_FILE)
    return path


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / 'repository'
    folder.mkdir()
    (folder / 'hubconf.py').write_text(HUBCONF)
    return folder


def frames(height=20, width=30):
    shape = (2, 3, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def write_hf(folder, config, **processor):
    """A folder as transformers has it: config and preprocessor."""
    folder.mkdir(exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config))
    if processor:
        (folder / 'preprocessor_config.json').write_text(json.dumps(processor))
    return folder


# Forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('text, kind, name, entry', [
    ('timm:vit_small_patch14_dinov2.lvd142m', 'timm', 'vit_small_patch14_dinov2.lvd142m', None),
    ('hf:facebook/dinov2-small', 'hf', 'facebook/dinov2-small', None),
    ('hf:./folder/config.json', 'hf', './folder/config.json', None),
    ('torchvision:resnet50', 'torchvision', 'resnet50', None),
    ('hub:facebookresearch/dino:main:dino_vits16', 'hub', 'facebookresearch/dino:main', 'dino_vits16'),
    ('hub:./clone:net', 'hub', './clone', 'net'),
    ('a/b.py:f', 'file', 'a/b.py', 'f'),
    ('C:\\a\\b.py:f', 'file', 'C:\\a\\b.py', 'f'),
    ('raw:lab', 'raw', 'lab', None),
    ('configs/frozen/crw_r18.py', 'config', 'configs/frozen/crw_r18.py', None),
])  # fmt: skip
def test_specs_are_taken_apart(text, kind, name, entry):
    spec = parse_spec(text)
    assert (spec.kind, spec.name, spec.entry, spec.text) == (kind, name, entry, text)


@pytest.mark.parametrize('text', ['', 'resnet18', 'timm:', 'raw:hsv', 'hub:folder', 'hub::x', 'a.py:', 'hf:', 'x:y'])
def test_what_is_no_spec_is_answered_with_the_forms(text):
    with pytest.raises(ValueError, match='names no feature') as error:
        parse_spec(text)
    forms = [line.split('  ')[0] for line in describe_specs().splitlines()]
    assert len(forms) == 7 and all(form in str(error.value) for form in forms)
    assert '\n' not in str(error.value)  # a command prints one line


# Colours and configs --------------------------------------------------------------------------------------------------


def test_raw_colours_are_block_means_of_the_normalised_frame():
    batch = frames(16, 24)
    feature = build_feature('raw:rgb', stride=4)
    expected = F.avg_pool2d((batch / 255.0 - 0.5) / 0.5, 4)
    torch.testing.assert_close(feature.extract_feature(batch).cpu(), expected)
    assert (feature.stride, feature.color_space) == (4, 'rgb') and build_feature('raw:lab').stride == 8


def test_raw_lab_is_our_config():
    ours, raw = build_feature('configs/frozen/raw_lab.py'), build_feature('raw:lab')
    assert torch.equal(ours.extract_feature(frames()), raw.extract_feature(frames()))
    assert raw.config.protocol == ours.config.protocol and raw.config.model == ours.config.model


def test_a_config_takes_its_checkpoint_and_no_options(tmp_path):
    with pytest.raises(ValueError, match='has weights: give a checkpoint'):
        build_feature('configs/liir_r18_quickstart.py')
    built = build_feature('configs/liir_r18_quickstart.py', weights='untrained', seed=3)
    torch.save(built.method.state_dict(), tmp_path / 'weights.pth')
    loaded = build_feature('configs/liir_r18_quickstart.py', weights=tmp_path / 'weights.pth')
    assert torch.equal(built.extract_feature(frames(32, 32)), loaded.extract_feature(frames(32, 32)))
    assert loaded.description['weights_sha256'] == sha256_file(tmp_path / 'weights.pth')
    assert built.description['seed'] == 3 and loaded.description['seed'] is None
    with pytest.raises(ValueError, match='is a config: change its layer and stride there'):
        spec_config('configs/frozen/crw_r18.py', stride=4)


@pytest.mark.parametrize('spec', ['raw:lab', 'mine.py:module'])
def test_layers_are_for_networks(spec):
    with pytest.raises(ValueError, match='has no layers to choose from; got layer 3'):
        spec_config(spec, layer=3)


# A function in a file -------------------------------------------------------------------------------------------------


def test_a_module_of_the_users_is_the_feature(user_file):
    batch = frames()
    feature = build_feature(f'{user_file}:module')
    pooled = F.avg_pool2d(batch / 255.0, 4, ceil_mode=True, count_include_pad=False).sum(1, keepdim=True)
    torch.testing.assert_close(feature.extract_feature(batch).cpu(), (0.5 * pooled).expand(-1, 6, -1, -1))
    assert feature.stride == 4 and feature.checkpoint is None
    assert feature.description['libraries'] == {'torch': torch.__version__}
    assert json.loads(json.dumps(feature.description)) == feature.description


@pytest.mark.parametrize('function', ['pooled', 'made'])
def test_a_function_of_frames_is_the_feature_itself_or_what_another_returns(user_file, function):
    feature = build_feature(f'{user_file}:{function}')
    raw = build_feature('raw:lab')
    torch.testing.assert_close(feature.extract_feature(frames(16, 24)), raw.extract_feature(frames(16, 24)))
    assert feature.color_space == 'lab'


def test_a_stride_may_be_given_where_the_function_says_none(user_file):
    assert build_feature(f'{user_file}:without_stride', stride=8).extract_feature(frames()).shape == (2, 3, 3, 4)
    with pytest.raises(ValueError, match=r'mine\.py:without_stride does not say its stride'):
        build_feature(f'{user_file}:without_stride')
    with pytest.raises(ValueError, match=r'mine\.py:pooled says stride 8, got stride 4'):
        build_feature(f'{user_file}:pooled', stride=4)


@pytest.mark.parametrize('function, expected', [
    ('missing', "has no function 'missing'; it has module, pooled"),
    ('number', 'mine.py:number returned a int, expected an nn.Module or a function'),
    ('broken', 'mine.py:broken: the function failed: ZeroDivisionError'),
    ('broken_later', r"mine.py:broken_later failed on images \(1, 3, 224, 224\): KeyError: 'lost'"),
    ('wrong_size', r'mine.py:wrong_size returned \(1, 3, 56, 28\) for an image of 224x224, expected \(1, C, 28, 28\)'),
])  # fmt: skip
def test_a_users_mistakes_name_file_and_function(user_file, function, expected):
    with pytest.raises(ValueError, match=expected):
        build_feature(f'{user_file}:{function}')


def test_a_file_that_is_missing_or_does_not_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.py:f: there is no file'):
        build_feature(f'{tmp_path}/none.py:f')
    (tmp_path / 'bad.py').write_text('import nowhere_to_be_found\n')
    with pytest.raises(ValueError, match=r'bad\.py:f: running the file failed: ModuleNotFoundError'):
        build_feature(f'{tmp_path}/bad.py:f')


def test_a_config_of_a_file_refuses_another_version_of_it(user_file):
    cfg = spec_config(f'{user_file}:module')
    build_method(cfg, None, device='cpu')
    user_file.write_text(USER_FILE + '\n')
    with pytest.raises(ValueError, match='the file has changed since this config was made from it'):
        build_method(cfg, None, device='cpu')


# torch.hub ------------------------------------------------------------------------------------------------------------


def test_the_last_block_of_a_hub_model_without_its_class_token(hub):
    batch = frames(16, 24)
    feature = build_feature(f'hub:{hub}:tokens', weights='untrained')
    normalised = feature.method.data_preprocessor.normalize(batch.to(feature.device))
    expected = F.avg_pool2d(normalised, 4)
    torch.testing.assert_close(feature.extract_feature(batch), expected + 3)
    first = build_feature(f'hub:{hub}:tokens', weights='untrained', layer=1)
    torch.testing.assert_close(first.extract_feature(batch), expected + 1)
    assert feature.extract_feature(frames(17, 21)).shape == (2, 3, 5, 6)


def test_a_hub_model_needs_weights_unless_its_entry_point_decides(hub, tmp_path):
    with pytest.raises(ValueError, match='has weights: give a checkpoint'):
        build_feature(f'hub:{hub}:tokens')
    trained = build_feature(f'hub:{hub}:tokens', download=True)
    assert trained.method.encoder.backbone.model.weight.item() == 1
    torch.save({'model': {'weight': torch.tensor([7.0])}}, tmp_path / 'w.pth')
    loaded = build_feature(f'hub:{hub}:tokens', weights=tmp_path / 'w.pth')
    assert loaded.method.encoder.backbone.model.weight.item() == 7
    measured = build_feature(f'hub:{hub}:convolutions')
    assert (measured.stride, measured.method.encoder.out_channels) == (4, 7)
    part = build_feature(f'hub:{hub}:convolutions', layer='1')
    assert (part.stride, part.extract_feature(frames(9, 9)).shape) == (2, (2, 5, 5, 5))


@pytest.mark.parametrize('entry, expected', [
    ('nothing', 'returned a int, expected an nn.Module'),
    ('fails', "KeyError: 'lost'"),
    ('absent', 'RuntimeError: Cannot find callable absent in hubconf'),
])  # fmt: skip
def test_a_hub_entry_point_that_fails_is_named(hub, entry, expected):
    with pytest.raises(ValueError, match=f'repository:{entry}.*{expected}'):
        build_feature(f'hub:{hub}:{entry}')


def test_a_repository_on_github_is_executed_only_when_asked_for(tmp_path):
    with pytest.raises(ValueError, match='whose code would be downloaded and executed. Allow that with download'):
        build_feature('hub:someone/something:net')
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        build_feature(f'hub:{tmp_path}/none:net')
    with pytest.raises(FileNotFoundError, match='has no hubconf.py'):
        build_feature(f'hub:{tmp_path}:net')


# Hugging Face ---------------------------------------------------------------------------------------------------------


def test_a_folder_gives_architecture_normalisation_and_weights(tmp_path):
    allow('transformers')
    import transformers

    torch.manual_seed(1)
    config = {**VIT, 'num_labels': 3}
    whole = transformers.ViTForImageClassification(transformers.ViTConfig.from_dict(config)).eval()
    whole.save_pretrained(tmp_path / 'net')  # with a classifier, and names of the whole
    write_hf(tmp_path / 'net', config, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
    feature = build_feature(f'hf:{tmp_path}/net')
    batch = frames(32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        tokens = whole.vit(pixel_values=(batch / 255.0 - mean) / std).last_hidden_state[:, 1:]
    expected = tokens.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(feature.extract_feature(batch).cpu(), expected, rtol=1e-4, atol=1e-4)
    assert feature.description['weights_sha256'] == sha256_file(tmp_path / 'net' / 'model.safetensors')
    assert set(feature.description['libraries']) == {'transformers', 'torch'}
    again = build_method(feature.config, feature.checkpoint, device='cpu')
    torch.testing.assert_close(again.extract_feature(batch), feature.extract_feature(batch).cpu())


def test_weights_that_do_not_fit_a_model_of_transformers_are_refused(tmp_path):
    allow('transformers')
    folder = write_hf(tmp_path / 'net', DINOV2)
    weights = build_feature(f'hf:{folder}', weights='untrained').method.encoder.backbone.model.state_dict()
    torch.save({name: value for name, value in weights.items() if name != 'layernorm.weight'}, folder / 'short.pth')
    torch.save(weights | {'stranger': torch.zeros(1)}, folder / 'long.pth')
    torch.save(weights | {'layernorm.weight': torch.zeros(7)}, folder / 'wide.pth')
    torch.save(weights, folder / 'pytorch_model.bin')
    build_feature(f'hf:{folder}')
    with pytest.raises(ValueError, match=r'1 tensors missing \(.*layernorm.weight\)'):
        build_feature(f'hf:{folder}', weights=folder / 'short.pth')
    with pytest.raises(ValueError, match=r'1 tensors not in the model \(.*stranger\)'):
        build_feature(f'hf:{folder}', weights=folder / 'long.pth')
    with pytest.raises(ValueError, match=r'1 tensors of another shape \(.*layernorm.weight \(7,\), model \(24,\)\)'):
        build_feature(f'hf:{folder}', weights=folder / 'wide.pth')


def test_random_weights_are_there_only_when_asked_for(tmp_path):
    allow('transformers')
    path = write_hf(tmp_path / 'net', RESNET) / 'config.json'
    with pytest.raises(ValueError, match="holds none .* or say 'untrained' to use random initial weights"):
        build_feature(f'hf:{path}')
    first, second, other = (build_feature(f'hf:{path}', weights='untrained', seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.extract_feature(frames()), second.extract_feature(frames()))
    assert not torch.equal(first.extract_feature(frames()), other.extract_feature(frames()))
    assert first.description['weights'] == 'untrained' and first.description['weights_sha256'] is None


@pytest.mark.parametrize('content, expected', [
    ('{', 'is no JSON'), ('[1]', 'holds a list, expected an object'), ('{"a": 1}', 'has no `model_type`'),
])  # fmt: skip
def test_a_config_json_that_is_none_is_named(tmp_path, content, expected):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=f'config.json.*{expected}'):
        spec_config(f'hf:{tmp_path}')


def test_folders_and_files_that_are_missing_are_no_names_on_the_hub(tmp_path):
    for name in (f'{tmp_path}/none', './none', 'none.json', 'a/b/c'):
        with pytest.raises(FileNotFoundError, match='there is no such file or folder'):
            spec_config(f'hf:{name}')
    with pytest.raises(FileNotFoundError, match=r'has no config\.json'):
        spec_config(f'hf:{tmp_path}')


class StandInHub:
    """`huggingface_hub` over a folder: files are in its cache, or come when a download is allowed."""

    class errors:  # noqa: N801
        class EntryNotFoundError(Exception): ...

        class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError): ...

        class HfHubHTTPError(OSError): ...

        class HFValidationError(ValueError): ...

    def __init__(self, folder, cached=()):
        self.folder, self.cached, self.downloads = folder, set(cached), []

    def hf_hub_download(self, repo, name, local_files_only):
        assert repo == 'someone/net'
        if name not in self.cached:
            if local_files_only:
                raise self.errors.LocalEntryNotFoundError(name)
            if not (self.folder / name).is_file():
                raise self.errors.EntryNotFoundError(name)
            self.downloads.append(name)
        return str(self.folder / name)


def test_a_name_on_the_hub_is_downloaded_only_when_asked_for(tmp_path, monkeypatch):
    allow('transformers')
    folder = write_hf(tmp_path / 'net', CONVNEXT)
    built = build_feature(f'hf:{folder}', weights='untrained')
    torch.save(built.method.encoder.backbone.model.state_dict(), folder / 'pytorch_model.bin')
    hub = StandInHub(folder)
    monkeypatch.setattr(features_module, 'import_huggingface_hub', lambda: hub)
    with pytest.raises(ValueError, match='no folder here and was not downloaded before: allow that with download=True'):
        build_feature('hf:someone/net')
    assert hub.downloads == []
    feature = build_feature('hf:someone/net', download=True)
    assert hub.downloads == ['config.json', 'pytorch_model.bin']
    assert torch.equal(feature.extract_feature(frames()), built.extract_feature(frames()))
    hub.cached, hub.downloads = {'config.json'}, []
    with pytest.raises(ValueError, match='needs weights, and none were downloaded before'):
        build_feature('hf:someone/net')
    hub.cached.add('pytorch_model.bin')
    assert build_feature('hf:someone/net').checkpoint == str(folder / 'pytorch_model.bin') and not hub.downloads


# timm and torchvision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('library', ['timm', 'torchvision'])
def test_published_weights_fit_and_heads_and_later_layers_are_left_out(library, tmp_path):
    allow(library)
    if library == 'timm':
        import timm

        whole = timm.create_model('resnet18')
    else:
        import torchvision

        whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / 'resnet18.pth')
    feature = build_feature(f'{library}:resnet18', weights=tmp_path / 'resnet18.pth')
    model = feature.method.encoder.backbone.model
    assert torch.equal(model.layer3[1].conv2.weight, whole.layer3[1].conv2.weight)
    preprocessor = feature.config.model.data_preprocessor
    assert tuple(preprocessor.mean) == (0.485, 0.456, 0.406) and tuple(preprocessor.std) == (0.229, 0.224, 0.225)
    torch.save({**whole.state_dict(), 'stranger': torch.zeros(1)}, tmp_path / 'long.pth')
    with pytest.raises(ValueError, match=r'1 tensors not in the model \(.*stranger\)'):
        build_feature(f'{library}:resnet18', weights=tmp_path / 'long.pth')
    short = {name: value for name, value in whole.state_dict().items() if name != 'layer1.0.conv1.weight'}
    torch.save(short, tmp_path / 'short.pth')
    with pytest.raises(ValueError, match=r'1 tensors missing \(.*layer1\.0\.conv1\.weight\)'):
        build_feature(f'{library}:resnet18', weights=tmp_path / 'short.pth')


def test_timm_states_the_normalisation_of_each_model():
    allow('timm')
    assert spec_config('timm:vit_tiny_patch16_224').model.data_preprocessor.mean == (0.5, 0.5, 0.5)
    assert spec_config('timm:resnet18').model.data_preprocessor.mean == (0.485, 0.456, 0.406)
    with pytest.raises(ValueError, match="has no model 'resnet81'; did you mean"):
        spec_config('timm:resnet81')


def test_timm_downloads_only_when_asked_for(tmp_path, monkeypatch):
    allow('timm')
    asked = []
    monkeypatch.setattr(features_module, '_from_hub', lambda repo, name, download: asked.append((repo, name, download)))
    with pytest.raises(ValueError, match='timm:resnet18 needs weights, and none were downloaded before'):
        find_weights('timm:resnet18')
    assert asked == [('timm/resnet18.a1_in1k', 'model.safetensors', False)]


def test_torchvision_weights_come_from_the_cache_or_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    got = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda url, to, **options: got.append((url, to, options)))
    url = 'https://download.pytorch.org/models/resnet18-f37072fd.pth'
    path = tmp_path / 'checkpoints' / 'resnet18-f37072fd.pth'
    assert features_module._from_url(url, download=False) is None and not got
    assert features_module._from_url(url, download=True) == path
    assert got == [(url, str(path), {'hash_prefix': 'f37072fd', 'progress': False})]
    path.write_bytes(b'')
    assert features_module._from_url(url, download=False) == path and len(got) == 1


# The whole way --------------------------------------------------------------------------------------------------------


def test_a_function_in_a_file_scores_what_the_same_feature_of_ours_scores(user_file, tmp_path):
    write_davis_layout(tmp_path / 'davis', [generate_video(1, 4, (96, 128), name='v')])
    data = {'data_root': str(tmp_path / 'davis'), 'year': 2017, 'split': 'val'}
    task = {'name': 'davis2017'}
    task |= {part: {'type': f'Davis{part.title()}', **data} for part in ('dataset', 'metric')}
    results = []
    for spec in (f'{user_file}:pooled', 'raw:lab'):
        feature = build_feature(spec)
        out = tmp_path / f'out{len(results)}'
        results.append(evaluate(feature.config, feature.checkpoint, task, 'quick', out_dir=out, name=spec))
    mine, ours = results
    assert mine.result == ours.result and mine.result.metrics['jf_mean'] > 0.1
    assert mine.card.model == f'{user_file}:pooled' and mine.card.colour_space == 'lab'


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / 'docs' / 'features.md').read_text(encoding='utf-8')
    first, second = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    exec(compile(first, 'docs/features.md', 'exec'), {})
    assert re.fullmatch(r'8 lab [0-9a-f]{8}\n', capsys.readouterr().out)
    (tmp_path / 'mine.py').write_text(second)
    monkeypatch.chdir(tmp_path)
    assert build_feature('mine.py:blocks').extract_feature(frames(17, 30)).shape == (2, 3, 5, 8)
