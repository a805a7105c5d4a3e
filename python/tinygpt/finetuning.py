"""Fine-tuning: a trained model as the beginning of another run, its vocabulary grown where chats need it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chats import is_chats
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.lineage import same_fingerprint
from tinygpt.model import GPT
from tinygpt.modelconfig import GPTConfig
from tinygpt.positions import Sinusoidal
from tinygpt.preparation import Preparation
from tinygpt.tokenizer import Tokenizer

_FREE = ("block_size", "dropout")
_EFFECTIVE = {"n_kv_head": "n_kv", "d_ff": "d_inner"}  # what stands for a field that is none


def refuse_other_shape(name: str | Path, model: GPT, tokenizer: AnyTokenizer | None, given: Mapping[str, Any]) -> None:
    """Nothing, if the fields of a GPTConfig that the user gave are those of the model.

    Args:
        name: Where the model came from.
        model: The model.
        tokenizer: Its tokenizer; the vocabulary may be the one that it has with the special tokens of chats.
        given: Fields by name; context and dropout are not compared.

    Raises:
        ValueError: Some differ; the message lists each as "name: model's -> given".
    """
    n_ids = tokenizer.with_special_tokens(CHAT_TOKENS).vocab_size if isinstance(tokenizer, Tokenizer) else None
    free = (*_FREE, *(["vocab_size"] if n_ids is not None and given.get("vocab_size") == n_ids else []))
    found = {key: getattr(model.config, _EFFECTIVE.get(key, key)) for key in given if key not in free}
    wrong = [
        f"{key}: {value} -> {given[key]}"
        for key, value in found.items()
        if given[key] != value and not (key in _EFFECTIVE and given[key] is None)
    ]
    if wrong:
        raise ValueError(f"{name}: its model has other values ({'; '.join(wrong)}); leave those flags away")


def with_context(model: GPT, *, block_size: int, dropout: float) -> GPT:
    """The model with another context and dropout; its weights are not copied.

    Raises:
        ValueError: Learned positions, which know no other places than their own.
    """
    config = model.config
    if block_size != config.block_size and config.position == "learned":
        raise ValueError(
            f"block_size of this model is {config.block_size} and cannot become {block_size}: its positions are "
            "learned, a vector for each place; only rope and sinusoidal go on"
        )
    config, state = replace(config, block_size=block_size, dropout=dropout), model.state_dict()
    if config.position == "sinusoidal":
        state["position.weight"] = Sinusoidal(config).weight
    return _built(config, state)


def grown(model: GPT, *, n_known: int, n_ids: int) -> GPT:
    """The model with rows for the ids from `n_known` to `n_ids`, each the mean of the rows of the known ids.

    Rows that it has beyond its tokenizer's ids, as padding, are used first.

    Example:
        >>> model = GPT(GPTConfig(vocab_size=4, block_size=8, n_layer=1, n_head=1, d_model=8))
        >>> larger = grown(model, n_known=4, n_ids=6)
        >>> rows = larger.token_embedding.weight
        >>> rows.shape, torch.equal(rows[5], model.token_embedding.weight.mean(0))
        (torch.Size([6, 8]), True)

    Source: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models": the mean keeps what the
    model says of the old ids nearly as it was, where small random rows may swamp it.
    """
    config = replace(model.config, vocab_size=max(model.config.vocab_size, n_ids))
    state = model.state_dict()
    for name in ("token_embedding.weight", "head.weight"):
        if name not in state:
            continue
        old = state[name].detach()  # (V, C)
        new = old.new_empty(config.vocab_size, old.shape[1])  # (V', C)
        new[: len(old)] = old
        new[n_known:n_ids] = old[:n_known].mean(0)
        state[name] = new
    return _built(config, state)


def fit_to_data(
    name: str | Path, model: GPT, tokenizer: AnyTokenizer | None, *, fingerprint: str | None, vocab_size: int
) -> GPT:
    """The model, grown where the data's tokenizer is its own with the special tokens of chats added.

    Args:
        name: Where the model came from.
        model: The model.
        tokenizer: Its tokenizer; None when it has none, so that nothing can be compared.
        fingerprint: That of the data's tokenizer, or its first half; None when unknown.
        vocab_size: That of the data.

    Raises:
        ValueError: The data were made with another tokenizer.
    """
    if tokenizer is None or fingerprint is None or same_fingerprint(tokenizer.fingerprint, fingerprint):
        return model
    larger = tokenizer.with_special_tokens(CHAT_TOKENS) if isinstance(tokenizer, Tokenizer) else tokenizer
    if same_fingerprint(larger.fingerprint, fingerprint):
        return grown(model, n_known=tokenizer.vocab_size, n_ids=vocab_size)
    raise ValueError(
        f"tokenizer fingerprint {tokenizer.fingerprint[:6]}.. of {name} is not the data's {fingerprint[:6]}..; "
        f"prepare the text again with --tokenizer {name}"
    )


def with_tokenizer_of(base: Checkpoint, how: Preparation, raw: Sequence[Path]) -> Preparation:
    """The preparation of text for a model: with its tokenizer, to which chats add their special tokens.

    Args:
        base: The model. One without a tokenizer takes the one that `how` names for its own.
        how: How to prepare.
        raw: Text and chats.

    Raises:
        ValueError: No tokenizer is named and none lies beside the model, or the one that is named is not the model's.
    """
    if base.tokenizer is None and how.tokenizer is None and raw:
        raise ValueError(
            f"{base.folder}: no tokenizer beside the model; name the one that {raw[0]} is for: --tokenizer"
        )
    plain = replace(how, add_chat_tokens=False).named_tokenizer()
    how = replace(how, add_chat_tokens=how.add_chat_tokens or any(is_chats(path) for path in raw))
    named = how.named_tokenizer()
    if plain is None or named is None:
        return replace(how, tokenizer=base.folder if raw else None)
    n_ids = base.model.config.vocab_size
    if base.tokenizer is None:
        if plain.vocab_size > n_ids:
            found = f"{plain.vocab_size} ids, but the model in {base.folder} has {n_ids}"
            raise ValueError(f"--tokenizer {how.tokenizer}: {found}; name the tokenizer that it was trained with")
        base.tokenizer = plain
    if base.tokenizer.fingerprint not in (plain.fingerprint, named.fingerprint):
        raise ValueError(
            f"--tokenizer {how.tokenizer}: fingerprint {plain.fingerprint[:6]}.. is not that of the model's in "
            f"{base.folder}, {base.tokenizer.fingerprint[:6]}..; leave --tokenizer away"
        )
    return how


def _built(config: GPTConfig, state: Mapping[str, Any]) -> GPT:
    with torch.device("meta"):
        model = GPT(config)
    model.load_state_dict({name: tensor.detach() for name, tensor in state.items()}, assign=True)
    return model.train()
