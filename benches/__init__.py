"""Speed and memory, against other tools in the same run: `python -m benches [tokenizer|training]`."""
