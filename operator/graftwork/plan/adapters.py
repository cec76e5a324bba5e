"""Which adapters a deployment serves, under which alias and in which order. No I/O, and the same whatever the order of its input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graftwork import names
from graftwork.api.llmdeployment import RANKS
from graftwork.engines import TABLES
from graftwork.facts.adapters import Adapter, AliasPlan, Decision, Selection
from graftwork.facts.canary import Standing
from graftwork.facts.routes import Route
from graftwork.plan import bases
from graftwork.plan.canary import weight
from graftwork.plan.capacity import PLACES
from graftwork.plan.promotion import CANARY, Choice, Past, Promotion, choose
from graftwork.plan.readiness import Proof, required
from graftwork.reasons import Reason


@dataclass(frozen=True)
class Rules:
    """What the deployment's spec says of its adapters."""

    namespace: str
    deployment: str
    served_name: str
    max_loaded: int
    max_rank: int
    """What the present pod template takes."""
    without_lora: str = ""
    """The architecture of its model, where vLLM has no LoRA for that; empty: engines take adapters."""
    rank_auto: bool = False
    """Whether the template follows the adapters' ranks."""
    places: int = PLACES
    """Most adapters that may be listed."""
    compatible_bases: frozenset[str] = frozenset()
    match_labels: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    keeps: Mapping[str, int] = field(default_factory=dict)
    default_keep: int = 1
    promotions: Mapping[str, Promotion] = field(default_factory=dict)

    def keep(self, alias: str) -> int:
        """Return how many previous versions of the alias stay loaded."""
        return self.keeps.get(alias, self.default_keep)

    def promotion(self, alias: str) -> Promotion:
        """Return how newer versions of the alias take over."""
        return self.promotions.get(alias, Promotion())


@dataclass(frozen=True)
class Seen:
    """What was seen of the deployment's pods and of what they were told last."""

    fingerprints: frozenset[str] = frozenset()
    """Of the base models in its pods (more than one while a rollout changes the model); empty: not known yet."""
    listed: frozenset[str] = frozenset()
    """Engine names in the ConfigMap."""
    loaded: frozenset[str] = frozenset()
    """Engine names that every ready pod's engine lists."""
    served: Mapping[str, str] = field(default_factory=dict)
    """By alias: the LoRAAdapter that was served last."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """By alias: what the ConfigMap prefers, and its candidate."""
    standings: Mapping[str, Standing] = field(default_factory=dict)
    """By alias: where its canary stands."""
    max_rank: int | None = None
    """The lowest that an engine of its pods was started with; None: there are none."""
    unread: tuple[str, ...] = ()
    """Ready pods whose agents have not read the ConfigMap of now."""
    outdated: tuple[str, ...] = ()
    """Ready pods whose guards give a candidate no share, because they are older than that."""
    rolled_back: str = ""
    """What of the present spec failed and was rolled back, so that no engines follow those of now; empty: nothing was."""
    proof: Proof = field(default_factory=Proof)
    """What is known of which adapters load."""


@dataclass
class _Line:
    """One alias whose adapters may be served, newest first; `chosen` has the stable one, the candidate if there is one, the previous ones."""

    alias: str
    acceptable: list[Adapter]
    chosen: list[Adapter]
    candidate: Adapter | None = None
    admitted: int = 0


def matches(match_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether labels fulfil a selector."""
    return all(labels.get(key) == value for key, value in match_labels.items())


def select(adapters: Iterable[Adapter], rules: Rules, seen: Seen) -> Selection:
    """Decide of every adapter that the selector takes.

    Adapters are grouped by alias; an alias belongs to one lineage; the highest version (or the pinned one) is wanted and `keep` previous
    versions stay beside it. What was listed before stays listed until enough newer versions were seen loaded, so that a broken version,
    or an operator that has just started, never takes away what serves.
    """
    decisions: dict[str, Decision] = {}
    notes: dict[str, str] = {}
    groups: dict[str, list[Adapter]] = defaultdict(list)
    for adapter in sorted(adapters, key=_age):
        if adapter.stored and not adapter.deleting and matches(rules.match_labels, adapter.labels):
            groups[adapter.alias].append(bases.declared(adapter, seen.fingerprints, rules.compatible_bases))
    lines = []
    for alias in sorted(groups, key=lambda name: (not _is_listed(groups[name], seen), _age(groups[name][0]))):
        acceptable = _acceptable(groups[alias], rules, seen, decisions)
        choice = choose(acceptable, rules.promotion(alias), rules.pins.get(alias, ""), _past(alias, seen)) if acceptable else None
        if choice:
            lines.append(_line(alias, acceptable, choice, rules, seen))
            notes.update({alias: choice.note} if choice.note else {})
        else:
            decisions.update({adapter.name: _failed(adapter, seen, rules) for adapter in acceptable})
    _admit(lines, rules.places)
    plans = [_finish(line, rules, seen, decisions) for line in lines]
    return Selection(decisions, tuple(sorted((plan for plan in plans if plan), key=lambda plan: plan.alias)), notes)


def _age(adapter: Adapter) -> tuple[str, str]:
    return adapter.created, adapter.uid


def _is_listed(group: Sequence[Adapter], seen: Seen) -> bool:
    return any(adapter.engine_name in seen.listed for adapter in group)


def _acceptable(group: Sequence[Adapter], rules: Rules, seen: Seen, decisions: dict[str, Decision]) -> list[Adapter]:
    """Return what of one alias may be served, newest first; say of the rest why not. `group` is in order of age."""
    compatible = []
    for adapter in group:
        refusal = _refuse_alone(adapter, rules, seen)
        if refusal:
            decisions[adapter.name] = Decision(adapter, False, *refusal)
        else:
            compatible.append(adapter)
    if not compatible:
        return []
    lineage = _holder(compatible, seen)
    versions: dict[int, Adapter] = {}
    for adapter in compatible:
        refusal = _refuse_among(adapter, lineage, versions, rules)
        if refusal:
            decisions[adapter.name] = Decision(adapter, False, *refusal)
        else:
            versions[adapter.version] = adapter
    return _without_twins(sorted(versions.values(), key=lambda item: -item.version), rules, decisions)


def _refuse_alone(adapter: Adapter, rules: Rules, seen: Seen) -> tuple[Reason, str] | None:
    """Return why the adapter cannot be served here, whatever else there is."""
    where = f"LLMDeployment {rules.namespace}/{rules.deployment}"
    home = adapter.source.removeprefix(names.STORE_SCHEME).split("/", 1)[0]
    if home != rules.namespace and adapter.engine_name not in seen.listed:  # what serves already goes on
        return Reason.FOREIGN_SOURCE, (
            f"spec.source is {adapter.source}, in the store's part of namespace {home!r}, and this adapter is in namespace {rules.namespace!r}: who "
            f"may make adapters here could read the files of {home!r}, and the sweep there would remove what is served here; publish them in "
            f"{rules.namespace!r}, or import them from s3://, hf:// or https://"
        )
    if adapter.alias == rules.served_name:
        return Reason.ALIAS_TAKEN, (
            f"spec.alias {adapter.alias!r} is the served name of {where}, so clients could not tell the two apart; "
            "publish under another alias, or set model.servedName of the LLMDeployment"
        )
    if not seen.fingerprints and adapter.engine_name not in seen.listed:
        return Reason.LOADING, f"{where} has not told the fingerprint of its base model yet; its agent does when the model's files are there"
    if seen.fingerprints and adapter.fingerprint and not adapter.compatible and adapter.fingerprint not in seen.fingerprints:
        return Reason.BASE_MISMATCH, bases.mismatch(adapter, where, seen.fingerprints)
    if rules.without_lora and not (adapter.engine_name in seen.listed and seen.max_rank is not None):  # old pods keep theirs until they are replaced
        return Reason.LORA_NOT_SUPPORTED, (
            f"{where} serves a model of architecture {rules.without_lora}, for which vLLM {TABLES.version} has no LoRA: its engines run without "
            "adapters; serve another base model, or remove the adapter's labels from adapters.selector"
        )
    return _refuse_rank(adapter, where, rules, seen)


def _refuse_rank(adapter: Adapter, where: str, rules: Rules, seen: Seen) -> tuple[Reason, str] | None:
    """Return why the engines cannot take the adapter's rank: never, or not before they have been replaced."""
    fitting = next((rank for rank in RANKS if rank >= adapter.rank), None)
    running = rules.max_rank if seen.max_rank is None else seen.max_rank
    if adapter.rank > rules.max_rank and not (rules.rank_auto and fitting):
        limit = RANKS[-1] if rules.rank_auto else rules.max_rank
        remedy = f"set adapters.maxRank to {fitting} (restarts the pods) or train" if fitting else "train"
        return Reason.RANK_TOO_HIGH, (
            f"spec.rank is {adapter.rank}, and adapters.maxRank of {where} is {limit}; {remedy} with lora.rank of at most {limit}"
        )
    if adapter.rank > min(running, rules.max_rank) and adapter.engine_name not in seen.listed:
        if seen.rolled_back:
            return Reason.ROLLED_BACK, (
                f"its rank is {adapter.rank}, and engines of {where} run with --max-lora-rank {running}; others do not follow: {seen.rolled_back}. "
                f"Change the spec so that engines with rank {fitting} start, or delete this adapter; what is served goes on"
            )
        return Reason.RESTART_REQUIRED, (
            f"its rank is {adapter.rank}, and engines of {where} run with --max-lora-rank {running}: they are replaced one after another by "
            f"engines that take {fitting}, and then it is loaded; what is served goes on"
        )
    return None


def _holder(compatible: Sequence[Adapter], seen: Seen) -> str:
    """Return the lineage that the alias belongs to: the one that is served now, else the one that came first."""
    served = seen.served.get(compatible[0].alias)
    return next((adapter.lineage for adapter in compatible if adapter.name == served), compatible[0].lineage)


def _refuse_among(adapter: Adapter, lineage: str, versions: Mapping[int, Adapter], rules: Rules) -> tuple[Reason, str] | None:
    if adapter.lineage != lineage:
        return Reason.ALIAS_TAKEN, (
            f"alias {adapter.alias!r} belongs to lineage {lineage!r} in LLMDeployment {rules.namespace}/{rules.deployment}, and this adapter is of "
            f"lineage {adapter.lineage!r}; publish under another alias, or with spec.owner {lineage}"
        )
    if adapter.version in versions:
        return Reason.VERSION_TAKEN, (
            f"version {adapter.version} of alias {adapter.alias!r} is LoRAAdapter {versions[adapter.version].name}, which is older; "
            "publish these weights with a higher spec.version"
        )
    return None


def _without_twins(newest_first: list[Adapter], rules: Rules, decisions: dict[str, Decision]) -> list[Adapter]:
    """Leave one adapter of those with the same files: the pinned one, else the newest."""
    pin = rules.pins.get(newest_first[0].alias) if newest_first else None
    by_engine: dict[str, Adapter] = {}
    for adapter in newest_first:
        if adapter.engine_name not in by_engine or adapter.name == pin:
            by_engine[adapter.engine_name] = adapter
    kept = []
    for adapter in newest_first:
        twin = by_engine[adapter.engine_name]
        if twin is adapter:
            kept.append(adapter)
        else:
            decisions[adapter.name] = Decision(adapter, False, Reason.SUPERSEDED, f"LoRAAdapter {twin.name} has the same files and is served instead")
    return kept


def _past(alias: str, seen: Seen) -> Past:
    route = seen.routes.get(alias)
    return Past(seen.served.get(alias, ""), route.prefer if route else (), seen.standings.get(alias, Standing()))


def _line(alias: str, acceptable: list[Adapter], choice: Choice, rules: Rules, seen: Seen) -> _Line:
    """Return the alias with its wanted version first, then its candidate, then the versions that are to be kept.

    What pods are told to prefer is no candidate before the wanted version was seen loaded: it serves, as after a pin to one that is not there yet.
    """
    route = seen.routes.get(alias)
    serves = route is not None and choice.candidate is not None and choice.candidate.engine_name in route.prefer
    candidate = None if serves and choice.wanted.engine_name not in seen.loaded else choice.candidate
    return _Line(alias, acceptable, [choice.wanted, *([candidate] if candidate else []), *choice.previous[: rules.keep(alias)]], candidate)


def _admit(lines: Sequence[_Line], max_loaded: int) -> None:
    """Give the places out: first one to each alias, those that are served already before new ones, then to previous versions."""
    places = max_loaded
    for depth in range(max((len(line.chosen) for line in lines), default=0)):
        for line in lines:
            if places and line.admitted == depth and depth < len(line.chosen):
                line.admitted += 1
                places -= 1


def _finish(line: _Line, rules: Rules, seen: Seen, decisions: dict[str, Decision]) -> AliasPlan | None:
    """Write down what is offered of one alias and what is not, and return its plan (None if it got no place)."""
    admitted = line.chosen[: line.admitted]
    chosen = [adapter for adapter in admitted if adapter is not line.candidate]
    candidate = line.candidate if line.candidate in admitted else None
    for left_out in [*([] if chosen else line.chosen[:1]), *([line.candidate] if line.candidate and not candidate else [])]:
        decisions[left_out.name] = Decision(
            left_out,
            False,
            Reason.CAPACITY_EXCEEDED,
            f"LLMDeployment {rules.namespace}/{rules.deployment} serves at most {rules.places} adapters, which its engines keep in host memory "
            f"(adapters.maxLoaded is {rules.max_loaded}), and so many other aliases are served already; raise adapters.maxLoaded above "
            f"{rules.places} (restarts the pods), or delete the LoRAAdapters of an alias that nobody needs",
        )
    prefer = _preferred(line, chosen, seen) if chosen else []
    standing = seen.standings.get(line.alias, Standing())
    for adapter in line.acceptable:
        if line.candidate and adapter.name == standing.failed and rules.promotion(line.alias).mode == CANARY:
            decisions[adapter.name] = replace(_failed(adapter, seen, rules), offered=adapter is candidate)
        elif adapter in prefer or adapter is candidate:
            decisions[adapter.name] = Decision(adapter, True)
        elif adapter.name not in decisions:
            decisions[adapter.name] = Decision(adapter, False, Reason.SUPERSEDED, _superseded(adapter, line, rules))
    if not prefer:
        return None
    share = weight(rules.promotion(line.alias).canary, standing, candidate.name) if candidate else 0
    return AliasPlan(line.alias, tuple(prefer), candidate, share, required([adapter.engine_name for adapter in prefer], seen.proof))


def _failed(adapter: Adapter, seen: Seen, rules: Rules) -> Decision:
    """Return the decision of an adapter whose canary failed."""
    text = seen.standings.get(adapter.alias, Standing()).failure or f"its canary in LLMDeployment {rules.namespace}/{rules.deployment} failed"
    return Decision(adapter, False, Reason.CANARY_FAILED, text)


def _preferred(line: _Line, chosen: list[Adapter], seen: Seen) -> list[Adapter]:
    """Return the chosen ones and what was listed before and has to stay for now: until as many newer versions as were chosen have been seen loaded.

    What is newer than the wanted version served until the pin, and goes before the ones that are kept: those may be loaded before the wanted one.
    """
    wanted = chosen[0]
    older: list[Adapter] = []
    newer: list[Adapter] = []
    route = seen.routes.get(line.alias)
    for adapter in line.acceptable:
        if adapter in chosen or adapter is line.candidate or adapter.engine_name not in seen.listed:
            continue
        if route and adapter.engine_name == route.candidate:
            continue  # a candidate is not what serves: it goes as soon as it is none any more
        if adapter.version > wanted.version:  # the alias was pinned to an older version
            if wanted.engine_name not in seen.loaded:
                newer.append(adapter)
        else:
            ahead = [item for item in (*chosen, *older) if item.version > adapter.version and item.engine_name in seen.loaded]
            if len(ahead) < len(chosen):
                older.append(adapter)
    return [wanted, *newer, *chosen[1:], *older]


def _superseded(adapter: Adapter, line: _Line, rules: Rules) -> str:
    wanted = line.chosen[0]
    if adapter.version > wanted.version and line.candidate:
        return f"{line.candidate.name} is newer and is the candidate of alias {adapter.alias!r}"
    if adapter.version > wanted.version:
        return f"alias {adapter.alias!r} is pinned to {wanted.name} by adapters.aliases of LLMDeployment {rules.namespace}/{rules.deployment}"
    return f"{wanted.name} is served under alias {adapter.alias!r}, and adapters.aliases[].keep is {rules.keep(adapter.alias)}"
