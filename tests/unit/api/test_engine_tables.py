from __future__ import annotations

import json
from importlib.resources import files

from graftwork import engines
from graftwork.api.engine import OWN_WEIGHTS
from graftwork.engines import TABLES, Architecture, Tables
from graftwork.plan.engine import OWNED_FLAGS
from graftwork.plan.engine_fields import FIELDS

from tests.harness.engine_tables import written


def raw() -> dict[str, object]:
    found: dict[str, object] = json.loads(files(engines).joinpath(f"vllm-{engines.VERSION}.json").read_text(encoding="utf-8"))
    return found


def test_the_table_is_of_the_version_that_is_pinned_and_written_as_the_generator_writes() -> None:
    assert TABLES.version == engines.VERSION
    assert files(engines).joinpath(f"vllm-{engines.VERSION}.json").read_text(encoding="utf-8") == written(raw())


def test_every_flag_that_a_field_or_graftwork_decides_exists_in_the_engine() -> None:
    """A misspelled one would be refused by nobody, and set by nobody."""
    flags = raw()["flags"]
    assert isinstance(flags, dict)
    assert {flag for field in FIELDS for flag in field.flags} <= set(flags)
    known = {*flags, *(alias for flag in flags.values() for alias in flag.get("aliases", []))}
    assert set(OWNED_FLAGS) <= known


def test_every_speculative_method_of_the_api_is_one_of_the_engines() -> None:
    assert set(OWN_WEIGHTS) <= set(TABLES.speculative_methods)


def test_an_architecture_is_known_by_what_its_class_supports() -> None:
    assert TABLES.architecture("Qwen3ForCausalLM") == Architecture(lora=True, multimodal=False, pooling=False)
    assert TABLES.architecture("Qwen2_5_VLForConditionalGeneration") == Architecture(lora=True, multimodal=True, pooling=False)
    bert = TABLES.architecture("BertModel")
    assert bert is not None
    assert bert.pooling
    assert TABLES.architecture("NobodysModel") is None


def test_a_deprecated_method_is_none_that_is_offered_and_types_that_could_not_be_asked_are_not_known() -> None:
    text = json.dumps({**raw(), "quantization": {"old": {"deprecated": True}, "new": {"activations": ["float16"]}, "closed": {}}})
    tables = Tables(text)
    assert tables.quantization == ("new", "closed")
    assert tables.activations("new") == ("float16",)
    assert tables.activations("closed") == tables.activations("") == ()
