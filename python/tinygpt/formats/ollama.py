"""Ollama's `Modelfile`: which GGUF to take, how prompts are laid out, when to stop.

Source: ollama/ollama, `docs/modelfile.md`.
"""

from collections.abc import Sequence

_CHAT = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
_TEXT = "{{ .Prompt }}"


def modelfile(model: str, *, n_context: int, stops: Sequence[str], is_chat: bool) -> str:
    """The content of a Modelfile.

    Args:
        model: Name of the GGUF file beside it.
        n_context: The context in tokens.
        stops: Strings that end an answer.
        is_chat: Lay prompts out as chats; else they are continued as they are.

    Example:
        >>> print(modelfile("a.gguf", n_context=256, stops=["<|endoftext|>"], is_chat=False).splitlines()[1])
        TEMPLATE \"\"\"{{ .Prompt }}\"\"\"
    """
    return "\n".join(
        [
            f"FROM ./{model}",
            f'TEMPLATE """{_CHAT if is_chat else _TEXT}"""',
            f"PARAMETER num_ctx {n_context}",
            *(f'PARAMETER stop "{stop}"' for stop in stops),
            "",
        ]
    )
