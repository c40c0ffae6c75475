"""Checkpoints are data: what is read, what is refused, and which weights fit which model."""

import copy
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

import mmliir.models  # noqa: F401  (registers the parts)
from mmliir.registry import MODELS
from mmliir.utils.checkpoint import load_weights, read_checkpoint

LIIR = dict(
    type='LIIR',
    backbone=dict(type='CorrespondenceResNet18', base_channels=4),
    position_encoder=dict(type='LearnedPositionEncoder1d', channels=4, size=(8, 8)),
    projection=dict(type='ConvProjection', in_channels=16, out_channels=6),
    reconstruction_head=dict(type='ReconstructionHead', radius=1, loss=dict(type='ReconstructionLoss')),
    inter=dict(type='InterVideoTerm', bank=dict(num_frames=3)),
)


def build(seed=0, **changes):
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy({**LIIR, **changes}))
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


# --- reading ---


def test_a_missing_file_is_named_with_what_the_folder_holds(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'checkpoint not found: .*gone.pth \(that folder holds no .pth'
    ):
        read_checkpoint(tmp_path / 'gone.pth')
    (tmp_path / 'iter_4.pth').touch()
    with pytest.raises(FileNotFoundError, match='that folder holds iter_4.pth'):
        read_checkpoint(tmp_path / 'gone.pth')
    with pytest.raises(FileNotFoundError, match='checkpoint not found'):
        read_checkpoint(tmp_path / 'no_folder' / 'gone.pth')


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint not found'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_an_empty_file_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f'empty{suffix}'
    path.touch()
    with pytest.raises(ValueError, match=f'empty{suffix}'):
        read_checkpoint(path)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize('legacy', [False, True])
def test_a_truncated_file_is_refused_by_name(tmp_path, share, legacy):
    path = tmp_path / 'cut.pth'
    torch.save({'state_dict': build().state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match='cut.pth'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'content',
    [
        b'hello, this is no checkpoint\n',
        b'import os\nos.system("true")\n',
        b'<html><body>404 Not Found</body></html>',
        b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
        b'cos\nsystem\n(S"true"\ntR.',
        b'\x80\x02}q\x00.',
        b'\xff\xd8\xff\xe0' + bytes(200),
        bytes(1000),
        b'PK\x03\x04' + bytes(100),
    ],
)
def test_any_other_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='other.pth') as caught:
        read_checkpoint(path)
    assert 'weights_only' not in str(caught.value)  # PyTorch's advice is to load it unsafely
    assert len(str(caught.value)) < 500 and '\n' not in str(caught.value)


def test_bytes_drawn_at_random_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / 'noise.pth'
    for _ in range(200):
        path.write_bytes(bytes(torch.randint(0, 256, (64,), generator=generator).tolist()))
        with pytest.raises(ValueError, match='noise.pth'):
            read_checkpoint(path)


@pytest.mark.parametrize('form', ['pickle', 'torch', 'torch_legacy', 'in_meta', 'in_state_dict'])
def test_a_pickle_that_would_execute_code_is_refused_and_not_executed(tmp_path, form):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'executed'
    tensors = {'weight': torch.zeros(2)}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(Payload(marker)))
    elif form == 'in_meta':
        torch.save({'state_dict': tensors, 'meta': {'cfg': Payload(marker)}}, path)
    elif form == 'in_state_dict':
        torch.save({'state_dict': {**tensors, 'extra': Payload(marker)}}, path)
    else:
        torch.save(Payload(marker), path, _use_new_zipfile_serialization=form == 'torch')
    with pytest.raises(ValueError, match='evil.pth.*'):
        read_checkpoint(path)
    assert not marker.exists()
    if form != 'torch_legacy':  # the payload does what it should: an unsafe reader would have run it
        if form == 'pickle':
            pickle.loads(path.read_bytes()).close()
        else:
            torch.load(path, weights_only=False)
        assert marker.exists()


def test_refusal_of_a_pickle_says_why_and_what_to_ask_for(tmp_path):
    torch.save({'state_dict': {'w': torch.zeros(1)}, 'meta': Payload(tmp_path / 'm')}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='could execute code; refused.*plain state dict or a .safetensors'):
        read_checkpoint(tmp_path / 'evil.pth')


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / 'module.pth')
    with pytest.raises(ValueError, match='could execute code; refused'):
        read_checkpoint(tmp_path / 'module.pth')


@pytest.mark.parametrize(
    'content, message',
    [
        (torch.zeros(3), 'holds a Tensor, expected a dict'),
        ([torch.zeros(3)], 'holds a list, expected a dict'),
        ({}, 'holds no weights'),
        ({'state_dict': {}}, 'holds no weights'),
        ({'state_dict': torch.zeros(2)}, 'holds no weights'),
        ({'state': {'step': 3}, 'param_groups': []}, 'holds no weights'),
        ({0: torch.zeros(2)}, 'names -> tensors'),
    ],
)
def test_data_without_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / 'data.pth')
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / 'data.pth')


def test_a_plain_state_dict_and_safetensors_give_the_same_weights(tmp_path):
    from safetensors.torch import save_file

    weights = OrderedDict(a=torch.randn(2, 3), b=torch.arange(4))
    torch.save(weights, tmp_path / 'plain.pth')
    torch.save({'state_dict': weights, 'meta': {'iter': 3}}, tmp_path / 'full.pth')
    save_file(dict(weights), tmp_path / 'weights.safetensors')
    for name in ('plain.pth', 'full.pth', 'weights.safetensors'):
        read = read_checkpoint(tmp_path / name)
        assert set(read['state_dict']) == {'a', 'b'}
        assert all(torch.equal(read['state_dict'][key], weights[key]) for key in weights)
    assert read_checkpoint(tmp_path / 'full.pth')['meta'] == {'iter': 3}


def test_a_truncated_safetensors_file_is_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    save_file({'a': torch.zeros(100)}, tmp_path / 'cut.safetensors')
    data = (tmp_path / 'cut.safetensors').read_bytes()
    for length in (4, 20, len(data) - 8):
        (tmp_path / 'cut.safetensors').write_bytes(data[:length])
        with pytest.raises(ValueError, match='cut.safetensors'):
            read_checkpoint(tmp_path / 'cut.safetensors')


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='needs a user whom permissions bind')
def test_an_unreadable_file_is_named(tmp_path):
    torch.save({'a': torch.zeros(1)}, tmp_path / 'locked.pth')
    (tmp_path / 'locked.pth').chmod(0)
    with pytest.raises((ValueError, OSError), match='locked.pth'):
        read_checkpoint(tmp_path / 'locked.pth')


# --- loading ---


def checkpoint_of(model):
    return {'state_dict': copy.deepcopy(model.state_dict())}


def test_the_same_model_takes_all_weights():
    source, target = build(0), build(1)
    report = load_weights(target, checkpoint_of(source), 'same.pth')
    assert report.loaded == len(source.state_dict()) and not report.missing and not report.unexpected
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_weights_saved_from_a_distributed_wrapper_fit():
    source, target = build(0), build(1)
    wrapped = {f'module.{name}': value for name, value in source.state_dict().items()}
    load_weights(target, {'state_dict': wrapped}, 'ddp.pth')
    assert torch.equal(target.encoder.backbone.conv1.weight, source.encoder.backbone.conv1.weight)


def test_another_architecture_is_refused_and_changes_nothing():
    target = build(1)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(
        ValueError, match=r'lin.pth does not fit this model \(LIIR\).*missing.*not in the model'
    ) as caught:
        load_weights(target, checkpoint_of(nn.Linear(2, 2)), 'lin.pth')
    assert 'Use the config' in str(caught.value) and len(str(caught.value)) < 500
    for name, value in before.items():
        assert torch.equal(target.state_dict()[name], value), name


def test_another_width_is_refused_with_both_shapes():
    wide = build(
        backbone=dict(type='CorrespondenceResNet18', base_channels=8),
        position_encoder={**LIIR['position_encoder'], 'channels': 8},
        projection={**LIIR['projection'], 'in_channels': 32},
    )
    with pytest.raises(ValueError, match=r'of another shape \(encoder.*\(8,.*\), model \(4,'):
        load_weights(build(), checkpoint_of(wide), 'wide.pth')


def test_weights_without_the_position_map_do_not_pass_silently():
    with pytest.raises(ValueError, match='1 tensors missing .encoder.position_encoder.position_map'):
        load_weights(build(), checkpoint_of(build(position_encoder=None, inter=None)), 'none.pth')
    with pytest.raises(ValueError, match='1 tensors not in the model .encoder.position_encoder.position_map'):
        load_weights(build(position_encoder=None), checkpoint_of(build(inter=None)), 'map.pth')


def test_stage_one_weights_start_the_momentum_encoder_of_stage_two():
    first, second = build(0, inter=None), build(1)
    report = load_weights(second, checkpoint_of(first), 'stage_1.pth')
    second.start_stage()
    assert report.missing and all(name.startswith('inter.momentum_encoder.') for name in report.missing)
    copied = second.inter.momentum_encoder.encoder.state_dict()
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(copied[name], value), name
        assert torch.equal(second.encoder.state_dict()[name], value), name


def test_stage_two_weights_keep_their_momentum_encoder():
    source, target = build(0), build(1)
    load_weights(target, checkpoint_of(source), 'stage_2.pth')
    name = 'inter.momentum_encoder.encoder.backbone.conv1.weight'
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])
    assert not torch.equal(target.state_dict()[name], target.encoder.backbone.conv1.weight)


@pytest.mark.parametrize('kind', ['LIIR', 'MAST'])
def test_stage_two_weights_fit_an_inference_model_without_the_inter_term(kind):
    source = build(0)
    parts = {key: value for key, value in LIIR.items() if key != 'inter'}
    target = MODELS.build(copy.deepcopy({**parts, 'type': kind}))
    report = load_weights(target, checkpoint_of(source), 'stage_2.pth')
    assert report.unexpected and all(name.startswith('inter.') for name in report.unexpected)
    assert report.loaded == len(target.state_dict())
    frames = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(target.extract_feature(frames), source.extract_feature(frames))


@pytest.mark.parametrize('there', ['a dot product at temperature 1', 'other colours'])
def test_weights_of_another_recipe_are_refused_though_every_tensor_fits(there):
    head = dict(LIIR['reconstruction_head'])
    changes = {
        'a dot product at temperature 1': dict(reconstruction_head={**head, 'temperature': 1.0}),
        'other colours': dict(data_preprocessor=dict(type='VideoPreprocessor', std=(1.0, 1.0, 1.0))),
    }
    name = {'a dot product at temperature 1': 'temperature', 'other colours': 'std'}[there]
    source, target = build(), build(**changes[there])
    checkpoint = {**checkpoint_of(source), 'recipe': source.recipe}
    with pytest.raises(ValueError, match=f'mine.pth was trained with another recipe: {name} .*, this config'):
        load_weights(target, checkpoint, 'mine.pth')
    load_weights(build(), checkpoint, 'mine.pth')
    load_weights(target, checkpoint_of(source), 'plain.pth')  # a plain state dict does not say


def test_an_entry_that_is_no_tensor_is_refused():
    state = checkpoint_of(build())
    state['state_dict']['encoder.backbone.conv1.weight'] = 4
    with pytest.raises(ValueError, match='1 tensors of another shape .encoder.backbone.conv1.weight None'):
        load_weights(build(), state, 'odd.pth')


def test_a_momentum_encoder_of_another_width_is_refused():
    state = checkpoint_of(build())
    name = 'inter.momentum_encoder.encoder.backbone.conv1.weight'
    state['state_dict'][name] = torch.zeros(8, 3, 7, 7)
    with pytest.raises(ValueError, match='1 tensors of another shape'):
        load_weights(build(), state, 'odd.pth')


def test_reading_needs_no_engine_and_no_unsafe_loader():
    source = Path(sys.modules['mmliir.utils.checkpoint'].__file__).read_text()
    assert 'weights_only=False' not in source and 'mmengine' not in source
