"""The baseline that the built-in corpus must defeat: linear models on word counts.

They know no word order. `bag_of_words_scores(folder)` learns on the train files and scores the dev
files. Vocabulary (words, or words and pairs of neighbours), weighting and regularisation are chosen
by five-fold cross-validation on train: a fair baseline.
"""

import csv
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, hstack, spmatrix
from scipy.stats import pearsonr
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler


def rows(path: Path) -> list[dict[str, str]]:
    """The file's rows by column name."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


class PairCounts:
    """What two sentences share and what they do not, as one sparse row a pair.

    Words in both, words in one only, and how much the sentences overlap in all.
    """

    def __init__(self, neighbours: int) -> None:
        self.counts = CountVectorizer(
            ngram_range=(1, neighbours), token_pattern=r"\b\w+\b", binary=True
        )

    def fit(self, pairs: list[tuple[str, str]]) -> "PairCounts":
        """Learn the vocabulary of both sides."""
        self.counts.fit([sentence for pair in pairs for sentence in pair])
        return self

    def transform(self, pairs: list[tuple[str, str]]) -> spmatrix:
        """[pairs, features]."""
        # Which words each sentence has, [pairs, words] of 0 and 1.
        first = self.counts.transform([one for one, _ in pairs])
        second = self.counts.transform([two for _, two in pairs])
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


def sentence_score(train: list[dict[str, str]], dev: list[dict[str, str]]) -> float:
    """Dev accuracy of logistic regression on the counts of one sentence."""
    counts = [
        CountVectorizer(),
        CountVectorizer(ngram_range=(1, 2)),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
    ]
    pipeline = Pipeline([("counts", counts[0]), ("model", LogisticRegression(max_iter=2000))])
    grid = {"counts": counts, "counts__token_pattern": [r"\b\w+\b"], "model__C": [0.1, 1, 10]}
    search = GridSearchCV(pipeline, grid, cv=5)
    search.fit([row["sentence"] for row in train], [row["sentiment"] for row in train])
    return float(search.score([row["sentence"] for row in dev], [row["sentiment"] for row in dev]))


def sentences(split: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The two sentences of each row."""
    return [(row["sentence1"], row["sentence2"]) for row in split]


def numbers(split: list[dict[str, str]], label: str) -> np.ndarray:
    """The label of each row."""
    return np.array([float(row[label]) for row in split])


def pair_predictions(
    train: list[dict[str, str]], dev: list[dict[str, str]], label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Dev predictions of a linear model on pair counts, and the labels."""
    if label == "is_duplicate":
        model = LogisticRegression(max_iter=2000)
        grid = {"model__C": [0.03, 0.3, 3]}
    else:
        model = Ridge()
        grid = {"model__alpha": [0.3, 3, 30]}
    pipeline = Pipeline([("scale", MaxAbsScaler()), ("model", model)])

    best = np.zeros(len(dev))
    best_score = -np.inf
    for neighbours in (1, 2):
        features = PairCounts(neighbours).fit(sentences(train))
        search = GridSearchCV(pipeline, grid, cv=5)
        search.fit(features.transform(sentences(train)), numbers(train, label))
        if search.best_score_ > best_score:
            best_score = search.best_score_
            best = search.predict(features.transform(sentences(dev)))
    return best, numbers(dev, label)


def bag_of_words_scores(folder: Path) -> dict[str, float]:
    """Dev scores: sst and para accuracy, sts Pearson, and overall as the leaderboard counts it."""
    files = {}
    for name in ("ids-sst", "quora", "sts"):
        files[name] = (rows(folder / f"{name}-train.csv"), rows(folder / f"{name}-dev.csv"))
    sst = sentence_score(*files["ids-sst"])
    guess, duplicate = pair_predictions(*files["quora"], "is_duplicate")
    para = float((guess == duplicate).mean())
    sts = float(pearsonr(*pair_predictions(*files["sts"], "similarity")).statistic)
    return {"sst": sst, "para": para, "sts": sts, "overall": (sst + para + (sts + 1) / 2) / 3}
