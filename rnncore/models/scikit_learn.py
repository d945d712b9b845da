"""What scikit-learn expects of an estimator beyond ``fit`` and ``predict``; it is imported only when it is needed."""

from __future__ import annotations

from typing import Any


class NotFittedError(ValueError, AttributeError):
    """What scikit-learn calls by this name, where it is not installed."""


def not_fitted(message: str) -> Exception:
    """Return a NotFittedError: that of scikit-learn, or the one of this module where it is not installed."""
    try:
        from sklearn.exceptions import NotFittedError as Error
    except ImportError:
        Error = NotFittedError
    return Error(message)


def tags(estimator_type: str | None, *, arrays: bool, needs_targets: bool) -> Any:
    """Return the tags that scikit-learn 1.6 and later ask for.

    Parameters
    ----------
    estimator_type : "classifier" or None
    arrays : bool
        Whether X may be an array: (n, T) sequences of one feature or of ids, or (n, T, D).
    needs_targets : bool
    """
    from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

    return Tags(
        estimator_type,
        TargetTags(required=needs_targets),
        classifier_tags=ClassifierTags() if estimator_type == "classifier" else None,
        input_tags=InputTags(two_d_array=arrays, three_d_array=arrays, string=True),
    )
