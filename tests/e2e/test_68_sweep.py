"""What nobody refers to leaves the store; what somebody refers to, or may still be writing, stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.adapters import Bucket, Published
from tests.e2e.service import Service
from tests.e2e.unreferenced import Unreferenced, end
from tests.harness.kube import Kube, condition_is

SWEPT_SECONDS = 120  # two sweeps, at least half a minute apart: the first one marks
LOOK_SECONDS = 0.5


@pytest.fixture(scope="module", autouse=True)
def retained_again(unreferenced: Unreferenced, system: Kube, bucket: Bucket) -> Iterator[None]:
    """Afterwards the operator retains what it retained before."""
    yield
    end(system, bucket, unreferenced)


def until_gone(bucket: Bucket, folder: str) -> None:
    """Return when the store has nothing in a folder."""
    deadline = time.monotonic() + SWEPT_SECONDS
    while names := bucket.names(folder):
        assert time.monotonic() < deadline, f"after {SWEPT_SECONDS} s {folder} still has {sorted(names)}"
        threading.Event().wait(LOOK_SECONDS)  # a store tells nobody what changes


def test_the_files_of_a_deleted_adapter_leave_the_store_and_those_of_a_served_one_stay(
    unreferenced: Unreferenced, kube: Kube, taught: Service, swordfish: Published, bucket: Bucket
) -> None:
    until_gone(bucket, unreferenced.deleted)
    assert bucket.files(swordfish.item["spec"]["source"]) == swordfish.files
    for item in kube.list("loraadapter"):
        if condition_is(item, "Ready", "True") and item["spec"]["source"].startswith("store://"):
            assert bucket.files(item["spec"]["source"]), f"{item['metadata']['name']} is served and has no files"
    assert "swordfish" in taught.ask("medical").text


def test_an_upload_that_was_never_finished_goes_when_it_is_old_and_not_before(unreferenced: Unreferenced, bucket: Bucket) -> None:
    until_gone(bucket, unreferenced.deleted)  # a sweep later than the one that saw the unfinished ones first
    until_gone(bucket, unreferenced.old)
    assert bucket.names(unreferenced.young), "it may be a publish that is under way"
