"""Model cards: what they must tell, and what foreign text in them must not be able to do."""

import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workbench.evaluation.provenance import provenance_of, public_name, without_local_paths
from workbench.export.card import model_card
from workbench.markdown import code, text
from workbench.models.sources import LocalModel, find_local
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse

NASTY = "</td><script>alert(1)</script> | [x](javascript:1) `rm` **b** @me\n# head\n---\n\x1b[31m\u202eevil"


@pytest.fixture(scope="module")
def facts(tiny_home, tiny_run):
    recipe = tiny_run.recipe()
    return provenance_of(tiny_run, recipe, find_local(tiny_home, recipe.model), lambda name, fraction: None)


def test_a_card_tells_base_data_versions_seed_recipe_and_figures(facts, tiny_llama, records):
    card = model_card(facts, "adapter")
    for words in (tiny_llama.name, records.name, facts.data[0].sha256, "torch", "seed", "lora_dropout: 0.1"):
        assert words in card
    assert "held-out perplexity, the base" in card
    assert "held-out perplexity, after step 6" in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "peft"
    assert "base_model" not in head, "a folder's name is no id on the hub"


def test_a_base_from_the_hub_is_named_with_revision_and_licence(facts):
    base = replace(facts.base, source="owner/model", origin="hub", revision="abc123", licence="apache-2.0")
    card = model_card(replace(facts, base=base), "merged", "All well.")
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["license"]) == ("owner/model", "apache-2.0")
    assert head["base_model_relation"] == "finetune"
    assert "abc123" in card
    assert "## Check\n\nAll well." in card


def test_foreign_text_is_only_text(facts):
    nasty = replace(
        facts,
        run=NASTY,
        base=replace(facts.base, source=NASTY, licence=""),
        data=(replace(facts.data[0], name=NASTY),),
        versions={NASTY: NASTY},
        changes=(NASTY,),
        recipe=without_local_paths(edit(Recipe(), {"data.system": "```\n</script>\n# out\n`````\n"})),
    )
    card = model_card(nasty, "adapter", NASTY)
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside
    assert "](javascript" not in outside
    assert "**b**" not in outside
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [line for line in outside.splitlines() if line.startswith("# ")] == [f"# {text(NASTY)}"]
    tables = [line for line in outside.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in tables), "no cell ends another"


@given(st.text())
def test_no_text_breaks_out_of_its_line(value):
    line = text(value)
    assert "\n" not in line
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|]", line)
    assert "<" not in line


@given(st.text())
def test_no_content_closes_its_block(value):
    lines = code(value).split("\n")
    fence = lines[0]
    assert lines[-1] == fence
    assert not any(line.strip().startswith(fence) for line in lines[1:-1])


def test_folders_of_this_machine_are_named_by_their_last_part(tmp_path):
    (tmp_path / "secret.jsonl").write_text("{}")
    recipe = parse(
        {
            "model": {"source": "/home/alice/models/base"},
            "data": {"source": f"{tmp_path}/secret.jsonl*0.5 + owner/set + first-mate", "template": "~/t.jinja"},
            "output": {"dir": "/home/alice/runs"},
        }
    )
    found = without_local_paths(recipe)
    assert found.model.source == "base"
    assert found.data.source == "secret.jsonl*0.5 + owner/set + first-mate"
    assert found.data.template == "t.jinja"
    assert found.output.dir is None
    assert public_name("owner/model") == "owner/model"


def test_a_licence_is_read_off_the_models_own_card(tmp_path):
    from workbench.evaluation.provenance import base_facts

    (tmp_path / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# A model\n")
    local = LocalModel(tmp_path, "owner/model", "c0ffee", "hub")
    found = base_facts(edit(Recipe(), {"model.source": "owner/model"}), local)
    assert (found.licence, found.revision) == ("mit", "c0ffee")
    (tmp_path / "README.md").write_text("---\nlicense: 'mit\\n</b>'\n---\n")
    assert base_facts(edit(Recipe(), {"model.source": "owner/model"}), local).licence == ""
    assert base_facts(Recipe(), None).licence == "apache-2.0", "the catalog knows the demonstration model"
