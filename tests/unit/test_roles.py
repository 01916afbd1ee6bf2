# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What two files say twice says the same: argument_specs and defaults of a role, README in two languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/tasks/main.yml"))


def load(path):
    return yaml.safe_load(path.read_text()) or {}


def options(role):
    return load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})


def undescribed(spec, where):
    """Options, at any depth, without a description."""
    for name, option in spec.items():
        if not option.get("description"):
            yield f"{where}.{name}"
        yield from undescribed(option.get("options", {}), f"{where}.{name}")


def test_there_are_roles():
    assert ROLES


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_same_keys(self, role):
        """A knob without a default is in argument_specs alone, and there is required or says what leaving it out means."""
        specs, defaults = options(role), load(role / "defaults/main.yml")
        assert set(defaults) <= set(specs)
        assert {name for name, option in specs.items() if "default" in option} == set(defaults)

    def test_same_defaults(self, role):
        defaults = load(role / "defaults/main.yml")
        assert {name: option["default"] for name, option in options(role).items() if name in defaults} == defaults

    def test_names_begin_with_the_role(self, role):
        assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []

    def test_all_described(self, role):
        assert list(undescribed(options(role), role.name)) == []
        assert load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["short_description"]

    def test_an_inventory_in_ini_says_true_and_false_in_text(self, role):
        files = [path for folder in ("tasks", "vars", "templates") for path in role.glob(f"{folder}/*")]
        for name in (name for name, option in options(role).items() if option.get("type") == "bool"):
            assert [str(path) for path in files if re.search(rf"(?<!['\w]){name}\b(?! \| bool|=|')", path.read_text())] == []

    def test_every_default_has_a_line_of_meaning(self, role):
        """A comment stands above each default, or above the group of them that it explains."""
        lines = (role / "defaults/main.yml").read_text().splitlines()
        blocks = re.split(r"\n\s*\n", "\n".join(lines[1:] if lines[0] == "---" else lines))
        assert [block for block in blocks if re.search(r"^\w+:", block, re.M) and not block.lstrip().startswith("#")] == []


PAGES = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")] if not path.name.endswith(".es.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
class TestPagesInBothLanguages:
    def test_they_have_the_same_structure(self, page):
        def shape(path):
            return re.findall(r"^(#+ |```\w*|\d+\. |\||- )", path.read_text(), re.M)

        assert shape(page) == shape(page.with_suffix(".es.md"))

    def test_they_show_the_same_commands(self, page):
        def code(path):
            blocks = re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", path.read_text(), re.M | re.S)
            return [re.sub(r"\s*#.*", "", block) for block in blocks]

        assert code(page) == code(page.with_suffix(".es.md"))

    def test_spanish_links_to_spanish(self, page):
        links = re.findall(r"\]\(([\w/.]+\.md)[)#]", page.with_suffix(".es.md").read_text())
        assert [link for link in links if not link.endswith(".es.md") and (page.parent / link).with_suffix(".es.md").exists() and link != "README.md"] == []


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "virtual_lab"], ids=lambda role: role.name)
def test_the_inventory_names_every_knob_with_its_default(role):
    lines = (ROOT / "inventories/lab.ini").read_text().splitlines()
    knobs = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?\w+=", line))
    for name, default in load(role / "defaults/main.yml").items():
        if name.endswith("_group"):  # site.yml has groups of fixed names; another play that uses the role may have others
            continue
        assert name in knobs
        if name != "mpi_stack_members":  # the one that each room has of its own
            assert yaml.safe_load(knobs[name] or '""') == default
