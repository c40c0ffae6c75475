"""Documents: links lead somewhere, files that they name exist, nothing is left to be filled in."""

import re
import runpy

import pytest
from train_cases import ROOT

from mmliir.propagation import PRESETS

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
    missing = [link for link in links if '://' not in link and not (page.parent / link).exists()]
    assert not missing


# Names files of other repositories, and is generated.
OURS = [page for page in PAGES if page != ROOT / 'docs' / 'protocols.md']


@pytest.mark.parametrize('page', OURS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_configs_and_scripts_that_are_named_exist(page):
    text = page.read_text(encoding='utf-8')
    named = set(re.findall(r'\b((?:configs|tools|docs)/[\w/]+\.(?:py|sh|yml))\b', text))
    missing = [name for name in sorted(named) if not (ROOT / name).exists() and not name.startswith('configs/my')]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nothing_is_left_to_be_filled_in(page):
    assert not re.findall(r'\b(?:[A-Z]+_TABLE\b|TABLE\d|QS_[A-Z]+|TODO|FIXME|XXX)\b', page.read_text(encoding='utf-8'))


def test_the_page_of_protocols_is_what_the_presets_say(monkeypatch, capsys):
    path = ROOT / 'tools' / 'misc' / 'write_protocols.py'
    tool = runpy.run_path(str(path))
    committed = (ROOT / 'docs' / 'protocols.md').read_text(encoding='utf-8')
    assert tool['render']() == committed, 'run tools/misc/write_protocols.py'
    for name, protocol in PRESETS.items():
        card = committed.split(f'\n## {name}\n')[1].split('\n## ')[0]
        assert all(source.replace('|', '\\|') in card for source in protocol.sources.values())
    monkeypatch.setattr('sys.argv', [str(path), '--check'])
    assert tool['main']() == 0
    assert 'up to date' in capsys.readouterr().out
