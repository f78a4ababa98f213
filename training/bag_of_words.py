"""A linear model on word counts, which knows no word order: logistic or ridge regression.

Words alone or with pairs of neighbours, their weighting, and the strength of the regularisation are
chosen by the task's metric on a fifth of the training examples; then all of them are learned from.
Which words there are, and how common they are (IDF), is counted over all of them, the fifth too: of
that only the labels are unseen while the choice is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack, spmatrix
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from tasks import Task

Texts = Sequence[tuple[str, ...]]  # a sentence or two an example

TOKEN = r"\w+|[^\w\s]"  # words and signs: no text is without
C = (0.1, 1.0, 10.0)  # logistic regression's inverse strength
ALPHA = (1.0, 10.0, 100.0)  # ridge regression's strength
MOST_ITERATIONS = 2000


# ---- features


class SentenceCounts:
    """The words of one sentence, as a vectorizer of scikit-learn's counts them."""

    def __init__(self, counts: CountVectorizer):
        self.counts = counts

    def fit(self, texts: Texts) -> spmatrix:
        """Learn the vocabulary; the features of these texts."""
        return self.counts.fit_transform([sentence for (sentence,) in texts])

    def transform(self, texts: Texts) -> spmatrix:
        """[examples, words]."""
        return self.counts.transform([sentence for (sentence,) in texts])


class PairCounts:
    """What two sentences share and what they do not, as one sparse row a pair.

    Words in both, words in one only, and how much the sentences overlap in all.
    """

    def __init__(self, neighbours: int):
        self.counts = CountVectorizer(ngram_range=(1, neighbours), token_pattern=TOKEN, binary=True)

    def fit(self, texts: Texts) -> spmatrix:
        """Learn the vocabulary of both sides; the features of these pairs."""
        self.counts.fit([sentence for pair in texts for sentence in pair])
        return self.transform(texts)

    def transform(self, texts: Texts) -> spmatrix:
        """[pairs, features]."""
        # Which words each sentence has, [pairs, words] of 0 and 1.
        first = self.counts.transform([one for one, _ in texts])
        second = self.counts.transform([two for _, two in texts])
        shared = first.multiply(second)
        single = abs(first - second)

        # How many, [pairs, 1] each.
        common = shared.sum(1)
        alone = single.sum(1)
        union = np.maximum(common + alone, 1)
        shorter = np.maximum(np.minimum(first.sum(1), second.sum(1)), 1)
        difference = np.abs(first.sum(1) - second.sum(1))
        overlap = [
            common / union,
            common / shorter,
            difference / union,
            alone / 10,
            (alone == 0).astype(float),
        ]
        return hstack([shared, single, csr_matrix(np.asarray(np.hstack(overlap)))]).tocsr()


def features_of(task: Task) -> list[SentenceCounts] | list[PairCounts]:
    """The features to choose from."""
    if task.pair:
        return [PairCounts(1), PairCounts(2)]
    return [
        SentenceCounts(CountVectorizer(token_pattern=TOKEN)),
        SentenceCounts(CountVectorizer(token_pattern=TOKEN, ngram_range=(1, 2))),
        SentenceCounts(TfidfVectorizer(token_pattern=TOKEN, ngram_range=(1, 2), sublinear_tf=True)),
    ]


# ---- models


def fitted(task: Task, strength: float, features: spmatrix, labels: np.ndarray) -> Any:
    """A model of scikit-learn's, fitted: for classes or for numbers."""
    if not task.labels.whole:
        return Ridge(alpha=strength).fit(features, labels)
    if np.ptp(labels) == 0:  # a single class, which a regression refuses
        return DummyClassifier().fit(features, labels)
    return LogisticRegression(C=strength, max_iter=MOST_ITERATIONS).fit(features, labels)


@dataclass
class BagOfWords:
    """What learn() gives."""

    task: Task
    features: SentenceCounts | PairCounts
    model: Any

    def predict(self, texts: Texts) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels [examples], and the probabilities behind them; None where numbers are predicted.

        Probabilities are [examples, classes], or [examples] where a task asks for one class.
        """
        legal = self.task.labels
        features = self.features.transform(texts)
        predictions = self.model.predict(features).clip(legal.low, legal.high)
        if not legal.whole:
            return predictions, None

        # Classes that train did not have are never met.
        probabilities = np.zeros((len(texts), int(legal.high - legal.low) + 1))
        places = (self.model.classes_ - legal.low).astype(int)
        probabilities[:, places] = self.model.predict_proba(features)
        return predictions, probabilities[:, 1] if self.task.outputs == 1 else probabilities


def learn(task: Task, texts: Texts, labels: np.ndarray, order: np.ndarray) -> BagOfWords:
    """Choose features and strength, and learn from all examples.

    `order` is a permutation of the examples: the first fifth of it is what is chosen by. No model
    learns its labels, but its words are counted too.
    """
    held, kept = np.split(order, [len(order) // 5])
    best_score = -np.inf
    for features in features_of(task):
        counted = features.fit(texts)
        for strength in C if task.labels.whole else ALPHA:
            # Without examples to choose by, the first is as good as any.
            score = 0.0
            if len(held):
                model = fitted(task, strength, counted[kept], labels[kept])
                found = BagOfWords(task, features, model).predict([texts[i] for i in held])
                score = task.metric(found[0], labels[held])
            if score > best_score:
                best_score = score
                best = features, strength, counted
    features, strength, counted = best
    return BagOfWords(task, features, fitted(task, strength, counted, labels))
