"""The closed list of condition and Event reasons; no other may appear in a status, a result or an Event."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a condition has its status. The docstring-like comment after each value is what the reference prints."""

    # --- progress
    RECONCILED = "Reconciled"  # everything that was asked for was seen
    PROGRESSING = "Progressing"  # children are being made or are starting
    STOPPED = "Stopped"  # replicas is 0
    DELETING = "Deleting"  # the resource is being removed
    RECONCILE_FAILED = "ReconcileFailed"  # the API server refused a write of the operator, or a pass raised an error; it is tried again

    # --- LLMDeployment
    SERVING = "Serving"  # at least one pod answers
    NOT_SERVING = "NotServing"  # no pod answers
    PODS_STARTING = "PodsStarting"  # pods exist, none has become ready yet
    UNSCHEDULABLE = "Unschedulable"  # the scheduler found no node for a pod
    PODS_REFUSED = "PodsRefused"  # the API server refuses to make pods: a quota, an admission policy, a ServiceAccount that does not exist
    PLACED = "Placed"  # every pod has a node
    IMAGE_PULL_FAILED = "ImagePullFailed"  # the kubelet cannot get an image
    ENGINE_CRASHED = "EngineCrashed"  # vLLM ended; the message quotes its last error
    START_TOO_SLOW = "StartTooSlow"  # an engine that had node, image and weights was not ready within rollout.progressDeadline
    ROLLED_BACK = "RolledBack"  # the spec's pods failed: the last good revision is served until the spec changes; the message quotes the cause
    NOT_ROLLED_BACK = "NotRolledBack"  # what the spec asks for is served, or is being rolled out
    ROLLOUT_NEEDS_DOWNTIME = "RolloutNeedsDowntime"  # no node for a second pod beside the only one; rollout.surge 0 is the consent to a gap
    ADAPTERS_LOADED = "AdaptersLoaded"  # every adapter is listed by every ready engine
    ADAPTERS_LOADING = "AdaptersLoading"  # an adapter is not loaded everywhere yet
    ADAPTER_FAILED = "AdapterFailed"  # an adapter was refused or cannot be loaded; it is retried where that can help
    OVER_CAPACITY = "OverCapacity"  # all are loaded, but more than adapters.maxLoaded: some wait in host memory for a slot
    NO_ADAPTERS = "NoAdapters"  # nothing to load
    AGENT_UNREACHABLE = "AgentUnreachable"  # a pod's agent does not answer, so its adapters are unknown
    API_KEYS_INVALID = "ApiKeysInvalid"  # the Secret of service.apiKeysSecret is missing or breaks a rule; keys without fault stay in force
    ACCESS_APPLIED = "AccessApplied"  # what spec.access asks for is there
    ACCESS_REFUSED = "AccessRefused"  # the API server or an admission webhook refuses an Ingress, HTTPRoute or NetworkPolicy; it is tried again
    GATEWAY_MISSING = "GatewayMissing"  # access.route needs the Gateway API, and its CRDs are not installed; everything else goes on
    ROUTE_PENDING = "RoutePending"  # no Gateway has said yet whether it takes the HTTPRoute
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"  # a Gateway refuses the HTTPRoute; the message quotes it
    SECURITY_WEAKENED = "SecurityWeakened"  # spec.pod makes the pods weaker than the restricted Pod Security Standard; they serve all the same
    OWNED_FLAG = "OwnedFlag"  # engine.args or engine.env sets what Graftwork owns
    UNSUPPORTED_COMBINATION = "UnsupportedCombination"  # vLLM refuses two settings of the engine together; the message names them and the remedy
    NAME_TAKEN = "NameTaken"  # a child's name belongs to an object of someone else
    INVALID_SPEC = "InvalidSpec"  # the spec breaks a rule that the schema cannot know

    # --- model and data sources
    SOURCE_INVALID = "SourceInvalid"  # a source is not a URI of a kind that is served
    SOURCE_NOT_FOUND = "SourceNotFound"  # nothing lies at the source
    SOURCE_DENIED = "SourceDenied"  # the source refused the credentials
    SOURCE_GATED = "SourceGated"  # the hub's repository is gated: accept its terms, and give the token of the account that did
    REVISION_NOT_FOUND = "RevisionNotFound"  # the repository has no such branch, tag or commit
    SOURCE_FILE_TOO_LARGE = "SourceFileTooLarge"  # a file of the repository is larger than the hub serves over plain HTTP
    SOURCE_CHANGED = "SourceChanged"  # the source has other files than when it was resolved; annotation graftwork.dev/refresh takes the new ones
    UNSUPPORTED_FORMAT = "UnsupportedFormat"  # the weights are not in safetensors files
    SOURCE_UNREACHABLE = "SourceUnreachable"  # the source does not answer; tried again
    MODEL_INVALID = "ModelInvalid"  # what lies at the source is not a model in Hugging Face layout
    MODEL_RESOLVED = "ModelResolved"  # what the source names is known to the commit, and frozen until it is asked for again
    MODEL_RESOLVING = "ModelResolving"  # a Job reads what the source names; pods are made when it is known
    INSPECT_FAILED = "InspectFailed"  # that Job ended without a result; the message quotes its last line
    DISK_FULL = "DiskFull"  # a volume has no room

    # --- store
    STORE_NOT_CONFIGURED = "StoreNotConfigured"  # the operator has no store
    STORE_NOT_SHARED = "StoreNotShared"  # the store's claim can be mounted on one node only
    STORE_UNREACHABLE = "StoreUnreachable"  # the store does not answer; tried again
    STORE_DENIED = "StoreDenied"  # the store refused the credentials
    STORE_SHARED = "StoreShared"  # several installations use one place in a store, so nobody's sweep removes anything
    SWEPT = "Swept"  # what nobody references was marked or removed

    # --- LoRAAdapter
    LOADED = "Loaded"  # every ready engine of every matching deployment lists it
    LOADING = "Loading"  # not loaded everywhere yet
    NO_DEPLOYMENT = "NoDeployment"  # no LLMDeployment selects it
    SUPERSEDED = "Superseded"  # a newer version of the alias is served and this one is not kept
    ALIAS_TAKEN = "AliasTaken"  # another lineage or a served name has the alias
    VERSION_TAKEN = "VersionTaken"  # the alias has another adapter of this version
    BASE_MISMATCH = "BaseMismatch"  # trained on other weights than the deployment serves
    RANK_TOO_HIGH = "RankTooHigh"  # rank above adapters.maxRank
    DIGEST_MISMATCH = "DigestMismatch"  # the files are not the ones that were published
    FILE_NOT_ALLOWED = "FileNotAllowed"  # not a regular file of the allow-list
    CONFIG_INVALID = "ConfigInvalid"  # adapter_config.json cannot be read
    UNSUPPORTED = "Unsupported"  # vLLM cannot serve this kind of adapter
    TENSOR_MISMATCH = "TensorMismatch"  # a module or shape that the base does not have
    NOT_FINITE = "NotFinite"  # a weight is NaN or infinite
    CAPACITY_EXCEEDED = "CapacityExceeded"  # more adapters than the engine keeps in host memory
    RESTART_REQUIRED = "RestartRequired"  # the adapters need engines that were started otherwise (rank, maxLoaded); the rolling update is under way
    IMPORTING = "Importing"  # a Job brings the files into the store
    IMPORTED = "Imported"  # the files are in the store, and their digest is pinned
    IMPORT_FAILED = "ImportFailed"  # the import Job ended without a result; the message quotes its last line
    SERVICE_ACCOUNT_NOT_ALLOWED = "ServiceAccountNotAllowed"  # the operator's configuration does not list serviceAccountName
    LOAD_FAILED = "LoadFailed"  # vLLM refused the load; the message quotes it

    # --- canaries of adapters
    CANARY_RUNNING = "CanaryRunning"  # the candidate gets a share of the requests; the message has the step and the numbers
    CANARY_WAITING = "CanaryWaiting"  # the step goes on until there are enough data; the message says what is missing
    CANARY_FAILED = "CanaryFailed"  # the analysis failed: the candidate gets no requests until a newer version, a pin or another promotion
    PROMOTED = "Promoted"  # the candidate passed the last step and is the stable version now
    AWAITING_PROMOTION = "AwaitingPromotion"  # promotion is Manual: a newer version is loaded and waits until it is named in `adapter`
    PROMETHEUS_NOT_CONFIGURED = "PrometheusNotConfigured"  # promotion is Canary, and the operator knows no Prometheus (prometheus.url)
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"  # Prometheus does not answer; the candidate's share stays as it is

    # --- FineTuneJob
    PENDING = "Pending"  # the training pod waits for a node
    PREPARING = "Preparing"  # downloading and checking the data
    TRAINING = "Training"  # steps are being made
    EVALUATING = "Evaluating"  # the adapter is compared with the base
    PUBLISHING = "Publishing"  # files are being written to the store
    PUBLISHED = "Published"  # the run ended and its adapter is in the store
    BELOW_GATE = "BelowGate"  # evaluated and not good enough; nothing published
    DEPLOYMENT_NOT_FOUND = "DeploymentNotFound"  # deploymentRef names no LLMDeployment of the namespace
    DATASET_INVALID = "DatasetInvalid"  # a line of the dataset is wrong; the message names file and line
    TRAINING_FAILED = "TrainingFailed"  # the trainer ended with an error; the message quotes its last line
    OUT_OF_MEMORY = "OutOfMemory"  # the kernel or the GPU ran out of memory
    TIME_LIMIT = "TimeLimit"  # timeLimit passed
    SUSPENDED = "Suspended"  # suspend is true


def known(text: object) -> Reason | None:
    """Return the reason that another program, or a status, names; None for what is none of the list."""
    return next((reason for reason in Reason if reason == text), None)
