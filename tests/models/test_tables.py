"""Models take tables, columns and tensors of other libraries as arrays."""

import numpy as np
import pytest
from support.models import assert_same_parameters

import rnncore as rc


class Table:
    """What tables and columns of other libraries have in common: an array inside, and headings in a loop."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(["heading"] * len(self.values))


def test_tables_and_columns_of_other_libraries():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 3)), np.array([0, 1] * 4)
    settings = {"hidden_size": 3, "epochs": 2, "random_state": 0}
    for model, targets in ((rc.SequenceClassifier, y), (rc.SequenceTagger, np.repeat(y[:, None], 3, axis=1))):
        wanted = model(**settings).fit(X, targets)
        found = model(**settings).fit(Table(X), Table(targets), sample_weight=Table(np.ones(8)))
        assert_same_parameters(found, wanted)
        np.testing.assert_array_equal(found.predict(Table(X)), wanted.predict(X))
        assert found.score(Table(X), Table(targets)) == wanted.score(X, targets)
    words = Table(np.array(["ab", "b"], dtype=object))
    assert rc.SequenceClassifier(**settings).fit(words, ["p", "q"]).vocabulary.tokens[2:] == ("b", "a")
    with pytest.raises(TypeError, match="^X must be a list of sequences, or a padded array; got str_"):
        rc.SequenceClassifier().fit(np.str_("ab"), y)
    wrong = type("csr", (), {"toarray": None, "__iter__": lambda self: iter([])})()
    with pytest.raises(TypeError, match="^X must be a list or an array; got a sparse csr"):
        rc.SequenceClassifier().fit(wrong, y)
