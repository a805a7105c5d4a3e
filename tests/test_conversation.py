"""Conversation: a chat line by line, with a model that says whatever it says."""

from typing import Any

import pytest
import torch
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.conversation import Conversation
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer


def checkpoint(*, block_size: int = 64) -> Checkpoint:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=["<|endoftext|>", *CHAT_TOKENS])
    model = GPT(
        GPTConfig(vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=1, n_head=2, d_model=16)
    ).eval()
    return Checkpoint(model, tokenizer)


def talk(*lines: str, of: Checkpoint | None = None, **options: Any) -> str:
    written: list[str] = []
    settings = {"max_new_tokens": 8, "seed": 3, **options}
    Conversation(of or checkpoint(), written.append, **settings).run(lines)
    return "".join(written)


def test_the_answer_is_what_generate_gives() -> None:
    wanted = checkpoint().generate("hello", chat=True, max_new_tokens=8, seed=3)
    assert talk("hello\n") == wanted + "\n"


def test_an_answer_continues_what_was_said() -> None:
    model = checkpoint()
    assert model.tokenizer is not None
    first = talk("one", of=model)
    said = [("user", "one"), ("assistant", first[:-1]), ("user", "two")]
    ids = model.model.generate(
        model.chat_ids(said),
        max_new_tokens=8,
        seed=4,
        stop=model.end_ids,
        n_ids=model.tokenizer.vocab_size,
        dtype="auto",
    )
    wanted = model.tokenizer.decode(list(ids))
    assert talk("one", "two", of=model) == first + wanted + "\n"


def test_reset_forgets_and_retry_answers_again() -> None:
    one = talk("one")
    assert talk("other", "/reset", "/set seed 3", "one").endswith(f"(seed is 3)\n{one}")
    assert talk("one", "/set seed 3", "/retry") == f"{one}(seed is 3)\n{one}"


def test_settings_change_and_what_is_out_of_range_does_not() -> None:
    found = talk("/set temperature 0", "/set top-k many", "/set temperature -1", "/set colour red", "/settings")
    assert "(temperature is 0.0)\ntop_k must be a whole number, got 'many'\ntemperature must be 0" in found
    assert "the names are temperature, top_k" in found
    assert "\ntemperature 0.0\n" in found
    assert talk("/set max_new_tokens 0", "/set seed none", "/nonsense", "/retry").count("\n") == 4
    assert talk(f"/set seed {2**64}", "one") == f"seed must be from 0 to {2**64 - 1}, got {2**64}\n{talk('one')}"


def test_the_systems_message_stands_before_all() -> None:
    wanted = checkpoint().generate("hello", chat=True, system="be brief", max_new_tokens=8, seed=3)
    assert talk("/system be brief", "hello").endswith(wanted + "\n")


@pytest.mark.filterwarnings("error")  # a prompt that is cropped, not shortened, is warned of
def test_a_long_talk_forgets_its_oldest_exchange_and_never_the_systems_message() -> None:
    model = checkpoint()
    assert model.tokenizer is not None
    line = "word " * 5
    first, second = talk(line, of=model, system="be kind"), talk(line, "/set seed 4", line, of=model, system="be kind")
    # Two lines of 25 letters, an answer of 8, the system's message and their marks are more than 64 less 8.
    ids = model.model.generate(
        model.chat_ids([("system", "be kind"), ("user", line)]),
        max_new_tokens=8,
        seed=4,
        stop=model.end_ids,
        n_ids=model.tokenizer.vocab_size,
        dtype="auto",
    )
    assert second == f"{first}(seed is 4)\n{model.tokenizer.decode(list(ids))}\n"


def test_ctrl_c_stops_the_answer_alone() -> None:
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 2:
            raise KeyboardInterrupt

    Conversation(checkpoint(), write, max_new_tokens=8, seed=3).run(["one", "/settings"])
    assert " (stopped)" in written
    assert "temperature 1.0" in "".join(written)


def test_quit_ends_it() -> None:
    assert talk("/quit", "hello") == ""


def plain(*, block_size: int = 64) -> Checkpoint:
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=["<|endoftext|>"])
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=1, n_head=2, d_model=16)
    return Checkpoint(GPT(shape).eval(), tokenizer)


def test_a_model_of_plain_text_goes_on_with_what_is_said() -> None:
    one = plain().generate("Once", max_new_tokens=8, seed=3)
    assert talk("Once\n", of=plain()) == one + "\n"
    begins_line = "" if one.endswith("\n") else "\n"
    two = plain().generate(f"Once{one}{begins_line}upon", max_new_tokens=8, seed=4)
    assert talk("Once", "upon", of=plain()) == f"{one}\n{two}\n"


def test_an_empty_line_lets_a_text_go_on() -> None:
    one = plain().generate("Once", max_new_tokens=8, seed=3)
    two = plain().generate(f"Once{one}", max_new_tokens=8, seed=4)
    assert talk("Once", "", of=plain()) == f"{one}\n{two}\n"
    assert talk("", of=plain()) == plain().generate("", max_new_tokens=8, seed=3) + "\n"
    assert talk("", of=checkpoint()) == ""


@pytest.mark.filterwarnings("error")
def test_a_long_text_keeps_its_end() -> None:
    found = talk("word " * 40, of=plain())
    assert found == plain().generate(("word " * 40)[-56:], max_new_tokens=8, seed=3) + "\n"


def test_a_model_of_plain_text_has_no_message_of_the_system() -> None:
    assert "trained on plain text" in talk("/system be kind", of=plain())
    with pytest.raises(ValueError, match="trained on plain text"):
        Conversation(plain(), print, system="be kind")
