"""Hugging Face transformers, both ways: `export.export` writes what AutoModelForCausalLM reads, `convert.convert` reads what it wrote.

`transformers` is needed by neither. What each block is called there: architectures.py. The block `gpt2ml` is exported with a modelling
file of our own, remote/modeling_cngpt.py, which transformers loads with trust_remote_code=True.
"""
