"""Token streams on disk and random windows out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from firmware.train.textfiles import SEPARATOR, read_documents
from firmware.train.tokenizer import END_ID


class Stream:
    """The tokens of one corpus part, documents ended by END_ID, with the index of each document's start."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        documents = [document + SEPARATOR for document in read_documents(path)]
        encoded = tokenizer.encode_batch(documents)
        self.ids = np.concatenate([np.asarray(one.ids, dtype=np.int16) for one in encoded])
        self.starts = np.flatnonzero(np.concatenate([[True], self.ids[:-1] == END_ID]))
        self.characters = sum(map(len, documents))

    def window(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """`length` + 1 consecutive ids [length + 1]; every other window starts where a document does.

        A prompt starts where a document does, so position 0 has to see document starts often.
        """
        last = len(self.ids) - length - 1
        if rng.random() < 0.5:
            start = int(self.starts[rng.integers(np.searchsorted(self.starts, last, side="right"))])
        else:
            start = int(rng.integers(last + 1))
        return self.ids[start : start + length + 1]


def batch(streams: list[tuple[float, Stream]], rows: int, length: int, rng: np.random.Generator) -> Tensor:
    """Ids [rows, length + 1] int64; each row from a stream chosen with its share."""
    shares = np.array([share for share, _ in streams])
    picks = rng.choice(len(streams), size=rows, p=shares / shares.sum())
    drawn = np.stack([streams[pick][1].window(length, rng) for pick in picks])
    return torch.from_numpy(drawn.astype(np.int64))
