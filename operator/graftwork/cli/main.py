"""The program `kubectl-graft`, which kubectl runs as `kubectl graft`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from graftwork.cli import files, logs, models, plan, status
from graftwork.cli.kube import Kubectl, KubectlError
from graftwork.cli.snapshot import KIND, take
from graftwork.config import PATH_VARIABLE, load
from graftwork.errors import ConfigError
from graftwork.facts.inspected import Resolved


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("-n", "--namespace", default="", help="namespace; the context's if it is left out")
    where.add_argument("--context", default="", help="context of the kubeconfig")
    where.add_argument("--kubeconfig", default="", help="path of the kubeconfig")
    root = argparse.ArgumentParser(prog="kubectl graft", description="Look at LLMDeployments.")
    commands = root.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("status", parents=[where], help="conditions, revisions, pods and adapters as a tree")
    shown.add_argument("name", nargs="?", default="", help="the LLMDeployment; all of the namespace if it is left out")
    read = commands.add_parser("logs", parents=[where], help="the log that tells most: of a new pod that fails, if there is one")
    read.add_argument("name", help="the LLMDeployment")
    read.add_argument("-c", "--container", default="", help="this container instead of the one that is at work or has failed")
    run = read.add_mutually_exclusive_group()
    run.add_argument(
        "-p", "--previous", dest="previous", action="store_const", const=True, default=None, help="the container's run before the present one"
    )
    run.add_argument("--present", dest="previous", action="store_const", const=False, help="its present run, also after a crash")
    read.add_argument("-f", "--follow", action="store_true", help="go on reading")
    read.add_argument("--tail", type=int, default=None, help="only so many of the last lines")
    planned = commands.add_parser("plan", parents=[where], help="what a changed LLMDeployment would change, and which pods that restarts")
    planned.add_argument("-f", "--filename", required=True, help="file with the LLMDeployment as it is to be; - is standard input")
    planned.add_argument("--current", default="", help="file with the LLMDeployment as it is; no cluster is asked then")
    planned.add_argument("--offline", action="store_true", help="ask no cluster; without --current the LLMDeployment is taken to be new")
    planned.add_argument("--config", default="", help="file with the operator's configuration; placeholders stand for its images if it is left out")
    facts = planned.add_mutually_exclusive_group()
    facts.add_argument("--facts", default="", help="JSON file with what is known of the model: status.model.resolved of an LLMDeployment")
    facts.add_argument("--model", default="", help="folder with the model: its config.json and the headers of its weights are read")
    planned.add_argument(
        "--gpu-memory", type=quantity, default=None, metavar="SIZE", help="memory of one GPU, such as 80Gi: tells what is left of it"
    )
    return root


def quantity(text: str) -> int:
    """Return the bytes of a size such as 80Gi."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Gi|Mi|G|M)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write one such as 80Gi")
    return int(float(found[1]) * {"Gi": 2**30, "Mi": 2**20, "G": 10**9, "M": 10**6}.get(found[2] or "", 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = parser().parse_args(argv)
    kubectl = Kubectl.of(arguments.namespace, arguments.context, arguments.kubeconfig)
    try:
        return _COMMANDS[arguments.command](kubectl, arguments)
    except (KubectlError, logs.NoLogsError, files.FileError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _status(kubectl: Kubectl, arguments: argparse.Namespace) -> int:
    resources = [kubectl.get(KIND, arguments.name)] if arguments.name else kubectl.list(KIND)
    if not resources:
        print("There is no LLMDeployment in this namespace; another one is named by -n.", file=sys.stderr)
    now = datetime.now(UTC)
    print("\n\n".join(status.render(take(kubectl, resource), now) for resource in resources), end="\n" if resources else "")
    return 0


def _logs(kubectl: Kubectl, arguments: argparse.Namespace) -> int:
    snapshot = take(kubectl, kubectl.get(KIND, arguments.name))
    choice = logs.choose(snapshot, arguments.container, arguments.previous)
    print(f"# {choice.why}", file=sys.stderr, flush=True)
    return kubectl.passed_on(*choice.arguments(follow=arguments.follow, tail=arguments.tail))


def _plan(kubectl: Kubectl, arguments: argparse.Namespace) -> int:
    config = load({PATH_VARIABLE: arguments.config}) if arguments.config else plan.DEFAULTS
    current = {item.metadata.name: item for item in (files.read(arguments.current) if arguments.current else [])}
    made = []
    for wanted in files.read(arguments.filename):
        name = wanted.metadata.name
        live = None if arguments.offline or arguments.current else kubectl.find(KIND, name, wanted.metadata.namespace)
        before = files.parse(live, f"{KIND} {name}") if live else current.get(name)
        made.append(plan.plan(wanted, before, config, known=_known(wanted.spec.model.source, arguments), gpu_bytes=arguments.gpu_memory))
    print("\n\n".join(plan.render(each) for each in made))
    return 1 if any(each.problems for each in made) else 0


def _known(source: str, arguments: argparse.Namespace) -> Resolved | None:
    if arguments.facts:
        return models.from_file(arguments.facts, source)
    return models.from_folder(arguments.model, source) if arguments.model else None


_COMMANDS = {"status": _status, "logs": _logs, "plan": _plan}


if __name__ == "__main__":
    raise SystemExit(main())
