"""A user's words in the form that a chat model was trained on: the template of the folder's `tokenizer_config.json`.

As Hugging Face renders it (transformers `utils/chat_template_utils.py`): Jinja in a sandbox, blocks trimmed, loop
controls allowed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import TokenizerError

Message = dict[str, str]
"""``role`` (system, user or assistant) and ``content``."""


def read_template(folder: Path) -> str | None:
    """The chat template of a model folder, None where it has none. Raises TokenizerError for a damaged file."""
    separate, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if separate.exists():
            return separate.read_text(encoding="utf-8")
        found = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{config}: cannot be read as JSON: {error}") from None
    template = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(template, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{config}: field chat_template: a text is needed, found {type(template).__name__}")
    return template


def render(folder: Path, template: str, messages: Sequence[Message]) -> str:
    """The text that a model continues with its answer. Raises TokenizerError where the template fails."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(
            messages=list(messages), add_generation_prompt=True, **_special_tokens(folder)
        )
    except TemplateError as error:
        raise TokenizerError(f"{folder}: field chat_template: cannot be rendered: {error}") from None


def _special_tokens(folder: Path) -> dict[str, Any]:
    """`bos_token` and the like, by name."""
    config = folder / "tokenizer_config.json"
    found = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    names = [key for key in found if key.endswith("_token")]
    texts = {key: value.get("content") if isinstance(value := found[key], dict) else value for key in names}
    return {key: text for key, text in texts.items() if isinstance(text, str)}
