"""Builds what is missing: parents before children, two at once, each beside its final place and renamed when it is whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import exclusive
from tests.cluster.imagebuild import programs, rootfs
from tests.cluster.imagebuild.archive import diff_ids, write_archive
from tests.cluster.imagebuild.buildah import Buildah
from tests.cluster.imagebuild.graph import Graph, input_files
from tests.cluster.imagebuild.host import build_mounts
from tests.cluster.imagebuild.layers import Layers
from tests.cluster.imagebuild.places import Places
from tests.cluster.imagebuild.processes import Processes
from tests.cluster.progress import ClusterError, Progress

AT_ONCE = 2
GIB = 2**30
STEP = re.compile(r"^STEP (\d+/\d+): (.*)$")


@dataclass(frozen=True)
class Task:
    """What is to be done for one image: `built` into buildah's storage (from its archive, if there is one), written as an archive, or both."""

    name: str
    stored: bool
    archived: bool


def plan(graph: Graph, names: list[str], has_archive: Callable[[str], bool], has_stored: Callable[[str], bool]) -> list[Task]:
    """What has to be done so that each of `names` has its archive (or, if only other images need it, is stored); parents come before children."""
    stored: set[str] = set()
    archived: set[str] = set()

    def need_stored(name: str) -> None:
        if name in stored or has_stored(name):
            return
        stored.add(name)
        parent = graph.images[name].parent
        # An image that is pulled from its archive brings its parent's layers along.
        if parent and not has_archive(name):
            need_stored(parent)

    for name in names:
        if not graph.images[name].archived:
            need_stored(name)
        elif not has_archive(name):
            archived.add(name)
            need_stored(name)
    return [Task(name, name in stored, name in archived) for name in graph.images if name in stored | archived]


def archive_path(graph: Graph, places: Places, name: str) -> Path:
    """Where the archive of an image's present content lies or will lie."""
    return places.archives / f"{name}-{graph.tag(name)}.oci.tar"


def build(graph: Graph, places: Places, progress: Progress, names: list[str]) -> None:
    """Make the archives of `names` (all if empty) that do not exist yet."""
    selected = graph.select(names)
    if all(graph.images[name].archived and archive_path(graph, places, name).is_file() for name in selected):
        progress(f"images: all {len(selected)} are built already")
        return
    with exclusive(places.archives / ".lock"):
        shutil.rmtree(places.work, ignore_errors=True)
        try:
            # Tags and contents come from one copy: a file that is edited during the build cannot get under the tag of its former content.
            snapshot = Graph(places.work / "source", graph.build_args)
            copy_inputs(places.repository, snapshot.repository, [path for image in graph.images.values() for path in image.sources])
            Builder(snapshot, places, progress).run(selected)
        finally:
            shutil.rmtree(places.work, ignore_errors=True)


def copy_inputs(repository: Path, target: Path, paths: Iterable[str]) -> None:
    """Copy inputs into a folder of the repository's shape; what a tag does not cover is not copied and so cannot get into an image."""
    for path in paths:
        for file in input_files(repository, path):
            copy = target / file.relative_to(repository)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)


class Builder:
    """Builds images of one graph into one cache."""

    def __init__(self, graph: Graph, places: Places, progress: Progress) -> None:
        self._graph = graph
        self._places = places
        self._progress = progress
        self._processes = Processes()
        self._layers = Layers(places.layers, places.work)

    def run(self, names: list[str]) -> None:
        """Build what is missing of `names`; to be called under the lock of the archives."""
        buildah = Buildah(self._places.storage, self._places.work, self._processes)
        buildah.clean_up()
        tasks = plan(self._graph, names, lambda name: self._archive(name).is_file(), lambda name: buildah.has(self._graph.reference(name)))
        mounts = build_mounts(self._places.work / "host", self._places.wheels)
        try:
            self._run(tasks, lambda task: self._do(task, buildah, mounts))
        finally:
            buildah.clean_up()

    def _archive(self, name: str) -> Path:
        return archive_path(self._graph, self._places, name)

    def _run(self, tasks: list[Task], do: Callable[[Task], None]) -> None:
        """Run tasks two at once; one whose parent is among them starts when that is done."""
        done: dict[str, Future[None]] = {}

        def after_parent(task: Task) -> None:
            parent = self._graph.images[task.name].parent
            if parent in done:
                done[parent].result()
            do(task)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                # Parents come first in the list, so a waiting child never holds the place that its parent needs.
                for task in tasks:
                    done[task.name] = pool.submit(after_parent, task)
                for future in done.values():
                    future.result()
            except BaseException:
                self._processes.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _do(self, task: Task, buildah: Buildah, mounts: list[str]) -> None:
        name, archive, reference = task.name, self._archive(task.name), self._graph.reference(task.name)
        log = self._places.logs / f"{name}-{self._graph.tag(name)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        began = self._progress.seconds
        if task.stored and archive.is_file():
            self._progress(f"{name}: taken from its archive")
            buildah.pull(name, reference, archive, log)
        elif task.stored:
            self._build(name, reference, buildah, mounts, log)
        if task.archived:
            self._progress(f"{name}: writing the archive")
            self._write(buildah, reference, archive)
            self._progress(f"{name}: {archive.stat().st_size / GIB:.2f} GiB, done in {self._progress.seconds - began:.0f} s")

    def _write(self, buildah: Buildah, reference: str, archive: Path) -> None:
        image_id, config = buildah.image(reference)
        storage, wanted = buildah.layers(), diff_ids(config)
        stored = storage.layer_ids(image_id)
        if len(stored) != len(wanted):
            have = f"{len(stored)} of {len(wanted)} layers"
            raise ClusterError(f"{reference}: {self._places.storage} holds {have}; remove that folder and build again")
        blobs = [self._layers.get(diff_id, storage, layer_id) for diff_id, layer_id in zip(wanted, stored, strict=True)]
        half = self._places.work / archive.name
        write_archive(half, reference, config, blobs)
        half.rename(archive)

    def _build(self, name: str, reference: str, buildah: Buildah, mounts: list[str], log: Path) -> None:
        image = self._graph.images[name]
        context = self._places.work / name
        copy_inputs(self._graph.repository, context, image.sources)
        say = lambda text: self._progress(f"{name}: {text}")  # noqa: E731 - one line, used twice below
        if image.prepare == "debootstrap":
            rootfs.debootstrap(context, self._processes, log, say)
        elif image.prepare == "versitygw":
            rootfs.versitygw(context, say)
        elif image.prepare in programs.PROGRAMS:
            programs.put(image.prepare, context, say)
        arguments = dict(self._graph.arguments(name))
        if image.parent:
            arguments["BASE_IMAGE"] = self._graph.reference(image.parent)
        buildah.build(name, reference, context, image.dockerfile, arguments, mounts, log, lambda line: self._show(name, line))
        shutil.rmtree(context)

    def _show(self, name: str, line: str) -> None:
        """Of a build's output, show the steps and what our own scripts say."""
        step = STEP.match(line)
        if step:
            text = " ".join(step.group(2).split())
            self._progress(f"{name}: {step.group(1)} {text[:100]}{'…' if len(text) > 100 else ''}")
        elif line.startswith("graftwork: "):
            self._progress(f"{name}: {line.removeprefix('graftwork: ')}")
