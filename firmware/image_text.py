"""The tokenizer that an image carries: text without the model's folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from .image_file import Image
from .tokenizer import Tokenizer


def image_tokenizer(image: Image) -> Tokenizer:
    """The tokenizer of an image's model; one that knows ids only where the image has none.

    Raises ImageError for an image without a model.
    """
    begin = image.meta.get("begin")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if image.tokenizer is not None:
            (folder / "tokenizer.json").write_bytes(image.tokenizer)
        (folder / "config.json").write_text(json.dumps({"eos_token_id": list(image.stop_ids), "bos_token_id": begin}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": begin is not None}))
        tokenizer = Tokenizer(folder, image.vocab)
    tokenizer.path = Path(image.label)  # what messages name
    return tokenizer
