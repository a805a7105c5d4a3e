"""Questions with choices: by plain sums, and by lm-evaluation-harness itself where that is installed."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tinygpt.checkpoint import Checkpoint
from tinygpt.choices import Question, evaluate_choices, read_questions
from tinygpt.continuations import encode_pair
from tinygpt.model import GPT, GPTConfig
from tinygpt.slidingwindow import Window, score_windows
from tinygpt.tokenizer import Tokenizer

QUESTIONS = [
    {"context": "The cat sat on", "choices": ["the mat", "a very long answer indeed", "mät"], "label": 0},
    {"context": "A dog ", "choices": ["barks", "sings aloud"], "label": 1},
    {"context": "", "choices": ["Nothing", "Something else", "42"], "label": 2},
    {"context": "two\nlines", "choices": ["end", "go on\n\nand on"], "label": 1},
    {"context": "a long context that does not fit, " * 4, "choices": ["yes", "no no", "maybe"], "label": 2},
    {"context": "ab", "choices": ["cd", "cde", "cdef", "c"], "label": 3},
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    tokenizer = Tokenizer.train([json.dumps(QUESTIONS)] * 2, vocab_size=300)
    torch.manual_seed(3)
    model = GPT(GPTConfig(vocab_size=300, block_size=24, n_layer=2, n_head=2, d_model=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return Checkpoint(model.eval(), tokenizer)


def asked() -> list[Question]:
    return [Question(context=q["context"], choices=tuple(q["choices"]), label=q["label"]) for q in QUESTIONS]  # type: ignore[arg-type]


def test_choices_are_ranked_by_the_sum_over_their_tokens(checkpoint: Checkpoint) -> None:
    found = evaluate_choices(checkpoint.model, checkpoint.tokenizer, asked(), batch_size=2)  # type: ignore[arg-type]
    for question, answer in zip(asked(), found.answers, strict=True):
        sums = []
        for choice in question.choices:
            before, after = encode_pair(checkpoint.tokenizer, question.context, " " + choice)  # type: ignore[arg-type]
            ids = [*before, *after]
            logs = []
            for place in range(len(before), len(ids)):
                with torch.no_grad():
                    logits = checkpoint.model(torch.tensor([ids[-25:-1]]))[0].log_softmax(-1)
                logs.append(logits[place - len(ids)][ids[place]].item())
            sums.append(sum(logs))
        assert [each.log_likelihood for each in answer.likelihoods] == pytest.approx(sums, abs=1e-4)
        lengths = np.array([len(choice) for choice in question.choices])
        n_bytes = np.array([len(choice.encode()) for choice in question.choices])
        wanted = [int(np.argmax(np.array(sums) / n)) for n in (np.ones(len(sums)), lengths, n_bytes)]
        assert [answer.best, answer.best_per_character, answer.best_per_byte] == wanted
    rights = [answer.best == question.label for question, answer in zip(asked(), found.answers, strict=True)]
    assert (found.accuracy, found.n_questions) == (sum(rights) / 6, 6)
    assert found.chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 3 + 1 / 2 + 1 / 3 + 1 / 4) / 6)


def test_greedy_is_what_the_model_writes(checkpoint: Checkpoint) -> None:
    ids = [65, 66, 67]
    written = list(checkpoint.model.generate(ids, max_new_tokens=9, temperature=0))
    windows = [Window(ids=np.array([*ids, *row]), n_scored=9) for row in (written, [*written[:-1], 68])]
    found = [bool(hits.all()) for _, (_, hits) in score_windows(checkpoint.model, windows)]
    assert (found, written[-1] != 68) == ([True, False], True)


def test_white_space_before_the_choice_belongs_to_it(checkpoint: Checkpoint) -> None:
    assert checkpoint.tokenizer is not None
    before, after = encode_pair(checkpoint.tokenizer, "A dog  ", " barks")
    assert checkpoint.tokenizer.decode(before) == "A dog"
    assert checkpoint.tokenizer.decode(after) == "   barks"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: must be an object with context, choices and label, found [1]"),
        ('{"context": "a", "choices": ["b", "c"]}', "line 2: no label in the record; it must have context, choices"),
        ('{"context": 1, "choices": ["b", "c"], "label": 0}', "line 2: context must be a text, found 1"),
        (
            '{"context": "a", "choices": ["b"], "label": 0}',
            'choices must be two or more texts, none empty, found ["b"]',
        ),
        ('{"context": "a", "choices": ["b", ""], "label": 0}', "choices must be two or more texts, none empty"),
        ('{"context": "a", "choices": ["b", "c"], "label": 2}', "the number of a choice, from 0 to 1, found 2"),
        ('{"context": "a", "choices": ["b", "c"], "label": true}', "the number of a choice, from 0 to 1, found true"),
        ('{"context": "a", "choices": ["b", "c"], "label": "b"}', 'the number of a choice, from 0 to 1, found "b"'),
    ],
)
def test_bad_lines_are_named_with_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(QUESTIONS[0])}\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_questions(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="none.jsonl: no questions in it; a line holds"):
        read_questions(tmp_path / "none.jsonl")


def test_a_choice_that_does_not_fit_is_named(checkpoint: Checkpoint) -> None:
    assert checkpoint.tokenizer is not None
    question = Question(context="a", choices=("b", "qz " * 40), label=0, place="q.jsonl, line 7")
    with pytest.raises(
        ValueError, match="has 121 tokens and the model's context 24, which has to hold all that is scored; shorten it"
    ):
        evaluate_choices(checkpoint.model, checkpoint.tokenizer, [question])


TASK = """
task: ours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
"""


def test_the_harness_itself_finds_the_same(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """lm-evaluation-harness on the folder of the model: `pip install "tinygpt[harness]"`, then run this file."""
    lm_eval = pytest.importorskip("lm_eval", reason='lm_eval is not installed: pip install "tinygpt[harness]"')
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    checkpoint.save(tmp_path / "model")
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "ours.yaml").write_text(TASK.format(data=tmp_path / "questions.jsonl"), encoding="utf-8")
    model = HFLM(pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=2)
    assert model.max_length == 24
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    theirs: Any = lm_eval.simple_evaluate(
        model, tasks=["ours"], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    ours = evaluate_choices(checkpoint.model, checkpoint.tokenizer, read_questions(tmp_path / "questions.jsonl"))  # type: ignore[arg-type]
    figures = theirs["results"]["ours"]
    assert figures["acc,none"] == ours.accuracy
    assert figures["acc_norm,none"] == ours.accuracy_per_character
    assert figures["acc_bytes,none"] == ours.accuracy_per_byte
    samples = sorted(theirs["samples"]["ours"], key=lambda sample: sample["doc_id"])
    for sample, answer in zip(samples, ours.answers, strict=True):
        wanted = [(float(likelihood), bool(greedy)) for likelihood, greedy in sample["filtered_resps"]]
        assert [each.log_likelihood for each in answer.likelihoods] == pytest.approx([w for w, _ in wanted], abs=1e-3)
        assert [each.is_greedy for each in answer.likelihoods] == [greedy for _, greedy in wanted]


def test_the_harness_finds_the_same_of_whole_documents(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Its rolling log-likelihood is that of documents apart, without separators, in windows side by side.

    The last window of a longer text it moves to the left, so that it is as long as the others: none is shorter here.
    """
    pytest.importorskip("lm_eval", reason='lm_eval is not installed: pip install "tinygpt[harness]"')
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tinygpt.evaluation import evaluate_documents
    from tinygpt.heldout import open_held_out

    checkpoint.save(tmp_path / "model")
    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None
    texts = [tokenizer.decode(tokenizer.encode("A dog barks at the cat. " * 9)[:48]), "so", "The cat sat on the mat?"]
    assert [len(tokenizer.encode(text)) % 24 == 0 or len(tokenizer.encode(text)) < 24 for text in texts] == [True] * 3
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    model = HFLM(pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=1)
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    theirs = model.loglikelihood_rolling(requests)
    with open_held_out([tmp_path / f"{i}.txt" for i in range(3)], tokenizer) as held_out:
        ours = evaluate_documents(checkpoint.model, held_out, apart=True, count_separators=False)
    assert (-ours.nats).tolist() == pytest.approx(theirs, abs=1e-3)
