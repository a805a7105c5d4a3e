"""What a plan says to a person: the text, a table of the choices, the command of the recommended one."""

from collections.abc import Iterator

from tinygpt.forecast import count, duration
from tinygpt.runchoice import Choice, Plan

_HEADING: tuple[str, ...] = (
    "",
    "parameters",
    "vocabulary",
    "layers",
    "heads",
    "width",
    "context",
    "batch",
    "rate",
    "tokens",
    "epochs",
)
_HEADING += ("type", "time", "memory", "bits/byte")


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, line by line."""
    text = plan.text
    sizes = ", ".join(f"{size:,} ids {n:.2f}" for size, n in text.bytes_per_token.items())
    yield f"{text.name}: {text.kind}, {count(text.n_bytes)}B, {text.n_documents:,} documents; bytes a token: {sizes}"
    room = "" if plan.ram_bytes is None else f" and {count(plan.ram_bytes)}B"
    yield f"for {duration(plan.seconds)}{room}:"
    yield ""
    rows = [_HEADING, *(_cells(choice, is_best=choice is plan.best) for choice in plan.choices)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADING))]
    for row in rows:
        yield "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield from plan.notes
    yield f"recommended: {plan.best.command}"


def _cells(choice: Choice, *, is_best: bool) -> tuple[str, ...]:
    shape, config = choice.shape, choice.config
    batch = str(config.batch_size) + (f" x {config.grad_accum}" if config.grad_accum > 1 else "")
    return (
        *("*" if is_best else "", count(choice.n_parameters), f"{shape.vocab_size:,}", str(shape.n_layer)),
        *(str(shape.n_head), str(shape.d_model), str(shape.block_size), batch, f"{config.learning_rate:g}"),
        *(count(choice.n_tokens), f"{choice.epochs:.2g}", choice.dtype, duration(choice.seconds)),
        *(f"{count(choice.memory_bytes)}B", f"{choice.bits_per_byte:.2f}"),
    )
