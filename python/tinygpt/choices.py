"""Questions with several answers: which a model holds for the likeliest, by the protocol of lm-evaluation-harness."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.continuations import Likelihood, check_length, encode_pair, likelihoods
from tinygpt.intervals import Interval, share_interval

if TYPE_CHECKING:
    from tinygpt.model import GPT


@dataclass(frozen=True, kw_only=True)
class Question:
    """A context, what may follow it, and what does."""

    context: str
    """What the model reads; an empty one stands for the beginning of a document."""
    choices: tuple[str, ...]
    """What may follow, two at least."""
    label: int
    """Number of the choice that is right, from 0."""
    place: str = "question"
    """What a message calls it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model holds of a question's choices."""

    likelihoods: tuple[Likelihood, ...]
    """Of each choice."""
    best: int
    """The likeliest choice."""
    best_per_character: int
    """The choice with the highest log-likelihood divided by its characters."""
    best_per_byte: int
    """The same, divided by its bytes."""


@dataclass(frozen=True, kw_only=True)
class ChoicesEvaluation:
    """Shares of questions that were answered rightly."""

    n_questions: int
    """Questions asked."""
    accuracy: float
    """`acc` of the harness: the likeliest choice is right."""
    accuracy_per_character: float
    """`acc_norm` of the harness: the likeliest by log-likelihood over characters is right."""
    accuracy_per_byte: float
    """`acc_bytes` of the harness: the likeliest by log-likelihood over bytes is right."""
    chance: float
    """What guessing reaches."""
    accuracy_interval: Interval
    """95 % interval of the accuracy over questions."""
    accuracy_per_character_interval: Interval
    """The same of the accuracy by characters."""
    accuracy_per_byte_interval: Interval
    """The same of the accuracy by bytes."""
    answers: tuple[Answer, ...]
    """Of each question."""


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a file of JSON lines, each with `context`, `choices` and `label`.

    Raises:
        ValueError: A line is none; the message names file and line.
        OSError: The file cannot be read.
    """
    questions = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                questions.append(_question(line, f"{path}, line {number}"))
    if not questions:
        raise ValueError(f'{path}: no questions in it; a line holds {{"context": "", "choices": ["", ""], "label": 0}}')
    return questions


def evaluate_choices(
    model: "GPT",
    tokenizer: AnyTokenizer,
    questions: Sequence[Question],
    *,
    delimiter: str = " ",
    batch_size: int = 12,
    progress: Callable[[int, int | None], object] | None = None,
) -> ChoicesEvaluation:
    """Asks the model each question: every choice is scored as what follows the context.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        questions: At least one.
        delimiter: Stands between context and choice; `target_delimiter` of the harness.
        batch_size: Choices in a forward pass.
        progress: Told the choices done and the choices there are.

    Raises:
        ValueError: No questions, or a choice that cannot be scored; the message names the question.
    """
    if not questions:
        raise ValueError("questions must be at least one, got none")
    pairs = []
    for question in questions:
        for choice in question.choices:
            try:
                _, ids = encode_pair(tokenizer, question.context, delimiter + choice)
                check_length(delimiter + choice, ids, model.config.block_size)
            except ValueError as error:
                raise ValueError(f"{question.place}: {error}") from None
            pairs.append((question.context, delimiter + choice))
    found = likelihoods(model, tokenizer, pairs, batch_size=batch_size, progress=progress)
    answers, at = [], 0
    for question in questions:
        answers.append(_answer(question, found[at : at + len(question.choices)]))
        at += len(question.choices)
    rows = [(answer.best, answer.best_per_character, answer.best_per_byte) for answer in answers]
    labels = np.array([question.label for question in questions])  # (Q,)
    hits = np.array(rows) == labels[:, None]  # (Q, 3)
    shares = hits.mean(axis=0).tolist()
    intervals = [share_interval(int(column.sum()), len(hits)) for column in hits.T]
    return ChoicesEvaluation(
        n_questions=len(questions),
        accuracy=shares[0],
        accuracy_per_character=shares[1],
        accuracy_per_byte=shares[2],
        chance=float(np.mean([1 / len(question.choices) for question in questions])),
        accuracy_interval=intervals[0],
        accuracy_per_character_interval=intervals[1],
        accuracy_per_byte_interval=intervals[2],
        answers=tuple(answers),
    )


def _answer(question: Question, found: Sequence[Likelihood]) -> Answer:
    sums = np.array([each.log_likelihood for each in found])  # (choices,)
    characters = np.array([len(choice) for choice in question.choices])
    n_bytes = np.array([len(choice.encode()) for choice in question.choices])
    return Answer(
        likelihoods=tuple(found),
        best=int(np.argmax(sums)),
        best_per_character=int(np.argmax(sums / characters)),
        best_per_byte=int(np.argmax(sums / n_bytes)),
    )


def _question(line: bytes, place: str) -> Question:
    try:
        found: Any = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 text (byte {error.start} of the line); convert the file") from None
    except ValueError as error:
        raise ValueError(f"{place}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{place}: must be an object with context, choices and label, found {json.dumps(found):.40}")
    if missing := [name for name in ("context", "choices", "label") if name not in found]:
        raise ValueError(f"{place}: no {missing[0]} in the record; it must have context, choices and label")
    context, choices, label = found["context"], found["choices"], found["label"]
    if not isinstance(context, str):
        raise ValueError(f"{place}: context must be a text, found {json.dumps(context):.40}")
    is_list = isinstance(choices, list) and len(choices) > 1
    if not is_list or not all(isinstance(choice, str) and choice for choice in choices):
        raise ValueError(f"{place}: choices must be two or more texts, none empty, found {json.dumps(choices):.60}")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        wanted = f"the number of a choice, from 0 to {len(choices) - 1}"
        raise ValueError(f"{place}: label must be {wanted}, found {json.dumps(label):.40}")
    return Question(context=context, choices=tuple(choices), label=label, place=place)
