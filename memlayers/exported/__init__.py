"""Our models as models of transformers, in a folder: registered, config, model, tokenizer, task, write."""
