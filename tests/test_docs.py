"""Documents: links lead somewhere, files that they name exist, nothing is left to be filled in."""

import re

import pytest
from train_cases import ROOT

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
    missing = [link for link in links if '://' not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_configs_and_scripts_that_are_named_exist(page):
    text = page.read_text(encoding='utf-8')
    named = set(re.findall(r'\b((?:configs|tools|docs)/[\w/]+\.(?:py|sh|yml))\b', text))
    missing = [name for name in sorted(named) if not (ROOT / name).exists() and not name.startswith('configs/my')]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nothing_is_left_to_be_filled_in(page):
    assert not re.findall(r'\b(?:[A-Z]+_TABLE\b|TABLE\d|QS_[A-Z]+|TODO|FIXME|XXX)\b', page.read_text(encoding='utf-8'))
