def extend_tokenizer(folder, spec, texts):
    pass
