"""Other names of fields: shorter ones, and those that other guides have."""

SHORT = {"lr": "learning_rate", "for": "kind"}
"""Shorter name -> field."""

# What other guides call our fields.
FOREIGN = {
    theirs: ours
    for ours, names in {
        "data": "data_dir data_file train_data dataset input",
        "val_data": "eval_data valid_data validation_data",
        "tokenizer": "tokenizer_path tokenizer_file",
        "out": "out_dir output_dir checkpoint_dir experiment_name",
        "vocab_size": "tgt_vocab_size src_vocab_size n_vocab",
        "n_layer": "num_layers n_layers layers depth num_hidden_layers",
        "n_head": "num_heads n_heads heads num_attention_heads",
        "n_kv_head": "num_kv_heads n_kv_heads num_key_value_heads",
        "d_model": "embed_dim embedding_dim dim n_embd n_embed hidden_size d_embed",
        "d_ff": "expansion_factor ffn_dim intermediate_size d_hidden",
        "block_size": "seq_len seq_length context_len context_length max_len max_seq_len n_ctx",
        "dropout": "dropout_rate dropout_prob",
        "batch_size": "init_batch micro_batch_size",
        "grad_accum": "grad_accum_steps gradient_accumulation_steps accumulation_steps",
        "learning_rate": "max_lr",
        "min_lr_fraction": "min_lr",
        "warmup_steps": "warmup_iters warmup",
        "max_steps": "max_iters n_steps num_steps iterations",
        "epochs": "n_epochs num_epochs max_epochs num_train_epochs",
        "grad_clip": "clip max_norm max_grad_norm clip_grad",
        "eval_every": "eval_interval eval_steps",
        "eval_batches": "eval_iters",
        "log_every": "log_interval logging_steps",
        "save_every": "save_interval save_steps checkpoint_every",
        "checkpoint": "model_path ckpt ckpt_path model checkpoint_path",
        "max_new_tokens": "length sample_len max_length n_tokens num_tokens",
        "n": "num_samples n_samples",
        "cpu": "device",
    }.items()
    for theirs in names.split()
}
