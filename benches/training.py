"""Training against transformers: the same shape, batch and optimiser, float32, on the CPU."""

from benches.race import Side, race
from benches.table import Row, report

VOCAB_SIZE, LAYERS, HEADS, WIDTH, INNER, CONTEXT, BATCH, STEPS = 8192, 6, 6, 384, 1024, 256, 12, 6


def main(rounds: int) -> None:
    begin = f"""
import time; import numpy as np; import torch
from benches.race import Took, peak_mb
torch.manual_seed(0)
tokens = np.random.default_rng(0).integers(0, {VOCAB_SIZE}, 200_000).astype(np.uint16)
"""
    ours = f"""{begin}
from tinygpt import GPT, GPTConfig, TokenDataset, TrainConfig, Trainer
data = TokenDataset.from_tokens(tokens, vocab_size={VOCAB_SIZE}, block_size={CONTEXT})
shape = dict(n_layer={LAYERS}, n_head={HEADS}, d_model={WIDTH}, d_ff={INNER})
model = GPT(GPTConfig(vocab_size={VOCAB_SIZE}, block_size={CONTEXT}, **shape))
config = TrainConfig(max_steps={STEPS}, batch_size={BATCH}, dtype="float32")
seconds = [report.seconds for report in Trainer(model, data, config=config).steps()]
marks = sorted(b - a for a, b in zip(seconds[1:], seconds[2:]))
took = Took(marks[len(marks) // 2], peak_mb())
answer = model.n_parameters
"""
    theirs = f"""{begin}
import transformers
config = transformers.LlamaConfig(vocab_size={VOCAB_SIZE}, hidden_size={WIDTH}, intermediate_size={INNER},
    num_hidden_layers={LAYERS}, num_attention_heads={HEADS}, max_position_embeddings={CONTEXT},
    tie_word_embeddings=True)
model = transformers.LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rng, marks = np.random.default_rng(0), []
for _ in range({STEPS}):
    begin = time.perf_counter()
    x = torch.from_numpy(rng.integers(0, {VOCAB_SIZE}, ({BATCH}, {CONTEXT})))
    loss = model(x, labels=x).loss
    optimizer.zero_grad(); loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    marks.append(time.perf_counter() - begin)
marks = sorted(marks[2:])
took = Took(marks[len(marks) // 2], peak_mb())
answer = sum(p.numel() for p in model.parameters())
"""
    sides = [Side(name="tinygpt", code=ours), Side(name="transformers Llama", code=theirs)]
    runs = race("train step, float32", sides, rounds=rounds)
    row = Row(id="S1", task="train step, float32", ours=runs[0], peer=runs[1], amount=BATCH * CONTEXT, unit="tokens")
    report("training", [row])
