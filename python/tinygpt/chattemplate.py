"""How a conversation becomes tokens: four special tokens around plain text, and the same as a template of others."""

from collections.abc import Iterable, Mapping, Sequence

END = "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
"""The token that begins a message of each role."""

CHAT_TOKENS = (*ROLES.values(), END)
"""What a vocabulary needs for chats, beside the token that ends a document."""

# In the words of Jinja, which transformers and others render. Special tokens are written out by name, text is put in
# as it is, and a conversation that is over ends like any document.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role must be system, user or assistant') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
"""`chat_template` of tokenizer_config.json: what a model trained on chats has seen."""


def knows_chats(special_tokens: Mapping[str, int]) -> bool:
    """Whether a vocabulary has every special token of chats."""
    return all(name in special_tokens for name in CHAT_TOKENS)


def laid_out(messages: Iterable[tuple[str, Sequence[int]]], special_tokens: Mapping[str, int]) -> list[int]:
    """The ids of messages, given the role and the ids of the text of each: between the role's token and `END`.

    Example:
        >>> laid_out([("user", [5, 6])], {"<|user|>": 8, "<|end|>": 9})
        [8, 5, 6, 9]
    """
    return [i for role, ids in messages for i in (special_tokens[ROLES[role]], *ids, special_tokens[END])]


def end_ids(special_tokens: Mapping[str, int], eot_id: int | None) -> list[int]:
    """The ids at which generation stops: the end of a document and, where chats are known, that of a message.

    Example:
        >>> end_ids({"<|endoftext|>": 256}, 256)
        [256]
    """
    ends = [] if eot_id is None else [eot_id]
    return [*ends, special_tokens[END]] if knows_chats(special_tokens) else ends
