"""The ways in which a run can end badly (reasons of docs/design/contracts.md, section 10; the reason decides the exit code)."""

from __future__ import annotations

EXIT_TERMINATED = 128 + 15


class RunError(Exception):
    """A run that cannot go on: a reason of the closed list and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def dataset_invalid(message: str) -> RunError:
    """Return the error of a dataset that cannot be trained on; exit code 64, never retried."""
    return RunError("DatasetInvalid", message)


def invalid_setting(field: str, value: object, rule: str, remedy: str) -> RunError:
    """Return the error of one field of the run; exit code 65, never retried."""
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return RunError("InvalidSpec", f"{field} is {shown}: {rule}; {remedy}")


def model_invalid(message: str) -> RunError:
    """Return the error of a base that is not a model we can train; exit code 65, never retried."""
    return RunError("ModelInvalid", message)


def training_failed(message: str) -> RunError:
    """Return the error of a run that failed underway; exit code 70, it may be retried."""
    return RunError("TrainingFailed", message)
