"""Namespaces do not see each other's adapters."""

from __future__ import annotations

import json

from tests.unit.reconcile.world import World
from tests.unit.status.seen import BASE, condition


async def test_an_adapter_of_another_namespace_is_neither_served_nor_in_the_way() -> None:
    world = World()
    mine = world.adapter("medical", letter="a")
    for name, alias, letter in (("medical-1", "medical", "b"), ("medical-9", "medical", "c"), ("legal-9", "legal", "d")):
        fields = {"alias": alias, "version": int(name[-1]), "owner": "tickets", "digest": f"sha256:{letter * 64}", "rank": 8}
        spec = {**fields, "source": f"store://sales/{alias}/{letter * 12}", "baseModel": {"fingerprint": BASE}}
        world.add("LoRAAdapter", name, spec, namespace="sales", uid=f"uid-sales-{name}")
    world.deployment()
    await world.run("LLMDeployment", "support")
    world.pod()
    await world.run("LLMDeployment", "support")
    content = json.loads(world.content())
    assert [adapter["engineName"] for adapter in content["adapters"]] == [mine]
    assert [alias["alias"] for alias in content["aliases"]] == ["medical"]
    world.agent("p1", mine)
    await world.run("LLMDeployment", "support")
    assert [row["alias"] for row in world.status("LLMDeployment", "support")["adapters"]] == ["medical"]
    await world.run("LoRAAdapter", "medical-1")
    assert condition(world.status("LoRAAdapter", "medical-1"), "Ready") == ("True", "Loaded")
