"""Metafiles: they parse, name files that exist, and keep our numbers apart from those of the papers."""

import re
from pathlib import Path

import mmengine
import pytest

from mmliir.apis.ablation_rows import read_tables
from mmliir.apis.configs import load_config

ROOT = Path(__file__).resolve().parents[1]
METAFILES = mmengine.load(ROOT / 'model-index.yml')['Import']
ENTRIES = [(name, model) for name in METAFILES for model in mmengine.load(ROOT / name)['Models']]
#: What a measured number carries, see CONTRIBUTING.md.
MEASURED = {'Task', 'Dataset', 'Metrics', 'Protocol', 'Sequences', 'Seed', 'Version'}


@pytest.mark.parametrize('name', METAFILES)
def test_collections_name_their_paper(name):
    content = mmengine.load(ROOT / name)
    collections = {entry['Name'] for entry in content['Collections']}
    for entry in content['Collections']:
        assert entry['Paper']['Title'] and entry['Paper']['URL'].startswith('https://')
        assert (ROOT / entry['README']).is_file()
    assert {model['In Collection'] for model in content['Models']} <= collections
    names = [model['Name'] for model in content['Models']]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(('name', 'model'), ENTRIES, ids=[model['Name'] for _, model in ENTRIES])
def test_a_model_names_its_config_and_keeps_its_results_apart_from_the_papers(name, model):
    assert set(model) <= {'Name', 'In Collection', 'Config', 'Metadata', 'Weights', 'Results', 'Paper'}
    assert Path(model['Config']).stem == model['Name'] and 'model' in load_config(ROOT / model['Config'])
    for entry in model['Results']:
        assert set(entry) >= MEASURED, f'{model["Name"]}: a result of ours says where it comes from'
    for entry in model['Paper']:
        assert set(entry) == {'Task', 'Dataset', 'Metrics', 'Source'}
        assert all(0 < value <= 100 for value in entry['Metrics'].values())


def test_the_papers_numbers_agree_with_those_of_the_ablations():
    papers = {model['Name']: model['Paper'] for _, model in ENTRIES}
    rows = read_tables(ROOT / 'configs' / 'ablations' / 'tables.yml')['4'].rows
    assert papers['liir_r18_ytvos'][0]['Metrics']['J&F'] == rows['all'].paper['davis2017']
    assert papers['liir_r18_ytvos'][2]['Metrics']['mIoU'] == rows['all'].paper['vip']
    assert papers['mast_r18_ytvos'][1]['Metrics']['J&F'] == rows['none'].paper['davis2017']


def test_mean_scores_of_the_papers_are_means():
    for _, model in ENTRIES:
        for entry in model['Paper']:
            values = entry['Metrics']
            if {'J&F', 'J', 'F'} <= set(values):
                assert values['J&F'] == pytest.approx((values['J'] + values['F']) / 2, abs=0.051)
            if 'Overall' in values:
                parts = [value for key, value in values.items() if key != 'Overall']
                assert values['Overall'] == pytest.approx(sum(parts) / 4, abs=0.051)


def test_the_model_card_asks_for_what_a_result_carries():
    card = (ROOT / 'docs' / 'model_card_template.md').read_text(encoding='utf-8')
    example = re.search(r'```yaml\n(.*?)```', card, re.DOTALL).group(1)
    assert all(f'{name}:' in example for name in MEASURED)
