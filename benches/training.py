"""Training against nanoGPT and transformers, row by row: `tinygpt.train` as a user runs it beside the loops of others.

42 million parameters (vocabulary 32,000, 8 layers, 8 heads, width 512, 256 tokens), 252 windows a step in micro-batches
of 12, two threads, random tokens. The seconds are those of one micro-batch with its share of the optimiser step: ours
over whole steps, from the run's own metrics.jsonl; the peers' as `peerside` says. All run in turn, each in a process.
Ours trains by its defaults, so by Muon, which takes more products a step than the peers' AdamW and one moment less of
the blocks' matrices; what it does with AdamW is told besides.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.race import Run, Side, race
from benches.shape import STANDARD, Shape, write_tokens
from benches.table import Row, cells, machine, report

OURS, OURS_FLOAT32, OURS_ADAMW, PRODUCTS = "tinygpt", "tinygpt float32", "tinygpt AdamW", "products alone"
FIRST_STEP = {"on": "tinygpt first step, compiled", "off": "tinygpt first step"}
NANOGPT, NANOGPT_COMPILED = "nanoGPT float32", "nanoGPT float32 compiled"
TUNED = "bfloat16 compiled, mallopt, fused AdamW"
SHIPPED = "bfloat16 compiled"
PEERS = {"gelu": ("nanoGPT", "GPT-2"), "swiglu": ("Llama",)}
"""Who trains a model with that feed-forward; nanoGPT stands beside swiglu, too, in the rows that name it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of the suite to run, and against whom."""

    rounds: int = 3
    rows: tuple[str, ...] = ("S1", "S2", "S3", "S4", "S5", "S6")
    peers: str = sys.executable
    """The Python that has torch and transformers."""
    nanogpt: Path | None = None
    """The folder that holds nanoGPT's model.py; without it the rows that name nanoGPT are left out."""
    mlp: str = "gelu"
    shapes: dict[str, Shape] | None = None
    """Other shapes than the standard ones, for each kind of feed-forward."""

    def shape(self, mlp: str) -> Shape:
        return (self.shapes or STANDARD)[mlp]


@dataclass(frozen=True, kw_only=True)
class Bout:
    """What was measured, for the rows to compare."""

    choice: Choice
    runs: dict[str, Run]
    announced_mb: float | None
    """Peak memory that the engine of the last run foretold."""
    has_amx: bool

    def row(self, id: str, task: str, ours: str, peer: str | None, target: float, **more: object) -> Iterator[Row]:
        """The row, if both sides ran."""
        if ours not in self.runs or (peer is not None and peer not in self.runs):
            return
        run, other = self.runs[ours], None if peer is None else self.runs[peer]
        amount = self.choice.shape(self.choice.mlp).tokens
        yield Row(id=id, task=task, ours=run, peer=other, amount=amount, unit="tokens", target=target, **more)  # type: ignore[arg-type]

    def fastest(self, how: str) -> str:
        """The fastest of the peers that trained that way; a name of none where there is none."""
        names = [name for name in self.runs if name.endswith(f" {how}") and not name.startswith("tinygpt")]
        return min(names, key=lambda name: self.runs[name].seconds, default="")


def s1(bout: Bout) -> Iterator[Row]:
    """As a user runs it, against nanoGPT's default on a CPU."""
    yield from bout.row("S1", "train, dtype auto", OURS, NANOGPT, 4.5)


def s2(bout: Bout) -> Iterator[Row]:
    """The same against the best peer, as shipped and with what it lacks added."""
    yield from bout.row("S2", "train, dtype auto, best as shipped", OURS, bout.fastest(SHIPPED), 1.4)
    goal = 1.25 if bout.has_amx else 1.15
    yield from bout.row("S2", "train, dtype auto, best when tuned", OURS, bout.fastest(TUNED), goal)


def s3(bout: Bout) -> Iterator[Row]:
    """float32 for float32."""
    goal = 1.15 if bout.has_amx else 2.4
    yield from bout.row("S3", "train, float32", OURS_FLOAT32, NANOGPT_COMPILED, goal)


def s4(bout: Bout) -> Iterator[Row]:
    """Peak memory, against two ways of nanoGPT and against what the engine foretold."""
    kind = "times the memory"
    yield from bout.row("S4", "peak memory", OURS, NANOGPT, 0.65, kind=kind)
    yield from bout.row("S4", "peak memory", OURS, f"nanoGPT {SHIPPED}", 0.85, kind=kind)
    if bout.announced_mb is not None and OURS in bout.runs:
        value = bout.runs[OURS].rss_mb / bout.announced_mb
        yield from bout.row(
            "S4", f"peak memory, {bout.announced_mb:.0f} MB foretold", OURS, None, 1.1, kind=kind, value=value
        )


def s5(bout: Bout) -> Iterator[Row]:
    """From the start of the process to the first step of one window, when the command has run before."""
    for compiled, goal in (("on", 10.0), ("off", 3.0)):
        name = FIRST_STEP[compiled]
        if name in bout.runs:
            yield Row(
                id="S5", task=f"first step, compile {compiled}", ours=bout.runs[name], target=goal, kind="seconds"
            )


def s6(bout: Bout) -> Iterator[Row]:
    """Share of a step that the matrix products alone would take: of their measured peak."""
    if OURS in bout.runs and PRODUCTS in bout.runs:
        share = bout.runs[PRODUCTS].seconds / bout.runs[OURS].seconds
        goal = 0.45 if bout.has_amx else 0.70
        yield from bout.row(
            "S6", "share of the products' peak", OURS, PRODUCTS, goal, kind="share at least", value=share
        )


def main(choice: Choice) -> None:
    """Runs the rows and writes `benches/results/training.json`."""
    is_whole = set(choice.rows) == set(ROWS) and choice.nanogpt is not None and choice.shapes is None
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as name:
        folder = Path(name)
        sides = _sides(choice, folder)
        found = {run.name: run for run in race("training", sides, rounds=choice.rounds, check=False)}
        announced = _announced_mb(folder / "tinygpt")
    for run in found.values():
        _check_parameters(choice, run)
    has_amx = "amx" in str(machine(sys.executable)["processor"])
    bout = Bout(choice=choice, runs=found, announced_mb=announced, has_amx=has_amx)
    rows = [row for id in choice.rows for row in ROWS[id](bout)]
    for row in rows:
        print("  ".join(filter(None, cells(row))), flush=True)
    tokens = choice.shape(choice.mlp).tokens
    trained = {name: run for name, run in found.items() if name not in (*FIRST_STEP.values(), PRODUCTS)}
    notes = [f"{name}: {tokens / run.seconds:,.0f} tokens/s, {run.rss_mb:.0f} MB" for name, run in trained.items()]
    if PRODUCTS in found:
        speed = float(str(found[PRODUCTS].answer)) / found[PRODUCTS].seconds
        notes.append(f"{PRODUCTS}: {speed / 1e9:,.0f} GFLOP/s")
    missing = sorted(set(choice.rows) - {row.id for row in rows})
    notes += [f"no row of {', '.join(missing)}: nanoGPT is not here (--nanogpt FOLDER)"] if missing else []
    notes += ["S4 lacks a line: the engine foretold no memory"] if announced is None and "S4" in choice.rows else []
    report(
        "training" if is_whole else "training-part",
        [*rows],
        python=choice.peers,
        notes=[f"feed-forward {choice.mlp}, {choice.rounds} rounds", *notes],
    )


def _sides(choice: Choice, folder: Path) -> list[Side]:
    """The sides that the rows compare, each once."""
    wanted = dict.fromkeys(name for id in choice.rows for name in NEEDS[id](choice.mlp))
    shapes = {mlp: choice.shape(mlp) for mlp in PEERS}
    shard = write_tokens(folder / "data", shapes[choice.mlp].vocab_size)
    makers = {**_our_sides(shapes[choice.mlp], shard, folder), **_peer_sides(choice, shapes, shard)}
    return [makers[name] for name in wanted if name in makers]


def _our_sides(shape: Shape, shard: Path, folder: Path) -> dict[str, Side]:
    def side(name: str, call: str, flags: list[str]) -> Side:
        place = str(folder / name.replace(" ", "-").replace(",", ""))
        code = "from benches import ourside\nfrom benches.shape import Shape\n"
        return Side(
            name=name, code=f"{code}took, answer = ourside.{call}({shape!r}, {str(shard)!r}, {place!r}, {flags})"
        )

    code = f"from benches.products import products\nfrom benches.shape import Shape\ntook, answer = products({shape!r})"
    sides = [
        side(OURS, "steps", ["--dtype", "auto"]),
        side(OURS_FLOAT32, "steps", ["--dtype", "float32"]),
        side(OURS_ADAMW, "steps", ["--dtype", "auto", "--optimizer", "adamw"]),
        *(side(name, "first_step", ["--compile", compiled]) for compiled, name in FIRST_STEP.items()),
        Side(name=PRODUCTS, code=code),
    ]
    return {side.name: side for side in sides}


def _peer_sides(choice: Choice, shapes: dict[str, Shape], shard: Path) -> dict[str, Side]:
    def side(peer: str, how: str) -> Side:
        shape = shapes["swiglu" if peer == "Llama" else "gelu"]
        options = {
            "dtype": how.split()[0],
            "is_compiled": "compiled" in how,
            "is_tuned": how == TUNED,
            "nanogpt": None if choice.nanogpt is None else str(choice.nanogpt.resolve()),
        }
        code = "from benches.peerside import train\nfrom benches.shape import Shape\n"
        code += f"took, answer = train({peer!r}, {shape!r}, {str(shard)!r}, **{options!r})"
        return Side(name=f"{peer} {how}", code=code, python=choice.peers)

    ways = {
        "nanoGPT": ("float32", "float32 compiled", SHIPPED, TUNED),
        "GPT-2": (SHIPPED, TUNED),
        "Llama": (SHIPPED, TUNED),
    }
    sides = [side(peer, how) for peer, all in ways.items() for how in all if peer != "nanoGPT" or choice.nanogpt]
    return {side.name: side for side in sides}


def _announced_mb(run: Path) -> float | None:
    from benches.ourside import engine

    memory = engine(run).get("memory_bytes") if (run / "last").exists() else None
    return None if memory is None else memory / 1e6


def _check_parameters(choice: Choice, run: Run) -> None:
    """Raises AssertionError where a side has trained another model than it should."""
    if run.name == PRODUCTS:
        return
    mlp = choice.mlp if run.name.startswith("tinygpt") else "swiglu" if run.name.startswith("Llama") else "gelu"
    wanted = choice.shape(mlp).n_parameters(has_biases=run.name.startswith("GPT-2"))
    assert run.answer == wanted, f"{run.name} has {run.answer} parameters instead of {wanted}"


def _best(mlp: str) -> list[str]:
    return [f"{peer} {how}" for peer in PEERS[mlp] for how in (SHIPPED, TUNED)]


NEEDS: dict[str, Callable[[str], list[str]]] = {
    "S1": lambda mlp: [OURS, OURS_ADAMW, NANOGPT],
    "S2": lambda mlp: [OURS, *_best(mlp)],
    "S3": lambda mlp: [OURS_FLOAT32, NANOGPT_COMPILED],
    "S4": lambda mlp: [OURS, NANOGPT, f"nanoGPT {SHIPPED}"],
    "S5": lambda mlp: [*FIRST_STEP.values()],
    "S6": lambda mlp: [OURS, PRODUCTS],
}

ROWS: dict[str, Callable[[Bout], Iterator[Row]]] = {"S1": s1, "S2": s2, "S3": s3, "S4": s4, "S5": s5, "S6": s6}
