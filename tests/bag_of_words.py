"""The baseline that the built-in corpus must defeat: linear models on word counts, which know no
word order.

`bag_of_words_scores(folder)` learns on the train files and scores the dev files. Vocabulary (words,
or words and pairs of neighbours), weighting and regularisation are chosen by five-fold
cross-validation on train: a fair baseline.
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
    """Words shared, words in one sentence only, words in either, and the overlap ratios, as one
    sparse row a pair.
    """

    def __init__(self, neighbours: int) -> None:
        self.counts = CountVectorizer(
            ngram_range=(1, neighbours), token_pattern=r"\b\w+\b", binary=True
        )

    def fit(self, pairs: list[tuple[str, str]], labels: object = None) -> "PairCounts":
        self.counts.fit([sentence for pair in pairs for sentence in pair])
        return self

    def transform(self, pairs: list[tuple[str, str]]) -> spmatrix:
        first, second = (self.counts.transform([pair[side] for pair in pairs]) for side in (0, 1))
        shared, single = first.multiply(second), abs(first - second)
        common, union = shared.sum(1), (shared + single).sum(1)
        length = np.abs(first.sum(1) - second.sum(1))
        shorter = np.minimum(first.sum(1), second.sum(1))
        ratios = [
            common / np.maximum(union, 1),
            common / np.maximum(shorter, 1),
            length / np.maximum(union, 1),
        ]
        ratios += [single.sum(1) / 10, (single.sum(1) == 0) * 1.0]
        return hstack([shared, single, csr_matrix(np.asarray(np.hstack(ratios)))]).tocsr()


def sentence_score(train: list[dict[str, str]], dev: list[dict[str, str]]) -> float:
    """Dev accuracy of logistic regression on the counts of one sentence."""
    counts = [
        CountVectorizer(),
        CountVectorizer(ngram_range=(1, 2)),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
    ]
    search = GridSearchCV(
        Pipeline([("counts", counts[0]), ("model", LogisticRegression(max_iter=2000))]),
        {"counts": counts, "counts__token_pattern": [r"\b\w+\b"], "model__C": [0.1, 1, 10]},
        cv=5,
    )
    search.fit([row["sentence"] for row in train], [row["sentiment"] for row in train])
    return float(search.score([row["sentence"] for row in dev], [row["sentiment"] for row in dev]))


def pair_predictions(
    train: list[dict[str, str]], dev: list[dict[str, str]], label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Dev predictions of a linear model on pair counts, and the labels."""
    texts = [[(row["sentence1"], row["sentence2"]) for row in split] for split in (train, dev)]
    targets = [np.array([float(row[label]) for row in split]) for split in (train, dev)]
    binary = label == "is_duplicate"
    model, grid = (
        (LogisticRegression(max_iter=2000), {"model__C": [0.03, 0.3, 3]})
        if binary
        else (Ridge(), {"model__alpha": [0.3, 3, 30]})
    )
    best, score = np.zeros(len(dev)), -np.inf
    for neighbours in (1, 2):
        features = PairCounts(neighbours).fit(texts[0])
        inner = GridSearchCV(
            Pipeline([("scale", MaxAbsScaler()), ("model", model)]), grid, cv=5
        ).fit(features.transform(texts[0]), targets[0])
        if inner.best_score_ > score:
            best, score = inner.predict(features.transform(texts[1])), inner.best_score_
    return best, targets[1]


def bag_of_words_scores(folder: Path) -> dict[str, float]:
    """Dev scores: sst and para accuracy, sts Pearson, and overall as the leaderboard counts it."""
    files = {
        name: (rows(folder / f"{name}-train.csv"), rows(folder / f"{name}-dev.csv"))
        for name in ("ids-sst", "quora", "sts")
    }
    sst = sentence_score(*files["ids-sst"])
    guess, duplicate = pair_predictions(*files["quora"], "is_duplicate")
    para = float((guess == duplicate).mean())
    sts = float(pearsonr(*pair_predictions(*files["sts"], "similarity")).statistic)
    return {"sst": sst, "para": para, "sts": sts, "overall": (sst + para + (sts + 1) / 2) / 3}
